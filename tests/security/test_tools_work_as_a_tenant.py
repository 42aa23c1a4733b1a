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
