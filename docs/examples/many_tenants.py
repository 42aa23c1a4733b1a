"""Two tenants through one object, after protect.sql: a retry, errors, and the same for asyncio.

WARDKEY_WARD_DSN: of the tenants' login roles, with {tenant} where a slug belongs; WARDKEY_TOKENS: two tokens.
"""

import asyncio
import os

import wardkey
from wardkey.errors import ContextError

DSN, (FIRST, SECOND) = os.environ["WARDKEY_WARD_DSN"], os.environ["WARDKEY_TOKENS"].split()
INSERT = "insert into orders (accession, ordered_by, reason) values (%s, %s, %s)"

# As many connections as the servers of this program may open, and of one tenant.
with wardkey.Wards(DSN, max_size=20, max_per_tenant=4, timeout=30) as wards:

    @wardkey.retry()  # the whole transaction again: serialization failures, deadlocks, keys that were rotated
    def order(token: str, accession: str) -> int:
        with wards.transaction(token) as connection:
            connection.execute(INSERT, [accession, "dr.grey", "cough"])
            return len(connection.execute("select accession from orders").fetchall())

    print("first", order(FIRST, "A-1"), order(FIRST, "A-2"))
    print("second", order(SECOND, "A-1"))

    try:
        order(FIRST[:-8] + "AAAAAAAA", "A-3")
    except ContextError as error:  # a bad token, an expired one, a suspended tenant: WK002, WK003, WK005
        print(error.sqlstate, error.message)


async def main() -> None:
    async with wardkey.AsyncWards(DSN, max_size=20) as wards:

        async def count(token: str) -> int:
            async with wards.transaction(token) as connection:
                cursor = await connection.execute("select count(*) from orders")
                (number,) = await cursor.fetchone()
                return number

        print("awaited", await asyncio.gather(count(FIRST), count(SECOND)))
        try:
            async with asyncio.timeout(0.2), wards.transaction(FIRST) as connection:
                await connection.execute("delete from orders")
                await connection.execute("select pg_sleep(60)")
        except TimeoutError:  # rolled back, and the connection is there for the next one
            print("timed out", await count(FIRST))


asyncio.run(main())
