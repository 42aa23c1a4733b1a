"""Transactions that began before a rotation read and write on: old rows, and rows under the new key."""

from __future__ import annotations

import threading

import pytest

from tests.support.database import Connection, Database, parallel_mode
from tests.support.rotations import reseal, retire, rotate, versions
from tests.support.sqlstate import refused

_READ = "select id, name, ssn from patients order by id"


@pytest.fixture
def filled(database: Database) -> Database:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(
            "insert into patients (name, ssn) select 'n' || n, 's' || n from generate_series(1, 50) as n"
        )
    return database


def _log_in(database: Database, connection: Connection) -> None:
    connection.execute("select ward.login(%s)", [database.token("acme")])


@pytest.mark.parametrize("late", [False, True], ids=["logged in before", "logged in after"])
def test_repeatable_read_goes_on_reading_its_old_rows(
    filled: Database, postgresql: Connection, late: bool
) -> None:
    with filled.tenant("acme") as ward:
        ward.execute("begin isolation level repeatable read; select 1")
        if not late:
            _log_in(filled, ward)
        rotate(postgresql)
        reseal(postgresql)
        assert set(versions(postgresql)) == {2}
        if late:
            _log_in(filled, ward)
        rows = ward.execute(_READ).fetchall()
        assert len(rows) == 50 and rows[7] == (8, "n8", "s8")
        with refused("WK214"):
            retire(postgresql)
        assert ward.execute(_READ).fetchall() == rows
        ward.execute("commit")
    assert retire(postgresql) == [1]


def test_read_committed_reads_rows_of_a_newer_key(filled: Database, postgresql: Connection) -> None:
    with filled.tenant("acme") as ward:
        ward.execute("begin")
        _log_in(filled, ward)
        rows = ward.execute(_READ).fetchall()
        for _ in range(2):
            rotate(postgresql)
            reseal(postgresql)
            assert ward.execute(_READ).fetchall() == rows
            ward.execute(
                "update patients set ssn = ssn where id = 1; insert into patients (name) values ('new')"
            )
            ward.execute("delete from patients where name = 'new'")
            ward.execute("commit; begin")
            _log_in(filled, ward)
            assert retire(postgresql) != []


@pytest.mark.parametrize(
    "statement",
    [
        "select name from patients where id = 1 for update",
        "update patients set city = name where id = 1 returning name",
    ],
)
def test_a_row_that_is_newer_than_the_statements_snapshot(
    filled: Database, postgresql: Connection, statement: str
) -> None:
    """The statement waits for a row; when it gets it, it is under a key that its snapshot does not know."""
    got: list[object] = []
    with filled.tenant("acme") as ward, filled.admin() as holder:
        holder.execute("begin; select from sealed_acme.patients where id = 1 for update")
        ward.execute("begin")
        _log_in(filled, ward)
        thread = threading.Thread(target=lambda: got.extend(ward.execute(statement).fetchall()))
        thread.start()
        waiting = "select count(*) from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
        while postgresql.execute(waiting, [ward.info.backend_pid]).fetchone() != (1,):
            assert thread.is_alive()
        rotate(postgresql)
        assert reseal(holder).rows == 50
        holder.execute("commit")
        thread.join()
        assert got == [("n1",)]
        ward.execute("commit")


def test_a_parallel_plan_says_to_try_again(filled: Database, postgresql: Connection) -> None:
    """The registry cannot be asked in the middle of one."""
    query = "select count(name), count(distinct ssn) from patients"
    with filled.tenant("acme") as ward:
        ward.execute(
            "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0;"
            f"{parallel_mode('regress')}; set max_parallel_workers_per_gather = 2; begin"
        )
        _log_in(filled, ward)
        assert ward.execute(query).fetchone() == (50, 50)
        rotate(postgresql)
        reseal(postgresql)
        with refused("WK107"):
            ward.execute(query)
        ward.execute("rollback; begin")
        _log_in(filled, ward)
        assert ward.execute(query).fetchone() == (50, 50)


def test_suspended_in_between_is_refused(filled: Database, postgresql: Connection) -> None:
    with filled.tenant("acme") as ward:
        ward.execute("begin")
        _log_in(filled, ward)
        assert len(ward.execute(_READ).fetchall()) == 50
        rotate(postgresql)
        reseal(postgresql)
        postgresql.execute("select ward.suspend_tenant('acme')")
        with refused("WK005"):
            ward.execute(_READ)
        ward.execute("rollback")
    postgresql.execute("select ward.resume_tenant('acme')")
