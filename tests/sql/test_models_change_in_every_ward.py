"""ALTER TABLE on a model table reaches every face by itself; what was sealed before still opens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.support.database import TENANTS, Connection, Database


@pytest.fixture
def admin(database: Database) -> Iterator[Connection]:
    with database.admin() as connection:
        yield connection


@pytest.fixture
def wards(database: Database) -> Iterator[list[Connection]]:
    """Both tenants, a patient in each, connections and plans from before the change."""
    with ExitStack() as stack:
        connections = [stack.enter_context(database.tenant(slug, subject="t")) for slug in TENANTS]
        for connection in connections:
            connection.execute("insert into patients (name, ssn) values ('Ada', '12')")
            for _ in range(7):
                connection.execute("select name, ssn from patients where id = %s", [1], prepare=True)
        yield connections


def columns(connection: Connection) -> list[str]:
    cursor = connection.execute("select * from patients limit 0")
    return [column.name for column in cursor.description or ()]


def test_add_column(admin: Connection, wards: list[Connection]) -> None:
    admin.execute("alter table clinic.patients add column zip text default '02139' check (zip <> '')")
    admin.execute("alter table clinic.patients add column height numeric(5,2)")
    admin.execute("alter table clinic.patients add column tags text[] not null default '{}'")
    for ward in wards:
        assert columns(ward)[-3:] == ["zip", "height", "tags"]
        assert ward.execute("select name, zip, height, tags from patients").fetchone() == (
            "Ada",
            "02139",
            None,
            [],
        )
        ward.execute("insert into patients (name, height) values ('Bo', 1.234)")
        assert ward.execute("select zip, height::text from patients where name = 'Bo'").fetchone() == (
            "02139",
            "1.23",
        )
        ward.execute("update patients set zip = '1', tags = '{x}' where id = 1")
        with pytest.raises(psycopg.errors.CheckViolation):
            ward.execute("update patients set zip = ''")


def test_add_sealed_column(admin: Connection, wards: list[Connection]) -> None:
    admin.execute("select ward.add_sealed_column('clinic.patients', 'phone', 'varchar(12)', $$'none'$$)")
    for ward in wards:
        assert ward.execute("select name, phone from patients").fetchone() == ("Ada", None)
        assert ward.execute("insert into patients (name) values ('Bo') returning phone").fetchone() == (
            "none",
        )
        ward.execute("update patients set phone = '555' where id = 1")
        assert ward.execute("select phone from patients where id = 1").fetchone() == ("555",)
        with pytest.raises(psycopg.errors.StringDataRightTruncation):
            ward.execute("update patients set phone = '1234567890123'")
    stored = admin.execute("select phone from sealed_acme.patients where id = 1").fetchone() or (b"",)
    assert len(stored[0]) == 36
    assert admin.execute("select sealed from ward.models").fetchone() == (
        ["birth_date", "name", "phone", "ssn"],
    )


@pytest.mark.parametrize("column", ["name", "city", "id"])
def test_rename_column(admin: Connection, wards: list[Connection], column: str) -> None:
    admin.execute(f'alter table clinic.patients rename column {column} to "Other {column}"')
    for ward in wards:
        assert f"Other {column}" in columns(ward) and column not in columns(ward)
        row = ward.execute("select * from patients").fetchone() or ()
        assert {"Ada", "12", "Springfield", 1} <= set(row)
        ward.execute("update patients set ssn = '13'")
        assert "13" in (ward.execute("select * from patients").fetchone() or ())
    ward = wards[0]
    for new in ("x", "y") if column != "id" else (2, 3):
        ward.execute(f'update patients set "Other {column}" = %s', [new])
        assert ward.execute(f'select "Other {column}" from patients').fetchone() == (new,)


def test_swap_of_two_sealed_columns_names(admin: Connection, wards: list[Connection]) -> None:
    for old, new in (("name", "t"), ("ssn", "name"), ("t", "ssn")):
        admin.execute(f"alter table clinic.patients rename column {old} to {new}")
    for ward in wards:
        assert ward.execute("select name, ssn from patients").fetchone() == ("12", "Ada")


@pytest.mark.parametrize("column", ["ssn", "city"])
def test_drop_column(admin: Connection, wards: list[Connection], column: str) -> None:
    admin.execute(f"alter table clinic.patients drop column {column} cascade")
    for ward in wards:
        assert column not in columns(ward)
        assert ward.execute("select name from patients").fetchone() == ("Ada",)
        ward.execute("update patients set name = name || '!'")
        ward.execute("insert into patients (name) values ('Bo')")
        assert ward.execute("select name from patients order by 1").fetchall() == [("Ada!",), ("Bo",)]
    admin.execute(f"alter table clinic.patients add column {column} text")
    assert all(columns(ward)[-1] == column for ward in wards)


def test_drop_and_rename_of_a_table(database: Database, admin: Connection, wards: list[Connection]) -> None:
    admin.execute("alter table clinic.patients rename to people; create schema archive")
    admin.execute("alter table clinic.people set schema archive")
    for ward in wards:
        assert ward.execute("select name from patients").fetchone() == ("Ada",)
    late = database.new_tenant()
    with database.tenant(late, subject="t") as ward:
        assert ward.execute("insert into patients (name) values ('x') returning id, name").fetchone() == (
            1,
            "x",
        )


def test_change_of_default_and_nullability(admin: Connection, wards: list[Connection]) -> None:
    admin.execute("alter table clinic.patients alter column city set default 'Rome'")
    admin.execute("alter table clinic.patients alter column city set not null")
    for ward in wards:
        assert ward.execute("insert into patients (name) values ('Bo') returning city").fetchone() == (
            "Rome",
        )
        with pytest.raises(psycopg.errors.NotNullViolation):
            ward.execute("update patients set city = null")


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("alter column name type text using 'x'", "0A000"),
        ("alter column city type varchar(20)", "0A000"),
        ("add column n serial", "WK209"),
        ("add column n int generated always as identity", None),
        ("drop column tenant_id", None),
        ("drop column id", None),
    ],
)
def test_a_change_that_would_break_faces_changes_nothing(
    admin: Connection, wards: list[Connection], statement: str, sqlstate: str | None
) -> None:
    before = columns(wards[0])
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(f"alter table clinic.patients {statement}")
    assert sqlstate in (None, caught.value.sqlstate)
    assert columns(wards[0]) == before
    assert wards[0].execute("select name from patients").fetchone() == ("Ada",)


def test_a_change_that_is_rolled_back_changes_nothing(database: Database, wards: list[Connection]) -> None:
    before = columns(wards[0])
    with database.admin(autocommit=False) as admin:
        admin.execute("alter table clinic.patients add column x text")
        admin.execute("select ward.add_sealed_column('clinic.patients', 'y', 'text')")
        admin.rollback()
    assert columns(wards[0]) == before


def test_tables_that_are_no_models_are_left_alone(admin: Connection) -> None:
    admin.execute(
        "create table clinic.plain (a int); alter table clinic.plain add column b int, add column c serial"
    )
    admin.execute("alter table clinic.plain rename column b to d; alter table clinic.icd10 add column x text")


def test_a_ward_that_is_away_holds_up_nobody(database: Database) -> None:
    """Between ``drop schema`` and its restore models change and are unprotected, and the tenant can go."""
    away, back = database.new_tenant(), database.new_tenant()
    with database.admin() as admin:
        admin.execute(f"drop schema tenant_{away}, sealed_{away} cascade; drop schema tenant_{back} cascade")
        admin.execute("alter table clinic.patients rename column name to full_name")
        admin.execute("alter table clinic.patients add column ward text")
        admin.execute("select ward.repair_tenant(%s)", [back])
        admin.execute("select ward.drop_tenant(%s, %s)", [away, away])
    with database.tenant(back, subject="tester") as inside:
        inside.execute("insert into patients (full_name, ward) values ('Ann', 'B2')")
        assert inside.execute("select full_name, ward from patients").fetchall() == [("Ann", "B2")]
        inside.execute("delete from patients")
    with database.admin() as admin:
        admin.execute(f"drop schema sealed_{back} cascade")
        admin.execute("select ward.unprotect('clinic.patients')")
