"""ATTACKS 46, 47: no tenant writes into the journal or the log, nor changes what is there."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from wardkey_core import journal as format_1
from wardkey_core.journal_reader import Event

from tests.support.journals import Journal, journal_of

from .conftest import Wards

_EMITTERS = [
    "select pg_logical_emit_message(false, 'wardkey', 'forged')",
    "select pg_logical_emit_message(true, 'wardkey', 'forged')",
    "select pg_catalog.pg_logical_emit_message(false, 'wardkey', '\\x01'::bytea)",
]
_LOG = [
    "insert into {log} (tenant_id, kind, operation) select ward.tenant_id(), 'e', 'login'",
    "update {log} set subject = 'victor'",
    "delete from {log}",
    "truncate {log}",
    "select * from {log}",
    "drop table {log}",
    "alter table {log} disable row level security",
    "begin; lock table {log} in access exclusive mode",
]


@pytest.fixture
def journal(wards: Wards) -> Iterator[Journal]:
    with journal_of(wards.database) as journal:
        yield journal


@pytest.mark.parametrize("statement", _EMITTERS)
def test_no_tenant_emits_messages(calm: Wards, statement: str) -> None:
    calm.refuses(statement)


def test_the_attack_works_where_public_may_emit(wards: Wards, journal: Journal) -> None:
    message = format_1.event(bytes(16), bytes(16), 0, "login", {"subject": "victor"}, {})
    functions = "select oid::regprocedure from pg_proc where proname = 'pg_logical_emit_message'"
    for (function,) in wards.admin.execute(functions).fetchall():  # their arguments depend on the version
        wards.admin.execute(f"grant execute on function {function} to public")
    with wards.attacker() as connection:
        connection.execute("select pg_logical_emit_message(false, 'wardkey', %s)", [message])
    messages = journal.read(lambda messages: "victor" in repr(messages))
    assert "victor" in [one.texts.get("subject") for one in messages if isinstance(one, Event)]
    wards.admin.execute("select ward_internal.harden()")
    wards.refuses(_EMITTERS[0])


@pytest.mark.parametrize("statement", _LOG)
@pytest.mark.parametrize(
    "log",
    [
        "ward_internal.audit_log",
        "tenant_acme.audit_log",
        "tenant_globex.audit_log",
        "tenant_acme.{month}",
    ],
)
def test_no_tenant_touches_the_log(calm: Wards, statement: str, log: str) -> None:
    row = calm.admin.execute("select to_char(now() at time zone 'UTC', '\"audit_log_\"YYYY_MM')").fetchone()
    calm.refuses(statement.format(log=log.format(month=row and row[0])))


@pytest.mark.parametrize("statement", _LOG[1:4])
def test_the_owner_of_faces_may_add_to_the_log_and_not_change_it(wards: Wards, statement: str) -> None:
    """What a hole in a face's function could do."""
    with wards.admin.transaction(force_rollback=True):
        wards.admin.execute("set local role ward_owner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            wards.admin.execute(statement.format(log="tenant_acme.audit_log"))
    row = wards.admin.execute(
        "select count(*), count(*) filter (where subject = 'victor') from tenant_acme.audit_log"
    ).fetchone()
    assert row and row[0] > 0 and row[1] == 0


def test_the_owner_of_faces_reads_no_log_without_a_context(wards: Wards) -> None:
    with wards.admin.transaction(force_rollback=True):
        wards.admin.execute("set local role ward_owner")
        assert wards.admin.execute("select count(*) from tenant_globex.audit_log").fetchone() == (0,)
        wards.admin.execute("reset role")
        wards.admin.execute("alter table tenant_globex.audit_log disable row level security")
        wards.admin.execute("set local role ward_owner")
        row = wards.admin.execute("select count(*) from tenant_globex.audit_log").fetchone()
        assert row and row[0] > 0


@pytest.mark.parametrize(
    "call",
    [
        "ward_internal.begin_entry('x')",
        "ward_internal.log_event(ward.tenant_id(), 'login', '{}')",
        "ward_internal.make_audit_partition(ward.tenant_id())",
        "ward_internal.archive_audit_log(ward.tenant_id())",
        "ward.set_audit('clinic.patients', 'off', 'no reason')",
        "tenant_acme.patients_log_acme()",
    ],
)
def test_no_tenant_calls_what_writes_the_log(calm: Wards, call: str) -> None:
    calm.refuses(f"select {call}", "42501", "0A000")


def test_a_purpose_from_a_setting_is_said_to_be_stated(wards: Wards, journal: Journal) -> None:
    with wards.attacker(None) as connection:
        connection.execute("set ward.purpose = 'treatment'")
        connection.execute("select ward.login_session(%s)", [wards.token()])
    (login,) = journal.events("login")
    assert login.texts["purpose"] == "treatment" and login.detail and login.detail["purpose"] == "stated"


def test_no_token_is_in_the_journal(wards: Wards, journal: Journal) -> None:
    token = wards.token()
    with wards.attacker(None) as connection:
        connection.execute("select ward.login_session(%s)", [token])
        connection.execute("select name from patients")
        with pytest.raises(psycopg.Error):
            connection.execute("select ward.login(%s)", [token[:-4] + "AAAA"])
    messages = journal.read(lambda messages: len(messages) > 3)
    for part in token.split("."):
        assert part not in repr(messages)


def test_refused_logins_leave_the_reason_and_no_claim(wards: Wards, journal: Journal) -> None:
    wrong = wards.token("globex", subject="mallory the great")
    with wards.attacker(None) as connection, pytest.raises(psycopg.Error):
        connection.execute("select ward.login(%s)", [wrong])
    (refusal,) = journal.events("refusal")
    assert refusal.detail == {"sqlstate": "WK004", "reason": "token belongs to another tenant"}
    assert refusal.tenant is None and refusal.texts["database_role"] == "tenant_acme"
    assert "mallory" not in repr(refusal)


@pytest.mark.parametrize(
    ("statement", "role", "sqlstate"),
    [
        ("insert into patients (name) values ('x')", "VIEWER", "WK006"),
        ("select ward.unseal('\\x00', '\\x00', '\\x00')", None, "WK001"),
        ("insert into patients (name) values ('x')", None, "WK001"),
    ],
)
def test_refusals_after_the_login(
    wards: Wards, journal: Journal, statement: str, role: str | None, sqlstate: str
) -> None:
    with wards.attacker("mallory" if role else None, role or "") as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(statement)
        assert refused.value.sqlstate == sqlstate
    (refusal,) = journal.events("refusal")
    assert refusal.detail and refusal.detail["sqlstate"] == sqlstate
    assert (refusal.context is not None) == (role is not None)


def test_a_value_that_does_not_open_is_to_be_investigated(wards: Wards, journal: Journal) -> None:
    wards.admin.execute(
        "alter table sealed_acme.patients disable trigger all;"
        "update sealed_acme.patients set ssn = set_byte(ssn, 20, get_byte(ssn, 20) # 1) where id = 3"
    )
    with wards.attacker() as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute("select ssn from patients")
    assert refused.value.sqlstate == "WK101"
    (event,) = journal.events("tampered")
    assert event.detail and event.context
    assert (event.detail["row"], event.detail["column"], event.detail["investigate"]) == ("3", "ssn", True)


def test_releases_of_keys_are_events(wards: Wards, journal: Journal) -> None:
    with wards.attacker() as connection:
        connection.execute("select name from patients")
    (released,) = journal.events("key_released")
    assert released.detail and released.detail.pop("classes")
    assert released.detail == {"version": 1} and released.tenant == wards.database.tenant_id("acme")
