"""Whom a loss reaches is counted from log, leaves and release log: those it reaches, and nobody else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.audit.databases import START, Filled
from tests.support.database import Database, clone
from tests.support.sqlstate import refused
from wardkey.embedded import Cluster
from wardkey.incident import losses, scope, store
from wardkey.incident.losses import Loss

TOKEN = "header.payload.signature"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
NOON = START + timedelta(hours=4)
_VISITS = """
create table clinic.visits (
  id bigint primary key, patient_id bigint not null references ward_model.clinic__patients (id), note text);
select ward.protect('clinic.visits', seal => '{note}')"""


def at(minute: float) -> datetime:
    return START + timedelta(minutes=minute)


@dataclass
class Hospital:
    """Two tenants with 5 patients and 5 visits each; what happened is put into their logs, in March."""

    database: Database
    admin: psycopg.Connection[Any]
    logs: dict[str, Filled]
    models: dict[str, UUID]
    keeper: Path

    def put(self, slug: str, kind: str, operation: str, minute: float, table: str, **members: Any) -> None:
        self.logs[slug].put(kind, operation, minute, model_id=self.models[table], **members)

    def released(self, slug: str, minute: float, subject: str, version: int = 1) -> None:
        line = {
            "time": at(minute).isoformat(), "op": "release", "outcome": "released", "subject": subject,
            "tenant": str(self.logs[slug].tenant), "version": version, "jti_sha256": "0" * 32,
        }  # fmt: skip
        with (self.keeper / "release.log").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def open(self, *what: Loss, patients: str = "patients") -> UUID:
        return store.open_(self.admin, "a stolen thing", at(60 * 24), what, patients)

    def count(self, *what: Loss) -> scope.Scope:
        return scope.gather(self.admin, store.load(self.admin, self.open(*what)), self.keeper)


@pytest.fixture(scope="module")
def slugs(cluster: Cluster, template: str) -> Iterator[tuple[Database, list[str]]]:
    with clone(cluster, template) as database, database.admin() as admin:
        admin.execute(_VISITS)
        yield database, [database.new_tenant(), database.new_tenant()]


@pytest.fixture(scope="module")
def filled(slugs: tuple[Database, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    database, names = slugs
    with database.admin() as admin:
        admin.execute(
            "update ward_internal.tenants set created_at = %s where slug = any (%s)", [at(0), names]
        )
        admin.execute("update ward_internal.tenant_keys set created_at = %s", [at(0)])
        logs = {}
        for slug in names:
            with database.tenant(slug, subject="loader") as tenant:
                tenant.execute(
                    "insert into patients (id, name) select n, 'Ann' from generate_series(1, 5) as n"
                )
                tenant.execute("insert into visits select 10 + n, n, 'cough' from generate_series(1, 5) as n")
            logs[slug] = Filled(admin, slug)
        query = "select face, id from ward_internal.models"
        models: dict[str, UUID] = dict(admin.execute(query).fetchall())
        keeper = tmp_path_factory.mktemp("keeper")
        hospital = Hospital(database, admin, logs, models, keeper)
        for slug in names:
            for n in range(1, 6):
                hospital.put(slug, "w", "insert", n, "patients", row_id=str(n), new={"id": n})
            hospital.released(slug, 1, "dr.day")
        yield hospital


@pytest.fixture
def hospital(filled: Hospital) -> Iterator[Hospital]:
    """What a test puts in goes again."""
    released = (filled.keeper / "release.log").read_bytes()
    query = "select max(id) from ward_internal.audit_log where tenant_id = any (%s)"
    logs = [log.tenant for log in filled.logs.values()]
    (last,) = filled.admin.execute(query, [logs]).fetchone() or (0,)
    yield filled
    filled.admin.execute(
        "delete from ward_internal.audit_log where id > %s and tenant_id = any (%s)", [last, logs]
    )
    (filled.keeper / "release.log").write_bytes(released)


def _thief(hospital: Hospital, slug: str, minute: float = 30, **members: Any) -> bytes:
    detail = {"issuer": "https://id.example", "token_id": "jti-1", "token_sha256": DIGEST}
    return hospital.logs[slug].login("dr.grey", "EVALUATOR", minute, detail=detail, **members)


def test_a_token_reaches_the_patients_it_read_of_its_clinic_alone(hospital: Hospital) -> None:
    one, other = hospital.logs
    context = _thief(hospital, one)
    hospital.logs[other].login("dr.grey", minute=30)
    hospital.put(one, "r", "read", 31, "patients", context=context, row_id="2", columns="name,ssn")
    hospital.put(one, "r", "read", 32, "patients", context=context, row_id="2", columns="name")
    hospital.put(one, "r", "read", 33, "visits", context=context, row_id="14", columns="note")
    hospital.put(
        one, "r", "read", 34, "visits", context=context, columns="note", detail={"rows": [[11, 12], 13]}
    )
    hospital.put(other, "r", "read", 34, "patients", context=b"x" * 16, row_id="5", columns="name")
    counted = hospital.count(Loss("token", at(0), DIGEST))
    (tenant,) = counted.evidence["tenants"]
    assert counted.patients == {one: {"1", "2", "3", "4"}} and counted.evidence["patients"] == 4
    assert tenant["slug"] == one and counted.evidence["untouched"] == sorted(
        [*map(str, _rest(hospital, one))]
    )
    tables = {table["table"]: table for table in tenant["tables"]}
    assert (tables["patients"]["rows_read"], tables["patients"]["columns"]) == (1, ["name", "ssn"])
    assert (tables["visits"]["rows_read"], tables["visits"]["classes"]) == (4, ["clinical"])
    assert tenant["subjects"] == ["dr.grey"] and tenant["rows_of_unknown_patients"] == 0
    (verdict,) = tenant["keys"]
    assert verdict["verdict"] == "fails" and "5 rows were opened" in verdict["reason"]
    assert TOKEN not in json.dumps(counted.evidence)


def _rest(hospital: Hospital, *slugs: str) -> list[str]:
    rows = hospital.admin.execute("select slug from ward_internal.tenants order by slug").fetchall()
    return [slug for (slug,) in rows if slug not in slugs]


def test_what_was_read_before_and_after_the_window_does_not_count(hospital: Hospital) -> None:
    (one, _) = hospital.logs
    context = _thief(hospital, one)
    for minute, row in ((31, "1"), (40, "2"), (50, "3")):
        hospital.put(one, "r", "read", minute, "patients", context=context, row_id=row, columns="name")
    counted = hospital.count(Loss("subject", at(35), "dr.grey", until=at(45)))
    assert counted.patients == {one: {"2"}}
    within_a_second = Loss("subject", at(29), "dr.grey", until=at(31) + timedelta(milliseconds=1))
    assert hospital.count(within_a_second).patients == {one: {"1"}}


def test_a_dump_has_who_was_there_when_it_was_made(hospital: Hospital) -> None:
    one, other = hospital.logs
    hospital.put(
        one, "w", "delete", 10, "patients", row_id="77", old={"id": 77}
    )  # there before, gone by then
    hospital.put(one, "w", "delete", 90, "patients", row_id="88", old={"id": 88})  # gone since
    hospital.put(one, "w", "insert", 95, "patients", row_id="99", new={"id": 99})  # came since
    hospital.put(one, "w", "update", 96, "patients", row_id="1", new={"name": "\\x01"})
    counted = hospital.count(Loss("dump", at(60), tenant=one))
    assert counted.patients == {one: {"1", "2", "3", "4", "5", "88"}}
    (tenant,) = counted.evidence["tenants"]
    tables = {table["table"]: table for table in tenant["tables"]}
    assert (
        tables["patients"]["in_clear"] == ["id", "city", "created_at"]
        and other in counted.evidence["untouched"]
    )
    (verdict,) = tenant["keys"]
    assert verdict["verdict"] == "holds" and "AES-256-GCM" in verdict["reason"]
    assert counted.evidence["is_secured"] is True


def test_a_truncated_table_was_in_the_dump(hospital: Hospital) -> None:
    one, _ = hospital.logs
    hospital.put(one, "w", "insert", 20, "patients", row_id="55", new={"id": 55})
    hospital.put(one, "w", "truncate", 90, "patients")
    assert "55" in hospital.count(Loss("dump", at(60), tenant=one)).patients[one]
    assert "55" not in hospital.count(Loss("dump", at(100), tenant=one)).patients[one]


def test_a_dump_with_a_lost_credential_is_no_safe_harbour(hospital: Hospital) -> None:
    one, _ = hospital.logs
    _thief(hospital, one)
    hospital.released(one, 31, "dr.grey")
    alone = Loss("dump", at(20), tenant=one)
    (verdict,) = hospital.count(alone, Loss("subject", at(25), "dr.grey")).evidence["tenants"][0]["keys"]
    assert (verdict["verdict"], verdict["reason"]) == ("fails", "released 1 times on what was lost")
    (verdict,) = hospital.count(alone).evidence["tenants"][0]["keys"]
    assert (verdict["verdict"], verdict["released_to"]) == ("holds", ["dr.grey"])


def test_a_lost_key_or_server_fails_and_no_release_log_proves_nothing(hospital: Hospital) -> None:
    one, other = hospital.logs
    (key,) = hospital.count(Loss("key", at(0), None, one, 1)).evidence["tenants"][0]["keys"]
    assert key["verdict"] == "fails" and "key itself" in key["reason"]
    _thief(hospital, other)
    served = hospital.count(Loss("host", at(25), losses.SERVER)).evidence["tenants"]
    assert [(tenant["slug"], tenant["keys"][0]["verdict"]) for tenant in served] == [(other, "fails")]
    dump = Loss("dump", at(60), tenant=one)
    with (hospital.keeper / "release.log").open("a") as log:
        log.write('{"outcome": "released", "ten\n')
    assert hospital.count(dump).evidence["tenants"][0]["keys"][0]["verdict"] == "unproven"
    (hospital.keeper / "release.log").write_text("")
    hospital.released(one, 90, "dr.day")  # begins too late
    assert hospital.count(dump).evidence["tenants"][0]["keys"][0]["verdict"] == "unproven"
    (hospital.keeper / "release.log").unlink()
    counted = hospital.count(dump).evidence
    assert counted["tenants"][0]["keys"][0]["verdict"] == "unproven" and counted["is_secured"] is False


def test_a_password_and_a_host_are_told_by_role_and_address(hospital: Hospital) -> None:
    one, other = hospital.logs
    context = _thief(hospital, one, address="203.0.113.9")
    hospital.put(one, "r", "read", 31, "patients", context=context, row_id="3", columns="name")
    assert hospital.count(Loss("password", at(0), f"tenant_{one}")).patients == {one: {"3"}}
    assert hospital.count(Loss("host", at(0), "203.0.113.9")).patients == {one: {"3"}}
    hospital.logs[other].login("dr.else", minute=30, address="203.0.113.10")
    assert hospital.count(Loss("host", at(0), "203.0.113.10")).patients == {other: set()}


def test_reads_that_name_no_row_and_gaps_are_told(hospital: Hospital) -> None:
    one, _ = hospital.logs
    context = _thief(hospital, one)
    hospital.put(one, "r", "read", 31, "visits", context=context, columns="note")
    hospital.put(one, "r", "read", 32, "visits", context=context, row_id="999", columns="note")
    hospital.logs[one].put("e", "journal_gap", 50, detail={"since": at(20).isoformat(), "why": "a crash"})
    (tenant,) = hospital.count(Loss("token", at(0), DIGEST)).evidence["tenants"]
    assert tenant["tables"][0]["statements_without_rows"] == 1 and tenant["rows_of_unknown_patients"] == 1
    assert [gap["why"] for gap in tenant["gaps"]] == ["a crash"] and tenant["patients"] == 0


def test_of_a_row_that_is_gone_the_log_knows_the_patient(hospital: Hospital) -> None:
    one, _ = hospital.logs
    context = _thief(hospital, one)
    hospital.put(one, "r", "read", 31, "visits", context=context, row_id="999", columns="note")
    hospital.put(one, "w", "delete", 32, "visits", row_id="999", old={"id": 999, "patient_id": 4})
    assert hospital.count(Loss("token", at(0), DIGEST)).patients == {one: {"4"}}


def test_a_shredded_tenant_is_counted_from_its_log(hospital: Hospital) -> None:
    gone = hospital.database.new_tenant()
    log = Filled(hospital.admin, gone)
    for n in (1, 2, 3):
        log.put("w", "insert", n, model_id=hospital.models["patients"], row_id=str(n), new={"id": n})
    log.put("w", "delete", 5, model_id=hospital.models["patients"], row_id="3", old={"id": 3})
    admin = hospital.admin
    admin.execute("select ward_internal.archive_audit_log(%s)", [log.tenant])
    admin.execute(f"drop schema tenant_{gone}, sealed_{gone} cascade")
    admin.execute(
        "update ward_internal.tenants set status = 'shredded', created_at = %s where slug = %s", [at(0), gone]
    )
    counted = hospital.count(Loss("dump", at(60), tenant=gone))
    assert counted.patients == {gone: {"1", "2"}}
    assert counted.evidence["tenants"][0]["status"] == "shredded"


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        (Loss("dump", START - timedelta(days=365)), "WK285"),  # before the log begins
        (Loss("token", START, "0" * 64), "WK228"),  # unknown
        (Loss("token", START, TOKEN), "WK285"),  # never in clear
        (Loss("subject", START, "nobody"), "WK228"),
        (Loss("dump", START, tenant="nobody"), "WK203"),
        (Loss("dump", START, until=START - timedelta(1)), "WK285"),
        (Loss("theft", START, "x"), "WK285"),
    ],
    ids=lambda value: value.kind if isinstance(value, Loss) else value,
)
def test_what_cannot_be_is_refused(hospital: Hospital, lost: Loss, code: str) -> None:
    with refused(code) as caught, hospital.admin.transaction():
        hospital.open(lost)
    assert TOKEN not in str(caught.value)


def test_what_is_no_table_no_key_or_no_loss_is_refused(hospital: Hospital) -> None:
    one, _ = hospital.logs
    dump = Loss("dump", at(60))
    with refused("WK204"), hospital.admin.transaction():
        hospital.open(dump, patients="nobody")
    with refused("WK204"), hospital.admin.transaction():
        hospital.open(Loss("key", START, None, one, 9))
    with refused("WK285"), hospital.admin.transaction():
        hospital.open()
    with refused("WK285"), hospital.admin.transaction():
        store.open_(hospital.admin, "too early", datetime.now(UTC) + timedelta(1), [dump], "patients")


def test_a_tenant_sees_and_changes_no_incident(hospital: Hospital) -> None:
    (one, _) = hospital.logs
    with hospital.database.tenant(one, subject="chief", role="ADMIN") as tenant:
        for query in (
            "select * from ward.incidents",
            "select * from ward_internal.incident_losses",
            "select ward.open_incident('x', now(), '[]')",
            "select ward.close_incident(gen_random_uuid(), 'secured', 'x')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                tenant.execute(query)
