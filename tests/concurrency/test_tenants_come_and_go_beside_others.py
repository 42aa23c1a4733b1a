"""Making and dropping a tenant takes locks that others' transactions hold: it gives way, they never fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from tests.support.database import Connection, Database

MODEL = """
create table clinic.beds (id int primary key, code text references clinic.icd10, note text);
create table clinic.stays (id int primary key, bed int references clinic.beds, note text);
select ward.protect('clinic.beds', seal => '{note}');
select ward.protect('clinic.stays', seal => '{note}');
"""


@pytest.fixture
def hospital(database: Database) -> Database:
    with database.admin() as admin:
        admin.execute(MODEL)
    return database


def begun(database: Database, slug: str = "acme") -> Connection:
    """A transaction over a new connection: it takes locks on parents when it first writes to a leaf."""
    connection = psycopg.connect(database.dsn(f"tenant_{slug}"))
    connection.execute("select ward.login(%s)", [database.token(slug)])
    return connection


def waits(database: Database, query: str) -> bool:
    with database.admin() as admin:
        row = admin.execute(
            "select from pg_stat_activity where query like %s and wait_event_type = 'Lock'", [query]
        ).fetchone()
    return row is not None


def make(admin: Connection) -> None:
    admin.execute("select ward.create_tenant('newcomer')")


def drop(admin: Connection) -> None:
    admin.execute("select ward.drop_tenant('leaver', 'leaver', true)")


@pytest.mark.parametrize("change", [make, drop])
@pytest.mark.parametrize("first", ["insert into stays (id) values (7)", "select title from clinic.icd10"])
def test_a_tenants_transaction_is_never_the_victim(
    hospital: Database, change: Callable[[Connection], None], first: str
) -> None:
    """It holds what the change wants last, and wants what the change has already."""
    with hospital.admin() as admin:
        admin.execute("select ward.create_tenant('leaver')")
        failed: list[Exception] = []

        def run() -> None:
            try:
                change(admin)
            except psycopg.Error as error:
                failed.append(error)

        with begun(hospital) as connection:
            connection.execute(first)
            changing = threading.Thread(target=run)
            changing.start()
            deadline = time.monotonic() + 30
            while changing.is_alive() and not waits(hospital, "select ward.%tenant(%"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            connection.execute("select title from clinic.icd10")
            connection.execute("insert into patients (name) values ('x')")
            connection.execute("insert into beds values (1, 'E11', 'x')")
            connection.execute("insert into stays values (1, 1, 'x')")
        changing.join(60)
        assert not changing.is_alive() and not failed
        there = admin.execute("select slug from ward.tenants where slug in ('newcomer', 'leaver')").fetchall()
    assert there == ([("leaver",), ("newcomer",)] if change is make else [])
