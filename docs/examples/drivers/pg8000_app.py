"""pg8000 on a ward, after specimens.sql: the login is the first statement of each transaction.

WARDKEY_WARD_DSN: postgresql://tenant_acme@host:port/db, the password in PGPASSWORD.
WARDKEY_TOKEN: of your identity provider, or `wardkey token`. WARDKEY_POOLER=1: behind PgBouncer in
transaction mode.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit
from uuid import UUID

from pg8000.native import Connection, DatabaseError

DSN, TOKEN = urlsplit(os.environ["WARDKEY_WARD_DSN"]), os.environ["WARDKEY_TOKEN"]
POOLED = bool(os.environ.get("WARDKEY_POOLER"))
INSERT = "insert into specimens (accession, note) values (:accession, :note)"
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
    "called_at": "12:00:00+05:45",  # pg8000 gives timetz as text
    "kept": timedelta(days=40, hours=3, microseconds=1),
    "device": UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "message": {"b": 1, "a": [None, "x"]},
    "details": {"a": {"b": [1, 2]}},
    "image": bytes(range(256)),
    "address": ip_address("2001:db8::1"),
    "codes": ["a,b", 'c"d', None],
    "levels": [-1, 1],
    "positions": [[1, 2], [3, 4]],
    "counts": [9007199254740993],
    "state": "used up",
}


@contextmanager
def transaction(connection: Connection, token: str = TOKEN) -> Iterator[None]:
    connection.run("begin")
    try:
        connection.run("select ward.login(:token)", token=token)
        yield
        connection.run("commit")
    except BaseException:
        connection.run("rollback")
        raise


def main() -> None:
    connection = Connection(
        DSN.username,
        host=DSN.hostname,
        port=DSN.port,
        database=unquote(DSN.path[1:]),
        password=os.environ["PGPASSWORD"],
    )

    with transaction(connection):
        [[key]] = connection.run(INSERT + " returning id", accession="A-17", note="chest pain")
        read = "select note from specimens where id = :key"
        print("inserted", connection.run(read, key=key)[0][0])
        # many rows in one statement: an array for each column
        connection.run(
            "insert into specimens (accession, note)"
            " select * from unnest(cast(:a as text[]), cast(:n as text[]))",
            a=[f"B-{n}" for n in range(100)],
            n=[f"batch {n}" for n in range(100)],
        )
        connection.run("update specimens set note = :note where id = :key", note="cough", key=key)
        print("updated", connection.run(read, key=key)[0][0])
        deleted = "delete from specimens where accession = :accession returning note"
        print("deleted", connection.run(deleted, accession="B-99")[0][0])

    with transaction(connection):
        names = ", ".join(EVERY_TYPE)
        values = ", ".join(f":{name}" for name in EVERY_TYPE)
        query = f"insert into specimens ({names}) values ({values}) returning {names}"
        [returned] = connection.run(query, **EVERY_TYPE)
        [row] = connection.run(f"select {names} from specimens where accession = 'types'")
        assert returned == row == list(EVERY_TYPE.values())
        print("types", len(row) - 1)

    by_accession = "select note from specimens where accession = :accession"
    statement = None if POOLED else connection.prepare(by_accession)  # PgBouncer knows them from 1.21 on
    for _ in range(7):  # it outlives the transaction; whose rows it reads, each login says
        with transaction(connection):
            rows = (
                statement.run(accession="A-17")
                if statement
                else connection.run(by_accession, accession="A-17")
            )
    print("prepared", rows[0][0])

    with transaction(connection):
        connection.run(
            "declare batches cursor for select note from specimens where accession like 'B-%' order by id"
        )
        seen: list[str] = []
        while rows := connection.run("fetch 10 from batches"):
            seen += [note for (note,) in rows]
        print("cursor", len(seen), seen[0], seen[-1])

    with transaction(connection):
        connection.run("savepoint before")
        try:
            connection.run(INSERT, accession="A-17", note="twice")
        except DatabaseError as error:
            fields = error.args[0]
            print("savepoint", fields["C"], fields["t"], fields["n"])
            connection.run("rollback to savepoint before")
        [[count]] = connection.run("select count(*) from specimens where note = 'cough'")
        print("goes on", count)

    try:
        with transaction(connection, token="not a token"):
            pass
    except DatabaseError as error:
        print("refused", error.args[0]["C"], error.args[0]["M"])
        print("hint", error.args[0]["H"])
    try:
        connection.run("select note from specimens")  # no login in this transaction
    except DatabaseError as error:
        print("refused", error.args[0]["C"], error.args[0]["M"])
    connection.close()


main()
