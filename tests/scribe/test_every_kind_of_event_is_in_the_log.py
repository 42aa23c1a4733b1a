"""What anyone does to a tenant ends as a sealed entry of its log that says who and why."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.scribe.scribes import (
    PLATFORM,
    Scribe,
    emit,
    new_tenant,
    read,
    sealed_ids,
    verified,
    wait_for,
    wait_sealed,
)
from tests.support.database import Connection, Database
from tests.support.sqlstate import refused


def operate(database: Database, admin: Connection, slug: str) -> None:
    """Do what is to be told, in this order."""
    with database.tenant(slug, subject="dr.grey") as connection:
        connection.execute("insert into patients (id, name) values (1, 'Ann')")
        with refused("WK002"):
            connection.execute("select ward.login('nonsense')")
    with database.tenant(slug, subject="viewer", role="VIEWER") as connection, refused("WK006"):
        connection.execute("insert into patients (id, name) values (2, 'Bea')")
    with database.tenant(slug, subject="viewer", role="VIEWER") as connection, refused("WK212"):
        connection.execute("select ward.audit_export()")
    with database.tenant(slug, subject="officer") as connection:
        connection.execute("select ward.audit_export()")
        connection.execute("select ward.request_rotation('it is time')")
    admin.execute("select ward.rotate_key(%s, 'asked for')", [slug])
    admin.execute(f"grant select on tenant_{slug}.patients to ward_owner")
    admin.execute(f"update sealed_{slug}.patients set name = set_byte(name, 20, 255 - get_byte(name, 20))")
    with database.tenant(slug, subject="dr.grey") as connection, refused("WK101"):
        connection.execute("select name from patients")
    admin.execute("select ward.suspend_tenant(%s)", [slug])
    with database.tenant(slug) as connection, refused("WK005"):
        connection.execute("select ward.login(%s)", [database.token(slug)])
    admin.execute("select ward.resume_tenant(%s)", [slug])
    admin.execute("select ward.set('grace', '31')")
    begin = "select ward_internal.begin_shredding(%s, ward_internal.shredding_facts(%s) ->> 'code')"
    admin.execute(begin, [slug, slug])


WANTED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "provisioned": lambda detail: detail["version"] in (1, 2),
    "login": lambda detail: "token_sha256" in detail,
    "refusal": lambda detail: detail["sqlstate"] in ("WK002", "WK005", "WK006", "WK212") and detail["reason"],
    "key_released": lambda detail: detail["version"] in (1, 2),
    "log_exported": lambda detail: detail["format"] == "jsonl",
    "requested": lambda detail: detail["reason"] == "it is time",
    "rotated": lambda detail: (detail["from"], detail["to"]) == (1, 2),
    "grant": lambda detail: "patients" in detail["objects"][0]["object"],
    "tampered": lambda detail: detail["investigate"] is True and detail["row"] == "1",
    "suspended": lambda detail: True,
    "resumed": lambda detail: True,
    "shredding": lambda detail: True,
}


def test_of_every_kind(scribe: Scribe) -> None:
    scribe.start()
    database = scribe.database
    with database.admin() as admin:
        wait_for(admin, 1, "select count(*) from ward_internal.scribe_state")
        slug = database.new_tenant()
        tenant = database.tenant_id(slug)
        operate(database, admin, slug)
        query = (
            "select operation, coalesce(detail, '{}') from ward_internal.audit_log"
            " where tenant_id = %s and kind = 'e' and id = any (%s)"
        )
        deadline = time.monotonic() + 20
        while True:
            rows = admin.execute(query, [tenant, sealed_ids(admin, tenant)]).fetchall()
            refusals = {detail["sqlstate"] for operation, detail in rows if operation == "refusal"}
            if WANTED.keys() <= {operation for operation, _ in rows} and len(refusals) == 4:
                break
            assert time.monotonic() < deadline, rows
            time.sleep(0.1)
        for operation, detail in rows:
            assert operation not in WANTED or WANTED[operation](detail), (operation, detail)
        changed = (
            "select count(*) from ward_internal.audit_log where tenant_id = %s and operation = 'set'"
            ' and detail = \'{"name": "grace", "value": "31"}\' and database_role = \'postgres\''
        )
        wait_for(admin, 1, changed, PLATFORM)
        assert scribe.stop() == 0
    assert verified(database, tenant).ok and verified(database, PLATFORM).ok


def test_messages_that_were_replayed_out_of_order_are_read_once(scribe: Scribe) -> None:
    """Only a superuser can; each gets a place of its own, and says of itself which statement it was."""
    scribe.start()
    with scribe.database.admin() as admin:
        wait_for(admin, 1, "select count(*) from ward_internal.scribe_state")
        tenant = new_tenant(admin)
        messages = [read(tenant, number) for number in (1, 2, 3)]
        emit(admin, *messages, messages[0])
        wait_sealed(admin, tenant, 3)
        emit(admin, *reversed(messages))
        wait_sealed(admin, tenant, 6)
        assert scribe.stop() == 0
        rows = admin.execute(
            "select row_id from ward_internal.audit_log where tenant_id = %s order by array_position(%s, id)",
            [tenant, sealed_ids(admin, tenant)],
        ).fetchall()
        assert [row for (row,) in rows] == ["1", "2", "3", "3", "2", "1"], "in the order of the WAL"
        activity = "select sum(reads) from ward.audit_activity(p_tenant => %s)"
        assert admin.execute(activity, [str(tenant)]).fetchone() == (3,), "a statement reads a row once"
    assert verified(scribe.database, tenant).ok
