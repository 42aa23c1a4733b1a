"""BEGIN, the login and the first statement cost one round trip: libpq's own trace tells what was sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import ClientCursor, RawCursor, sql
from psycopg.pq import Trace

from wardkey import AsyncWards, Wards, errors

READ = "select name from patients where id = %s"


class Trips:
    """How often the client waited for the server since the last question: once for each Sync or Query."""

    def __init__(self, path: Path) -> None:
        self._path, self._file, self._read = path, path.open("wb"), 0

    def of(self, connection: Any) -> None:
        connection.pgconn.trace(self._file.fileno())
        connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)

    def since(self) -> int:
        lines = self._path.read_text("latin-1").splitlines()
        new, self._read = lines[self._read :], len(lines)
        return sum(bool(re.match(r"F\t\d+\t(Sync|Query)\b", line)) for line in new)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def trips(tmp_path) -> Iterator[Trips]:
    with closing(Trips(tmp_path / "trace")) as trips:
        yield trips


@pytest.fixture
def wards(database, trips):  # the trace is closed after the connections
    with Wards(database.dsn("tenant_acme"), max_size=1) as wards:
        yield wards


@pytest.fixture
def token(database) -> str:
    return database.token("acme", subject="ann")


def test_transaction_is_two_round_trips(wards, token, trips):
    for _ in range(7):  # the statements are prepared from the sixth on
        with wards.transaction(token) as connection:
            trips.of(connection)
            assert connection.execute("select ward.subject(), %s", ["x"]).fetchone() == ("ann", "x")
            assert trips.since() == 1
            connection.execute("select 1", prepare=False)
            assert trips.since() == 1
        assert trips.since() == 1


def test_so_it_is_for_asyncio(database, token, trips):
    async def work() -> None:
        async with AsyncWards(database.dsn("tenant_acme")) as wards, wards.transaction(token) as connection:
            trips.of(connection)
            cursor = await connection.execute("select ward.subject(), %s", ["x"])
            assert await cursor.fetchone() == ("ann", "x")
            assert trips.since() == 1
        assert trips.since() == 1

    asyncio.run(work())


def copy_in(connection: Any) -> None:
    with connection.cursor().copy("copy patients (name) from stdin") as copy:
        copy.write_row(["Ann"])


def pipeline(connection: Any) -> None:
    with connection.pipeline():
        connection.execute("select ward.subject()")
        connection.execute("select 1")


def server_side(connection: Any) -> None:
    with connection.cursor("named") as cursor:
        cursor.execute("select 1")
        cursor.fetchall()


def savepoint(connection: Any) -> None:
    with connection.transaction():
        connection.execute("select 1")


FIRST: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "execute": (1, lambda c: c.execute("select 1")),
    "a trailing semicolon": (1, lambda c: c.execute("select 1;")),
    "composed": (1, lambda c: c.execute(sql.SQL("select {}").format(1))),
    "bytes": (1, lambda c: c.execute(b"select 1")),
    "executemany": (1, lambda c: c.cursor().executemany("select %s", [[1], [2]])),
    "ClientCursor": (1, lambda c: ClientCursor(c).execute("select %s", [1])),
    "RawCursor": (1, lambda c: RawCursor(c).execute("select $1::int", [1])),
    "pipeline": (1, pipeline),
    "several statements": (2, lambda c: c.execute("select 1; select 2")),
    "copy": (2, copy_in),
    "stream": (2, lambda c: list(c.cursor().stream("select 1"))),
    "server-side cursor": (5, server_side),
    "savepoint": (4, savepoint),
}


@pytest.mark.parametrize("first", FIRST)
def test_every_way_to_say_something_first_logs_in(wards, token, trips, first):
    expected, say = FIRST[first]
    with wards.transaction(token) as connection:
        trips.of(connection)
        say(connection)
        assert trips.since() <= expected
        assert connection.execute("select ward.subject()").fetchone() == ("ann",)
        assert connection.info.pipeline_status == 0


@pytest.mark.parametrize("first", FIRST)
def test_every_way_to_say_something_first_tells_of_a_bad_token(wards, token, first):
    with pytest.raises(errors.InvalidToken), wards.transaction(token + "x") as connection:
        FIRST[first][1](connection)


def test_the_first_statement_has_its_own_error(wards, token):
    with pytest.raises(psycopg.errors.UndefinedTable), wards.transaction(token) as connection:
        connection.execute("select * from nowhere")
    with pytest.raises(psycopg.errors.UniqueViolation), wards.transaction(token) as connection:
        connection.cursor().executemany("insert into patients (id, name) values (%s, 'x')", [[1], [1]])
    with pytest.raises(psycopg.ProgrammingError), wards.transaction(token) as connection:
        connection.execute(READ, [1, 2])


def test_without_a_statement_the_token_is_verified_all_the_same(wards, token):
    with pytest.raises(errors.InvalidToken), wards.transaction(token + "x"):
        pass


def test_an_aborted_transaction_does_not_end_as_if_it_were_committed(wards, token):
    with pytest.raises(psycopg.errors.InFailedSqlTransaction), wards.transaction(token) as connection:
        connection.execute("insert into patients (name) values ('lost')")
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("select 1/0")


def test_adapter_begins_and_ends_on_a_connection_of_its_own(wards, token, trips):
    connection = wards.getconn("acme")
    trips.of(connection)
    for _ in range(2):
        wards.begin(connection, token)
        assert trips.since() == 0
        assert connection.execute("select ward.subject()").fetchone() == ("ann",)
        connection.commit()
        assert trips.since() == 2
    wards.begin(connection, token)
    connection.rollback()
    with pytest.raises(errors.NoContext):
        connection.execute("select name from patients")
    connection.autocommit = False
    connection.row_factory = psycopg.rows.dict_row
    wards.begin(connection, token)
    connection.execute("select 1")
    wards.putconn(connection)
    again = wards.getconn("acme")
    assert again is connection
    assert again.autocommit
    assert again.row_factory is psycopg.rows.tuple_row
    assert again.info.transaction_status == 0
    wards.putconn(again)


def test_login_commands_are_for_pipelines_of_others(wards, token):
    connection = wards.getconn("acme")
    with connection.pipeline():
        for statement, parameters in wards.login_commands(token):
            connection.execute(statement, parameters)
        row = connection.execute("select ward.subject()").fetchone()
    assert row == ("ann",)
    wards.putconn(connection)
