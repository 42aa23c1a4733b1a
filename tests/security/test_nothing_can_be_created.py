"""ATTACKS 9, 13, 17, 18, 20: a tenant makes no object anywhere, so none that others' queries could meet."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

SCHEMAS = (
    "tenant_acme",
    "tenant_globex",
    "clinic",
    "ward",
    "ward_internal",
    "ward_model",
    "public",
    "pg_temp",
)
MADE = (
    "create table {}.t (x int)",
    "create table {}.t as select 1",
    "select 1 into {}.t",
    "create view {}.v as select 1",
    "create materialized view {}.m as select * from patients",
    "create sequence {}.s",
    "create function {}.f() returns int language sql as 'select 1'",
    "create type {}.e as enum ('a')",
    "create domain {}.d as text",
    "create operator {}.= (leftarg = text, rightarg = text, function = pg_catalog.texteq)",
    "create collation {}.c (locale = 'C')",
    "create text search configuration {}.c (copy = pg_catalog.simple)",
)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_schema_takes_an_object(calm: Wards, schema: str) -> None:
    for statement in MADE:
        calm.refuses(statement.format(schema), "42501", "42P16", "3F000")


@pytest.mark.parametrize(
    "statement",
    [
        "create temp table t (x int)",
        "create schema mine",
        "create database mine",
        "create extension hstore",
        "create extension dblink",
        "create foreign data wrapper w",
        "create server s foreign data wrapper w",
        "create publication p",
        "create subscription s connection '' publication p",
        "create event trigger e on ddl_command_end execute function ward_internal.on_change()",
        "create cast (text as integer) with inout",
        "create language plperlu",
        "create access method a type table handler heap_tableam_handler",
        "create tablespace t location '/tmp'",
        "create statistics s on city, id from sealed_globex.patients",
        "create index on sealed_acme.patients (city)",
        "do language plpython3u 'import os'",
        "copy (select 1) to program 'cat'",
        "copy patients (name) from '/etc/passwd'",
        "copy patients (name) to '/tmp/x'",
        "select lo_create(0)",
        "select lo_import('/etc/passwd')",
        "select lo_from_bytea(0, 'x')",
        "select pg_read_file('postgresql.conf')",
        "select pg_ls_dir('.')",
        "select pg_logical_emit_message(false, 'wardkey', 'forged')",
        "select pg_create_physical_replication_slot('s')",
        "select pg_create_logical_replication_slot('s', 'pgoutput')",
        "alter default privileges for role ward_owner grant select on tables to public",
        "alter extension wardkey update",
        "alter database postgres set log_statement = 'all'",
        "alter schema tenant_acme rename to mine",
        "alter sequence patients_id_seq restart",
        "select pg_catalog.setval('patients_id_seq', 1)",
        "select ward_internal.harden()",
        "select ward.set('keeper_socket', '/tmp/mine')",
        "select ward.create_tenant('mine')",
        "select ward.suspend_tenant('globex')",
        "select ward.drop_tenant('globex', 'globex', true)",
        "select ward.add_issuer('{}')",
        "select ward.protect('clinic.icd10')",
        "select ward.share('clinic.patients')",
    ],
)
def test_no_ddl_and_no_administration(calm: Wards, statement: str) -> None:
    calm.refuses(statement, "42501", "58P01", "42704", "0A000", "WK212")


def test_no_schema_is_writable_and_no_database_grants_more_than_connect(calm: Wards) -> None:
    schemas = "select nspname from pg_namespace where has_schema_privilege('tenant_acme', oid, 'create')"
    assert calm.admin.execute(schemas).fetchall() == []
    databases = (
        "select datname from pg_database where has_database_privilege('tenant_acme', oid, 'create, temp')"
    )
    assert calm.admin.execute(databases).fetchall() == []


def test_no_other_database_lets_a_tenant_in(calm: Wards) -> None:
    for name in ("postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(calm.database.cluster.dsn(name, "tenant_acme"))


def test_do_blocks_give_no_more_than_sql_does(calm: Wards) -> None:
    """plpgsql is trusted: a block has the rights of its caller."""
    with calm.attacker() as connection:
        connection.execute("do $$ begin perform count(*) from patients; end $$")
        for query in (
            "perform * from tenant_globex.patients",
            "create temp table t ()",
            "perform pg_notify('a', 'b')",
        ):
            with refused():
                connection.execute(f"do $$ begin {query}; end $$")


def test_the_attack_works_where_operators_can_be_made(wards: Wards) -> None:
    """ATTACKS 17: a view's or function's unqualified "=" is looked up on the caller's path, unless pinned."""
    wards.admin.execute(
        f"""
        create schema playground;
        grant create, usage on schema playground to tenant_acme;
        create table public.notes (tenant text, body text);
        insert into public.notes values ('globex', '{SECRET}'), ('acme', 'own');
        create function public.own_notes() returns setof text language plpgsql security definer as
          'begin return query select body from public.notes where tenant = session_user::text; end';
        """.replace("session_user::text", "replace(session_user::text, ''tenant_'', '''')")
    )
    with wards.attacker() as connection:
        assert connection.execute("select public.own_notes()").fetchall() == [("own",)]
    with wards.attacker() as connection:
        connection.execute(
            """
            create function playground.yes(text, text) returns boolean language sql as 'select true';
            create operator playground.= (leftarg = text, rightarg = text, function = playground.yes);
            set search_path = playground, pg_catalog
            """
        )
        assert (SECRET,) in connection.execute("select public.own_notes()").fetchall()
