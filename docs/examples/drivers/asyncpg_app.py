"""asyncpg on a ward, after specimens.sql: the login is the first statement of each transaction.

WARDKEY_WARD_DSN: postgresql://tenant_acme@host:port/db, the password in PGPASSWORD or a passfile.
WARDKEY_TOKEN: of your identity provider, or `wardkey token`. WARDKEY_POOLER=1: behind PgBouncer in
transaction mode.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_interface
from uuid import UUID

import asyncpg

DSN, TOKEN = os.environ["WARDKEY_WARD_DSN"], os.environ["WARDKEY_TOKEN"]
POOLED = bool(os.environ.get("WARDKEY_POOLER"))
INSERT = "insert into specimens (accession, note) values ($1, $2) returning id"
EVERY_TYPE = {
    "accession": "types",
    "note": "Ünïcode, 'quoted'",
    "rack": "R-17",
    "shelf": "B   ",
    "fasting": True,
    "tubes": -32768,
    "volume": 2147483647,
    "serial": 9007199254740993,
    "result": Decimal("1234567890123456.7890"),
    "ratio": 0.5,
    "factor": 0.1,
    "collected_on": date(2026, 3, 29),
    "collected_at": datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
    "read_at": datetime(2026, 3, 29, 2, 30, 0, 123456),
    "daily_at": time(23, 59, 59, 999999),
    "called_at": time(12, 0, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "kept": timedelta(days=40, hours=3, microseconds=1),
    "device": UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "message": {"b": 1, "a": [None, "x"]},
    "details": {"a": {"b": [1, 2]}},
    "image": bytes(range(256)),
    "address": ip_interface("2001:db8::1/64"),
    "codes": ["a,b", 'c"d', None],
    "levels": [-1, 1],
    "positions": [[1, 2], [3, 4]],
    "counts": [9007199254740993],
    "state": "used up",
}


async def prepare_connection(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):  # asyncpg gives them as text otherwise
        await connection.set_type_codec(name, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


@asynccontextmanager
async def ward(pool: asyncpg.Pool, token: str = TOKEN) -> AsyncIterator[asyncpg.Connection]:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("select ward.login($1)", token)
        yield connection


async def main() -> None:
    # PgBouncer before 1.21 knows no prepared statements: without the cache asyncpg names none
    pool = await asyncpg.create_pool(
        DSN, min_size=1, max_size=2, init=prepare_connection, statement_cache_size=0 if POOLED else 100
    )

    async with ward(pool) as connection:
        key = await connection.fetchval(INSERT, "A-17", "chest pain")
        print("inserted", await connection.fetchval("select note from specimens where id = $1", key))
        await connection.executemany(INSERT, [(f"B-{n}", f"batch {n}") for n in range(100)])
        await connection.execute("update specimens set note = $2 where id = $1", key, "cough")
        print("updated", await connection.fetchval("select note from specimens where id = $1", key))
        deleted = "delete from specimens where accession = $1 returning note"
        print("deleted", await connection.fetchval(deleted, "B-99"))

    async with ward(pool) as connection:
        names = ", ".join(EVERY_TYPE)
        values = ", ".join(f"${n + 1}" for n in range(len(EVERY_TYPE)))
        query = f"insert into specimens ({names}) values ({values}) returning {names}"
        returned = await connection.fetchrow(query, *EVERY_TYPE.values())
        read = await connection.fetchrow(f"select {names} from specimens where accession = 'types'")
        assert dict(returned) == dict(read) == EVERY_TYPE
        print("types", len(read) - 1)

    for _ in range(7):  # a prepared statement outlives the transaction; whose rows it reads, each login says
        async with ward(pool) as connection:
            statement = await connection.prepare("select note from specimens where accession = $1")
            note = await statement.fetchval("A-17")
    print("prepared", note)

    async with ward(pool) as connection:
        seen = [
            row["note"]
            async for row in connection.cursor(
                "select note from specimens where accession like 'B-%' order by id", prefetch=10
            )
        ]
        print("cursor", len(seen), seen[0], seen[-1])

    async with ward(pool) as connection:
        try:
            async with connection.transaction():  # a savepoint
                await connection.execute(INSERT, "A-17", "twice")
        except asyncpg.UniqueViolationError as error:
            print("savepoint", error.sqlstate, error.table_name, error.constraint_name)
        print("goes on", await connection.fetchval("select count(*) from specimens where note = 'cough'"))

    try:
        async with ward(pool, token="not a token"):
            pass
    except asyncpg.PostgresError as error:
        print("refused", error.sqlstate, error.message)
        print("hint", error.hint)
    try:
        await pool.fetch("select note from specimens")  # no login in this transaction
    except asyncpg.PostgresError as error:
        print("refused", error.sqlstate, error.message)
    await pool.close()


asyncio.run(main())
