"""A ward is there with role, schema, key and faces, or not at all; suspending and dropping act at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from tests.support.database import Connection, Database


@pytest.fixture
def admin(database: Database) -> Iterator[Connection]:
    with database.admin() as connection:
        yield connection


def traces(admin: Connection, slug: str) -> list[int]:
    """Count what there is of a tenant: registry, keys, role, schema, relations, settings."""
    row = admin.execute(
        "select (select count(*) from ward_internal.tenants where slug = %(s)s),"
        " (select count(*) from ward_internal.tenant_keys k join ward.tenants t on t.id = tenant_id"
        "   where slug = %(s)s),"
        " (select count(*) from pg_roles where rolname = 'tenant_' || %(s)s),"
        " (select count(*) from pg_namespace where nspname = 'tenant_' || %(s)s)",
        {"s": slug},
    ).fetchone()
    return list(row or ())


def code(connection: Connection, statement: str, *args: object) -> str | None:
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(statement, args or None)
    assert caught.value.diag.message_hint
    return caught.value.sqlstate


def test_create(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    assert traces(admin, slug) == [1, 1, 1, 1]
    row = admin.execute(
        "select id, name, schema_name, login_role, status, key_version from ward.tenants where slug = %s",
        [slug],
    ).fetchone()
    assert row and isinstance(row[0], UUID)
    assert row[1:] == (slug, f"tenant_{slug}", f"tenant_{slug}", "active", 1)
    with database.tenant(slug, subject="t") as ward:
        ward.execute("insert into patients (name) values ('x')")
        assert ward.execute("select name, id from patients").fetchall() == [("x", 1)]


@pytest.mark.parametrize(
    "slug",
    ["", " ", "A", "1a", "_a", "a-b", "a b", "ä", "a" * 49, "a\n", "a;drop table x",
     'a"b', "a'b", "a.b", "../a", "platform", None],
    ids=repr,
)  # fmt: skip
def test_an_invalid_slug_is_refused(admin: Connection, slug: str | None) -> None:
    assert code(admin, "select ward.create_tenant(%s)", slug) == "WK201"


def test_a_slug_of_full_length_works(database: Database, admin: Connection) -> None:
    slug = "a" * 48
    database.new_tenant(slug)
    assert traces(admin, slug) == [1, 1, 1, 1]


def test_a_slug_is_taken_once(admin: Connection) -> None:
    assert code(admin, "select ward.create_tenant('acme')") == "WK202"
    assert traces(admin, "acme") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "there", ["create role tenant_squat", "create schema tenant_squat", "create schema sealed_squat"]
)
def test_a_role_or_schema_that_is_there_is_not_taken_over(database: Database, there: str) -> None:
    with database.admin(autocommit=False) as admin:
        admin.execute(there)
        assert code(admin, "select ward.create_tenant('squat')") == "WK202"
        admin.rollback()


def test_of_two_provisionings_at_once_one_wins(database: Database, admin: Connection) -> None:
    slug = "race"
    outcomes: list[str | None] = []
    barrier = threading.Barrier(4)

    def provision() -> None:
        with database.admin() as connection:
            barrier.wait(10)
            try:
                connection.execute("select ward.create_tenant(%s)", [slug])
                outcomes.append("made")
            except psycopg.Error as error:
                outcomes.append(error.sqlstate)

    threads = [threading.Thread(target=provision) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, outcomes)) == ["WK202"] * 3 + ["made"]
    assert traces(admin, slug) == [1, 1, 1, 1]


def test_different_tenants_are_provisioned_side_by_side(database: Database, admin: Connection) -> None:
    outcomes: list[str] = []

    def provision(slug: str) -> None:
        with database.admin() as connection:
            try:
                connection.execute("select ward.create_tenant(%s)", [slug])
                outcomes.append("made")
            except psycopg.Error as error:
                outcomes.append(f"{error.sqlstate} {error}")

    threads = [threading.Thread(target=provision, args=[f"side{n}"]) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == ["made"] * 3


@pytest.mark.parametrize("socket", ["/nonexistent/keeper.sock", "/dev/null", ""])
def test_without_a_keeper_nothing_is_made(admin: Connection, socket: str) -> None:
    admin.execute("select ward.set('keeper_socket', %s)", [socket])
    assert code(admin, "select ward.create_tenant('early')") == "WK102"
    assert traces(admin, "early") == [0, 0, 0, 0]


def test_a_provisioning_rolled_back_leaves_nothing(database: Database, admin: Connection) -> None:
    with database.admin(autocommit=False) as connection:
        connection.execute("select ward.create_tenant('undone')")
        connection.rollback()
    assert traces(admin, "undone") == [0, 0, 0, 0]
    database.new_tenant("undone")


def test_suspended_at_the_next_transaction_and_resumed(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, subject="t") as lasting, database.tenant(slug) as fresh:
        lasting.execute("insert into patients (name) values ('x')")
        admin.execute("select ward.suspend_tenant(%s)", [slug])
        assert code(lasting, "select name from patients") == "WK005"
        assert code(fresh, "select ward.login(%s)", database.token(slug)) == "WK005"
        assert code(fresh, "select count(*) from patients") == "WK001"
        admin.execute("select ward.suspend_tenant(%s)", [slug])
        admin.execute("select ward.resume_tenant(%s)", [slug])
        lasting.execute("select ward.login_session(%s)", [database.token(slug)])
        assert lasting.execute("select name from patients").fetchall() == [("x",)]


def test_a_transaction_under_way_may_end(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, subject="t") as ward, ward.transaction():
        ward.execute("insert into patients (name) values ('x')")
        admin.execute("select ward.suspend_tenant(%s)", [slug])
        assert ward.execute("select name from patients").fetchall() == [("x",)]


def test_drop_asks_for_the_slug_and_for_force(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, subject="t") as ward:
        ward.execute("insert into patients (name) values ('x')")
    for confirm in ("", "acme", None):
        assert code(admin, "select ward.drop_tenant(%s, %s, true)", slug, confirm) == "WK211"
    assert code(admin, "select ward.drop_tenant(%s, %s)", slug, slug) == "WK210"
    assert traces(admin, slug) == [1, 1, 1, 1]
    admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    assert traces(admin, slug) == [0, 0, 0, 0]
    assert admin.execute("select count(*) from clinic.patients").fetchone() == (0,)
    database.new_tenant(slug)
    with database.tenant(slug, subject="t") as ward:
        assert ward.execute("select count(*) from patients").fetchone() == (0,)


def test_an_empty_tenant_is_dropped_unforced(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    admin.execute("select ward.drop_tenant(%s, %s)", [slug, slug])
    assert traces(admin, slug) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "function", ["suspend_tenant(%s)", "resume_tenant(%s)", "drop_tenant(%s, 'x')", "repair_tenant(%s)"]
)
@pytest.mark.parametrize("slug", ["nobody", "", None])
def test_an_unknown_tenant_is_an_error(admin: Connection, function: str, slug: str | None) -> None:
    assert code(admin, f"select ward.{function}", slug) == "WK203"
