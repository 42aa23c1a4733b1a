"""ATTACKS 9, 10: what a client leaves in a backend reaches other clients of its tenant, and nobody else.

Settings, held cursors, prepared statements and LISTEN belong to the connection, not to the transaction;
PostgreSQL has no privilege for them. One pool per login role is what bounds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.pgbouncer import pgbouncer
from tests.support.sqlstate import refused


def connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, prepare_threshold=None, autocommit=True)


@pytest.fixture
def clients(database: Database) -> Iterator[tuple[Connection, Connection, Connection]]:
    """Two clients of acme, who share one backend, and one of globex."""
    for slug in ("acme", "globex"):
        with database.tenant(slug, subject="loader") as connection:
            connection.execute("insert into patients (id, name) values (1, %s)", [f"{slug} one"])
    with (
        pgbouncer(database, ["acme", "globex"], pool_size=1) as dsns,
        connect(dsns["acme"]) as one,
        connect(dsns["acme"]) as two,
        connect(dsns["globex"]) as other,
    ):
        yield one, two, other


def backend(connection: Connection) -> int:
    row = connection.execute("select pg_backend_pid()").fetchone()
    assert row
    return int(row[0])


def test_tenants_never_share_a_backend(clients: tuple[Connection, ...]) -> None:
    one, two, other = clients
    assert backend(one) == backend(two) != backend(other)


def test_settings_and_statements_stay(database: Database, clients: tuple[Connection, ...]) -> None:
    one, two, other = clients
    one.execute("set app.was_left = 'behind'")
    one.execute('prepare "PGBOUNCER_1" as select name from patients')
    query = "select current_setting('app.was_left', true), (select count(*) from pg_prepared_statements)"
    assert two.execute(query).fetchone() == ("behind", 1)
    assert other.execute(query).fetchone() == (None, 0)
    with refused("WK001"):  # a statement has the context of who runs it
        two.execute('execute "PGBOUNCER_1"')
    with two.transaction():
        two.execute("select ward.login(%s)", [database.token("acme", "two")])
        assert two.execute('execute "PGBOUNCER_1"').fetchall() == [("acme one",)]


def test_held_cursor_stays_with_its_rows(database: Database, clients: tuple[Connection, ...]) -> None:
    one, two, other = clients
    with one.transaction():
        one.execute("select ward.login(%s)", [database.token("acme", "one")])
        one.execute("declare held cursor with hold for select name from patients")
    with pytest.raises(psycopg.errors.InvalidCursorName):
        other.execute("fetch all held")
    assert two.execute("fetch all held").fetchall() == [("acme one",)]
    two.execute("close held")


def test_session_login_through_a_pooler_stays_and_is_documented(
    database: Database, clients: tuple[Connection, ...]
) -> None:
    """It is for psql, as its comment says: behind a pooler the next client of the tenant has it."""
    one, two, other = clients
    one.execute("select ward.login_session(%s)", [database.token("acme", "one")])
    assert two.execute("select ward.subject()").fetchone() == ("one",)
    assert other.execute("select ward.subject()").fetchone() == (None,)
    two.execute("discard all")
    assert two.execute("select ward.subject()").fetchone() == (None,)
    with database.admin() as admin:
        comment = admin.execute("select obj_description('ward.login_session(text)'::regprocedure)").fetchone()
    assert comment and "never behind a pooler" in comment[0]


def test_nothing_else_can_be_left(clients: tuple[Connection, ...]) -> None:
    one, _, _ = clients
    for statement in (
        "create temp table left_behind (x int)",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock(1)",
        "select set_config('role', 'tenant_globex', false)",
    ):
        with refused():
            one.execute(statement)


def test_the_attack_works_in_one_pool_for_all_tenants(database: Database) -> None:
    """One login role for everybody and the tenant in a setting: the usual design, and its usual accident."""
    with database.admin() as admin:
        admin.execute("create table public.notes (tenant text, body text)")
        admin.execute("insert into public.notes values ('globex', 'secret')")
        admin.execute("alter table public.notes enable row level security")
        policy = "create policy own on public.notes using (tenant = current_setting('app.tenant', true))"
        admin.execute(policy)
        admin.execute("grant select on public.notes to ward_tenant")
    with (
        pgbouncer(database, ["acme"], pool_size=1) as dsns,
        connect(dsns["acme"]) as globex,
        connect(dsns["acme"]) as acme,
    ):
        globex.execute("set app.tenant = 'globex'")
        assert acme.execute("select body from public.notes").fetchall() == [("secret",)]
