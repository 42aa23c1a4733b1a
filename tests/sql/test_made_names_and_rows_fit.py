"""What wardkey makes of a table has names of its own and fits PostgreSQL's limits, or protect says why."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support.database import Connection, Database

MODELS = """
create schema a;
create table a.t (id int generated always as identity, i int, constraint t_pkey primary key (id));
create index t_index on a.t (i);
select ward.protect('a.t');
"""


@pytest.fixture
def admin(shared: Database) -> Iterator[Connection]:
    with shared.admin(autocommit=False) as connection:
        yield connection
        connection.rollback()


@pytest.fixture(scope="module")
def empty(shared: Database) -> Iterator[Connection]:
    """A database with the same model and no tenants."""
    name = sql.Identifier(f"{shared.name}_empty")
    with psycopg.connect(shared.cluster.dsn("postgres"), autocommit=True) as postgres:
        postgres.execute(sql.SQL("create database {}").format(name))
        with psycopg.connect(shared.cluster.dsn(f"{shared.name}_empty"), autocommit=True) as connection:
            connection.execute("create extension wardkey cascade")
            connection.execute(MODELS)
            yield connection
        postgres.execute(sql.SQL("drop database {}").format(name))


def refused(connection: Connection, statement: str, word: str) -> None:
    with pytest.raises(psycopg.Error) as caught, connection.transaction(force_rollback=True):
        connection.execute(statement)
    assert caught.value.sqlstate == "WK209", caught.value
    assert word in f"{caught.value.diag.message_primary} {caught.value.diag.message_hint}"


@pytest.mark.parametrize(
    ("declared", "table", "words"),
    [
        ("create table clinic.t_id_seq (id int primary key)", "clinic.t_id_seq", "the sequence of a.t"),
        ("create table clinic.t_index (id int primary key)", "clinic.t_index", "the index of a.t"),
        ("create table clinic.u (id int constraint t primary key)", "clinic.u", "the face of a.t"),
        ("create table clinic.u (id int primary key); create index t_index on clinic.u (id)",
         "clinic.u", "the index of a.t"),
        ("create table clinic.audit_log_2026_01 (id int primary key)", "clinic.audit_log_2026_01",
         "audit log"),
        ("create schema x; create schema x__y; create table x.y__z (id int primary key);"
         " create table x__y.z (id int primary key); select ward.protect('x.y__z')", "x__y.z",
         "ward_model.x__y__z"),
    ],
)  # fmt: skip
def test_names_that_clash_are_refused_before_the_first_tenant_and_after(
    admin: Connection, empty: Connection, declared: str, table: str, words: str
) -> None:
    empty.execute("create schema if not exists clinic")
    for connection in (admin, empty):
        refused(connection, f"{declared}; select ward.protect('{table}')", words)


def test_a_name_may_have_as_many_bytes_as_postgresql_takes(shared: Database) -> None:
    longest = "т" * 31 + "x"
    with shared.admin() as admin:
        admin.execute(f"create table clinic.{longest} (id int primary key, note text)")
        admin.execute(f"select ward.protect('clinic.{longest}', '{{note}}')")
        admin.execute(f"alter table clinic.{longest} add column extra text")
        admin.execute("select ward.repair_tenant('acme')")
    with shared.tenant("acme", subject="t") as acme:
        acme.execute("select ward.upsert(%s, %s)", [longest, '[{"id": 1, "note": "x"}]'])
        assert acme.execute(f"select * from {longest}").fetchall() == [(1, "x", None)]
        acme.execute(f"delete from {longest}")
    with shared.admin() as admin:
        admin.execute(f"select ward.unprotect('clinic.{longest}')")


def test_names_that_are_cut_stay_distinct(admin: Connection) -> None:
    """Of shapes, and of the functions of faces in a ward with a long slug."""
    for name in ("a" * 50 + "1", "a" * 50 + "2"):
        admin.execute(f"create schema {name}; create table {name}.x{name} (id int primary key)")
        admin.execute(f"select ward.protect('{name}.x{name}')")
    cut = "select ward_internal.cut_name(%s)"
    assert admin.execute(cut, ["a" * 63]).fetchone() == ("a" * 63,)
    made = {(admin.execute(cut, [text * 30]).fetchone() or ("",))[0] for text in ("тab", "тac", "患患д")}
    assert len(made) == 3
    assert all(len(name.encode()) <= 63 for name in made)
    query = "select ward_internal.writer_name(%s, 'tenant_' || repeat('write_', 8))"
    writers = {admin.execute(query, [face]).fetchone() for face in ("a" * 10, "a" * 10 + "_write")}
    assert len(writers) == 2


def columns(number: int, kind: str = "int") -> str:
    return ", ".join(f"c{place} {kind}" for place in range(number))


def names(number: int) -> str:
    return ",".join(f"c{place}" for place in range(number))


def test_a_row_that_fills_every_sealed_column_fits(shared: Database, acme: Connection) -> None:
    most = (8160 - 40 - 4) // 18
    with shared.admin() as admin:
        many = f"create table clinic.w (id int primary key, {columns(most + 1)})"
        refused(admin, f"{many}; select ward.protect('clinic.w', '{{{names(most + 1)}}}')", "fit a page")
        admin.execute(f"create table clinic.wide (id int primary key, {columns(most, 'text')})")
        admin.execute(f"select ward.protect('clinic.wide', '{{{names(most)}}}')")
        refused(admin, "select ward.add_sealed_column('clinic.wide', 'one', 'text')", "fit a page")
    values = ", ".join("'long enough to lie elsewhere'" for _ in range(most))
    acme.execute(f"insert into wide values (1, {values})")
    assert acme.execute("update wide set c0 = 'x' where id = 1").rowcount == 1


@pytest.mark.parametrize(
    ("declared", "word"),
    [
        (f"create table clinic.w ({columns(1600)}, primary key (c0))", "at most 1599"),
        (f"create table clinic.w ({columns(40)}, primary key ({names(32)}))", "at most 31"),
        (f"create table clinic.w ({columns(32)}, unique ({names(32)}), primary key (c0))", "at most 31"),
    ],
)  # fmt: skip
def test_limits_of_postgresql_leave_room_for_tenant_id(admin: Connection, declared: str, word: str) -> None:
    refused(admin, f"{declared}; select ward.protect('clinic.w')", word)
    smaller = declared.replace(", c1599 int", "").replace(",c31)", ")")
    admin.execute(f"{smaller}; select ward.protect('clinic.w')")
