"""ATTACKS 48: every change of a row has its entry, in the same transaction; without it the change fails."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.database import Connection

from .conftest import Wards

_INSERT = "insert into patients (id, name, city) values (9, 'New', 'Ogden')"
_ENTRIES = """
    select operation, row_id, columns, old, new, context, database_role, transaction, journalled
    from tenant_acme.audit_log where kind = 'w' and id > %s order by id"""


def _last(wards: Wards) -> int:
    row = wards.admin.execute("select coalesce(max(id), 0) from ward_internal.audit_log").fetchone()
    assert row
    return int(row[0])


def _entries(wards: Wards, after: int) -> list[tuple[Any, ...]]:
    return wards.admin.execute(_ENTRIES, [after]).fetchall()


def _month(admin: Connection) -> str:
    row = admin.execute("select to_char(now() at time zone 'UTC', '\"audit_log_\"YYYY_MM')").fetchone()
    assert row
    return str(row[0])


def _patients(wards: Wards) -> list[tuple[Any, ...]]:
    return wards.admin.execute("select * from sealed_acme.patients order by id").fetchall()


def test_an_insert_an_update_and_a_delete(wards: Wards) -> None:
    before = _last(wards)
    with wards.attacker() as connection, connection.transaction():
        connection.execute(_INSERT)
        connection.execute("update patients set ssn = '999-5', city = 'Troy' where id = 9")
        connection.execute("delete from patients where id = 9")
    inserted, updated, deleted = _entries(wards, before)
    assert [entry[0] for entry in (inserted, updated, deleted)] == ["insert", "update", "delete"]
    assert {entry[1] for entry in (inserted, updated, deleted)} == {"9"}
    assert len({entry[5] for entry in (inserted, updated, deleted)}) == 1 and inserted[5] is not None
    assert len({entry[7] for entry in (inserted, updated, deleted)}) == 1  # of one transaction
    assert inserted[3] is None and inserted[4]["city"] == "Ogden"
    assert inserted[4]["name"].startswith("\\x01") and "New" not in repr(inserted)
    assert set(updated[2].split(",")) == {"city", "ssn"} and updated[3] == {"city": "Ogden", "ssn": None}
    assert updated[4]["city"] == "Troy" and updated[4]["ssn"].startswith("\\x01")
    assert deleted[4] is None and deleted[3]["city"] == "Troy"
    assert {entry[6] for entry in (inserted, updated, deleted)} == {None}  # it is the login's
    assert not inserted[8]


def test_sealed_values_in_the_log_open_again(wards: Wards) -> None:
    before = _last(wards)
    with wards.attacker() as connection:
        connection.execute(_INSERT)
        ((_, _, _, _, new, *_),) = _entries(wards, before)
        column = wards.admin.execute(
            "select id from ward_internal.sealed_columns where name = 'name'"
        ).fetchone()
        query = "select ward.unseal(%s::bytea, uuid_send(%s), int8send(9))"
        assert connection.execute(query, [new["name"], column and column[0]]).fetchone() == ("New",)


def test_rows_that_are_copied(wards: Wards) -> None:
    before = _last(wards)
    into = "copy patients (id, name) from stdin"
    with wards.attacker() as connection, connection.cursor().copy(into) as copy:
        for number in range(100, 150):
            copy.write_row((number, "Ann"))
    assert [entry[1] for entry in _entries(wards, before)] == [str(number) for number in range(100, 150)]


def test_rows_that_a_foreign_key_deletes(wards: Wards) -> None:
    wards.admin.execute(
        "create table clinic.visits (id int primary key, patient_id bigint"
        " references ward_model.clinic__patients on delete cascade, note text);"
        " select ward.protect('clinic.visits', '{note}')"
    )
    with wards.attacker() as connection:
        connection.execute("insert into visits values (1, 3, 'x'), (2, 3, 'y')")
        before = _last(wards)
        connection.execute("delete from patients where id = 3")
    entries = _entries(wards, before)
    assert sorted((entry[0], entry[1]) for entry in entries) == [
        ("delete", "1"),
        ("delete", "2"),
        ("delete", "3"),
    ]
    assert len({entry[5] for entry in entries}) == 1 and entries[0][5] is not None


def test_a_superusers_own_statement(wards: Wards) -> None:
    before = _last(wards)
    wards.admin.execute("set session_replication_role = replica")  # which turns other triggers off
    wards.admin.execute("update sealed_acme.patients set city = 'Nowhere' where id = 3")
    wards.admin.execute("truncate sealed_acme.patients")
    updated, emptied = _entries(wards, before)
    assert (updated[0], updated[1], updated[5], updated[6]) == ("update", "3", None, "postgres")
    assert (emptied[0], emptied[1], emptied[6]) == ("truncate", None, "postgres")


def test_the_attack_works_on_a_trigger_that_is_not_always(wards: Wards) -> None:
    before = _last(wards)
    wards.admin.execute("alter table sealed_acme.patients enable trigger ward_audit")
    wards.admin.execute("set session_replication_role = replica")
    wards.admin.execute("update sealed_acme.patients set city = 'Nowhere' where id = 3")
    assert _entries(wards, before) == []
    wards.admin.execute("reset session_replication_role; select ward.repair_tenant('acme')")
    wards.admin.execute("set session_replication_role = replica")
    wards.admin.execute("update sealed_acme.patients set city = 'Anywhere' where id = 3")
    assert len(_entries(wards, before)) == 1


def test_what_is_rolled_back_left_no_entry(wards: Wards) -> None:
    before = _last(wards)
    divided = pytest.raises(psycopg.errors.DivisionByZero)
    with wards.attacker() as connection, divided, connection.transaction():
        connection.execute(_INSERT)
        connection.execute("select 1 / 0")
    assert _entries(wards, before) == []


@pytest.mark.parametrize(
    "weaken",
    [
        "alter table tenant_acme.{month} add constraint full_of_it check (id < 0) not valid",
        "revoke insert on tenant_acme.audit_log from ward_owner",
        "revoke update on sequence ward_internal.audit_id from ward_owner",
        "drop function tenant_acme.patients_log_acme() cascade;"
        " create function tenant_acme.patients_log_acme() returns trigger language plpgsql"
        " as 'begin raise disk_full; end';"
        " create trigger ward_audit after insert or update or delete on sealed_acme.patients"
        " for each row execute function tenant_acme.patients_log_acme()",
    ],
)
@pytest.mark.parametrize(
    "change", [_INSERT, "update patients set city = 'Troy'", "delete from patients", "copy"]
)
def test_a_change_fails_when_its_entry_does(wards: Wards, weaken: str, change: str) -> None:
    before = _patients(wards)
    wards.admin.execute(weaken.format(month=_month(wards.admin)))
    last = _last(wards)  # what was revoked is an entry itself
    with wards.attacker() as connection, pytest.raises(psycopg.Error):
        if change == "copy":
            with connection.cursor().copy("copy patients (id, name) from stdin") as copy:
                copy.write_row((9, "Ann"))
        else:
            connection.execute(change)
    assert _patients(wards) == before and _last(wards) <= last


@pytest.mark.parametrize("how", ["", "concurrently"])
def test_a_month_that_was_detached_comes_back_with_its_entries(wards: Wards, how: str) -> None:
    count, month = "select count(*) from tenant_acme.audit_log", f"tenant_acme.{_month(wards.admin)}"
    before = wards.admin.execute(count).fetchone()
    wards.admin.execute(f"alter table tenant_acme.audit_log detach partition {month} {how}")
    assert before and before[0] > 0 and wards.admin.execute(count).fetchone() == (0,)
    with wards.attacker() as connection:
        connection.execute(_INSERT)
    after = wards.admin.execute(count).fetchone()
    assert after and after[0] > before[0]
    checks = "select count(*) from pg_constraint where conrelid = %s::regclass and contype = 'c'"
    assert wards.admin.execute(checks, [month]).fetchone() == (0,)


def test_a_month_that_is_missing_is_made_by_the_first_change(wards: Wards) -> None:
    wards.admin.execute(f"drop table tenant_acme.{_month(wards.admin)}")
    with wards.attacker() as connection:
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute(_INSERT)
            connection.execute("select 1 / 0")  # and goes with it
        connection.execute(_INSERT)
        connection.execute("update patients set city = 'Troy' where id = 9")
    assert [entry[0] for entry in _entries(wards, 0)] == ["insert", "update"]


def test_resealing_is_no_change_and_nothing_else_passes_for_it(wards: Wards) -> None:
    before = _last(wards)
    wards.admin.execute("select ward.rotate_key('acme', 'a test')")
    (model,) = wards.admin.execute("select id from ward.models where face = 'patients'").fetchone() or (None,)
    moved = wards.admin.execute(
        "select rows from ward_internal.reseal('acme', %s, 0, 100)", [model]
    ).fetchone()
    assert moved == (2,)
    assert _entries(wards, before) == []
    wards.admin.execute("set session_replication_role = replica")
    wards.admin.execute("update sealed_acme.patients set ssn = null where id = 3")
    assert [entry[0] for entry in _entries(wards, before)] == ["update"]


def test_what_operators_do_are_events(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    before = _last(wards)
    for statement in (
        f"select ward.suspend_tenant('{slug}')",
        f"select ward.resume_tenant('{slug}')",
        f"select ward.rotate_key('{slug}', 'a test')",
        f"select ward.repair_tenant('{slug}')",
        "select ward.set('key_ttl', '30')",
        "create table clinic.codes (code text primary key); select ward.share('clinic.codes')",
        "select ward.unshare('clinic.codes')",
        "create table clinic.notes (id int primary key, body text);"
        " select ward.protect('clinic.notes', '{body}', audit => 'statement')",
        "select ward.add_sealed_column('clinic.notes', 'more', 'text')",
        "select ward.add_row_rule('clinic.notes', '{VIEWER}', 'id = 1', 'one')",
        "select ward.drop_row_rule('clinic.notes', 'one')",
        "select ward.unprotect('clinic.notes')",
        f"select ward.drop_tenant('{slug}', '{slug}', true)",
    ):
        wards.admin.execute(statement)
    rows = wards.admin.execute(
        "select kind, slug, actor from ward.events where id > %s order by id", [before]
    ).fetchall()
    kinds = [row[0] for row in rows]
    assert kinds == [
        "suspended", "resumed", "provisioned", "rotated", "repaired", "set", "shared", "unshared",
        "protected", "column sealed", "row rule added", "row rule dropped", "unprotected", "dropped",
    ]  # fmt: skip
    assert {row[2] for row in rows} == {"postgres"} and rows[-1][1] == slug


def test_a_log_outlives_its_tenant(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    tenant = wards.database.tenant_id(slug)
    with wards.database.tenant(slug, role="ADMIN") as connection:
        connection.execute("insert into patients (name) values ('Ann')")
    wards.admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    query = "select operation from ward_internal.audit_log where tenant_id = %s order by id"
    assert [row[0] for row in wards.admin.execute(query, [tenant]).fetchall()] == [
        "provisioned", "insert", "dropped",
    ]  # fmt: skip
    assert wards.admin.execute("select ward_internal.audit_leaf(%s)", [tenant]).fetchone() == (
        f"ward_archive.log_{tenant.hex}",
    )
    again = wards.database.new_tenant(slug)  # a new tenant of the same name has a log of its own
    assert wards.admin.execute(f"select count(*) from tenant_{again}.audit_log").fetchone() == (1,)
