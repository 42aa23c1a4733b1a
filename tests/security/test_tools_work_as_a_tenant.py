"""Ordinary tools do not need what hardening takes away: psql's commands, psycopg, SQLAlchemy's reflection."""

from __future__ import annotations

import os
import subprocess

import psycopg
import pytest
import sqlalchemy

from .conftest import Wards

PLAIN = "dt dv ds di df dn dn+ du dp ddp l dx dT dD dC do dL dy des dRp dX dd dA dconfig dF dO dm dE dP"
COMMANDS = (
    r"\d",
    r"\d patients",
    r"\d+ patients",
    r"\d clinic.icd10",
    r"\d+ clinic.icd10",
    r"\copy (select * from patients limit 0) to /dev/null",
    r"\sv patients",
    *(rf"\{command}" for command in PLAIN.split()),
)
HIDDEN = (r"\dt+", r"\dv+", r"\l+", r"\drds")


def psql(wards: Wards, command: str) -> subprocess.CompletedProcess[str]:
    program = ["psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", command, wards.database.dsn("tenant_acme")]
    home = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "PAGER": "cat"}
    return subprocess.run(program, capture_output=True, text=True, env=home)


@pytest.mark.parametrize("command", COMMANDS)
def test_psql(calm: Wards, command: str) -> None:
    done = psql(calm, command)
    assert done.returncode == 0, done.stderr
    assert "denied" not in done.stderr


@pytest.mark.parametrize("command", HIDDEN)
def test_psql_commands_for_sizes_and_others_settings_say_that_they_may_not(calm: Wards, command: str) -> None:
    done = psql(calm, command)
    assert done.returncode == 0 or "permission denied for" in done.stderr


# the audit log's name and columns are in the catalog, of a type that SQLAlchemy does not know
@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
def test_sqlalchemy_reflects_the_ward(calm: Wards) -> None:
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(calm.database.dsn("tenant_acme"))
    )
    try:
        inspector = sqlalchemy.inspect(engine)
        assert inspector.default_schema_name == "tenant_acme"
        assert "patients" in inspector.get_view_names()
        assert inspector.get_view_names(schema="tenant_acme") == ["patients"]
        columns = {column["name"]: column["type"] for column in inspector.get_columns("patients")}
        assert isinstance(columns["birth_date"], sqlalchemy.Date)
        assert inspector.get_view_definition("patients")
        metadata = sqlalchemy.MetaData()
        metadata.reflect(engine, views=True)
        patients = metadata.tables["patients"]
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("select ward.login(:token)"), {"token": calm.token()})
            names = (
                connection.execute(sqlalchemy.select(patients.c.name).order_by(patients.c.id)).scalars().all()
            )
        assert names == ["Ann Alpha", "Al Able"]
        inspector.get_table_names(schema="clinic")
        inspector.get_enums()
        inspector.get_sequence_names()
    finally:
        engine.dispose()


def test_psycopg_finds_types(calm: Wards) -> None:
    with calm.attacker() as connection:
        info = psycopg.types.TypeInfo.fetch(connection, "jsonb")
        assert info and info.name == "jsonb"
        with connection.cursor() as cursor, cursor.copy("copy (select name from patients) to stdout") as copy:
            assert b"Ann Alpha" in b"".join(copy)
        query = "select table_name from information_schema.tables where table_schema = 'tenant_acme'"
        assert connection.execute(query).fetchall() == [("patients",)]


def test_shapes_have_the_keys_that_views_do_not(calm: Wards) -> None:
    """A developer makes models of an application out of them."""
    calm.admin.execute(
        "create table if not exists clinic.stays (id int primary key, patient bigint not null"
        " references ward_model.clinic__patients); select ward.protect('clinic.stays')"
    )
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(calm.database.dsn())
    )
    try:
        shapes, faces = sqlalchemy.MetaData(), sqlalchemy.MetaData()
        shapes.reflect(engine, schema="ward_model", resolve_fks=False)
        for shape in shapes.tables.values():
            shape.to_metadata(faces, schema=None, name=shape.name.partition("__")[2])
        stays = faces.tables["stays"]
        assert [column.name for column in stays.primary_key] == ["id"]
        assert [key.target_fullname for key in stays.foreign_keys] == ["ward_model.clinic__patients.id"]
        assert not stays.c.patient.nullable
    finally:
        engine.dispose()


# What pgjdbc sends for DatabaseMetaData.getPrimaryKeys and getIndexInfo (42.5.5, cut to what it reads).
PRIMARY_KEYS = """
SELECT result.COLUMN_NAME FROM (SELECT a.attname AS COLUMN_NAME,
  (information_schema._pg_expandarray(i.indkey)).n AS KEY_SEQ,
  information_schema._pg_expandarray(i.indkey) AS KEYS,
  a.attnum AS A_ATTNUM
FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_attribute a ON (ct.oid = a.attrelid)
  JOIN pg_catalog.pg_namespace n ON (ct.relnamespace = n.oid)
  JOIN pg_catalog.pg_index i ON (a.attrelid = i.indrelid)
WHERE true AND n.nspname = %s AND ct.relname = %s AND i.indisprimary) result
where result.A_ATTNUM = (result.KEYS).x ORDER BY result.KEY_SEQ
"""
INDEXES = """
SELECT ci.relname, ci.reltuples, ci.relpages, pg_catalog.pg_get_expr(i.indpred, i.indrelid)
FROM pg_catalog.pg_class ct JOIN pg_catalog.pg_index i ON (ct.oid = i.indrelid)
  JOIN pg_catalog.pg_class ci ON (ci.oid = i.indexrelid)
"""


def test_jdbc_metadata_needs_an_open_catalog_for_indexes_alone(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        for relation, keys in (
            (("tenant_acme", "patients"), []),
            (("ward_model", "clinic__patients"), [("id",)]),
        ):
            assert connection.execute(PRIMARY_KEYS, relation).fetchall() == keys
        wards.refuses(INDEXES)
        wards.admin.execute("select ward.set('catalog', 'open')")
        connection.execute(INDEXES)
