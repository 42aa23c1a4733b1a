"""ATTACKS 45: who takes a log along is its tenant's ADMIN, gets nobody else's, and cannot hide it."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from tests.audit.databases import Filled
from tests.support.journals import journal_of
from tests.support.sqlstate import refused

from .conftest import Wards


def stolen(wards: Wards) -> str:
    with wards.attacker() as connection:
        return str(connection.execute("select ward.audit_export()").fetchall())


def test_an_export_holds_the_tenants_own_log(wards: Wards) -> None:
    victims = Filled(wards.admin, "globex")
    victims.login("victor")
    victims.read("victor", "row 4711", minute=1)
    root = victims.seal(2).checkpoint.root.hex()
    victims.read("victor", "row 4712", minute=3)
    assert not [text for text in ("victor", "row 4711", root) if text in stolen(wards)]

    wards.admin.execute(
        "create or replace function ward_internal.audit_reader(p_question text, p_about text,"
        " p_from timestamptz, p_to timestamptz, p_tenant text) returns uuid language sql"
        f" set search_path = pg_catalog, pg_temp as $$ select '{victims.tenant}'::uuid $$"
    )
    text = stolen(wards)
    assert root in text, "the gate was weakened"
    assert "victor" not in text and "row 4711" not in text, "the policy of the log holds all the same"
    wards.admin.execute("alter table tenant_globex.audit_log no force row level security")
    text = stolen(wards)
    assert "victor" in text and "row 4711" in text and "row 4712" in text


@pytest.mark.parametrize("role", ["SUPER_ADMIN", "EVALUATOR", "ANALYST", "VIEWER"])
def test_only_an_admin_exports_and_a_refusal_is_journalled(calm: Wards, role: str) -> None:
    with journal_of(calm.database) as journal:
        with calm.attacker(role=role) as connection, refused("WK212"):
            connection.execute("select ward.audit_export()")
        (refusal,) = journal.events("refusal")
    assert refusal.detail and refusal.detail["sqlstate"] == "WK212" and refusal.context


def test_without_a_context_nothing_is_exported(calm: Wards) -> None:
    calm.refuses("select ward.audit_export()", "WK001", subject=None)


@pytest.mark.parametrize(
    "statement",
    [
        "select * from ward_internal.audit_entries(ward.tenant_id(), null, null)",
        "select ward_internal.report_event('login', '{}')",
        "select ward_internal.refuse('a', 'b')",
        "select * from ward_internal.audit_batches",
        "select * from ward_internal.audit_checkpoints",
        "select ward_internal.audit_lines(ward.tenant_id(), null, 'tenant_acme.audit_log', null, null)",
    ],
)
def test_what_stands_behind_the_gate_is_out_of_reach(calm: Wards, statement: str) -> None:
    calm.refuses(statement)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-03-02", "2026-03-01"),
        ("2026-03-02", "2026-03-02"),
        ("-infinity", None),
        (None, "infinity"),
        ("0044-03-15 BC", None),
    ],
)
def test_what_is_no_period_is_refused(calm: Wards, begin: str | None, end: str | None) -> None:
    with calm.attacker() as connection, refused("WK209"):
        connection.execute("select ward.audit_export(%s, %s)", [begin, end])


@pytest.mark.parametrize("how", ["rollback", "read only", "cursor"])
def test_that_a_log_was_exported_stays_in_the_journal(calm: Wards, how: str) -> None:
    with journal_of(calm.database) as journal, calm.attacker("officer") as connection:
        connection.autocommit = False
        if how == "read only":
            connection.read_only = True
        export = "select ward.audit_export(p_from => '2026-03-01 00:00Z')"
        if how == "cursor":
            with connection.cursor("c") as cursor:
                cursor.execute(export)
                cursor.fetchone()
        else:
            connection.execute(export)
        connection.rollback()
        (event,) = journal.events("log_exported")
    assert event.context and event.tenant == calm.database.tenant_id("acme")
    assert event.detail and event.detail["format"] == "jsonl" and "to" not in event.detail
    assert str(event.detail["from"]).startswith("2026-03-01")


@pytest.mark.parametrize(
    ("question", "detail"),
    [
        ("audit_entries()", {"question": "entries"}),
        ("audit_acts(p_table => 'patients', p_row => '1')", {"question": "acts", "about": "patients 1"}),
        ("audit_acts('mallory')", {"question": "acts", "about": "mallory"}),
        ("audit_entries(p_operations => '{refusal}')", {"question": "entries", "about": "{refusal}"}),
        ("audit_of_key(1)", {"question": "of_key", "about": "1"}),
        ("audit_activity()", {"question": "activity"}),
        ("audit_anomalies()", {"question": "anomalies"}),
        ("audit_coverage()", {"question": "coverage"}),
    ],
)
def test_who_reads_the_log_is_in_it_though_the_transaction_is_rolled_back(
    calm: Wards, question: str, detail: dict[str, str]
) -> None:
    with journal_of(calm.database) as journal:
        unknown = suppress(psycopg.DatabaseError)  # WK228: nobody of that name
        with calm.attacker() as connection, unknown, connection.transaction(force_rollback=True):
            connection.execute(f"select * from ward.{question}").fetchall()
        (read,) = journal.events("log_read")
    assert read.detail == detail and read.context
