"""Reads lost with WAL are an entry of every tenant's log; verify, report, who-read and doctor say so."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.scribe.scribes import Scribe, drop_slot, wait_for
from tests.scribe.test_scribe_names_what_is_wrong import at_work
from tests.support.cli import Wardkey
from tests.support.database import Connection

TENANTS = ("acme", "globex")


def wait_gaps(connection: Connection, count: int) -> dict[str, list[dict[str, Any]]]:
    """Return the details of the gaps in each tenant's log, once there are so many in each, sealed."""
    query = """
        select t.slug, e.detail from ward_internal.tenants as t
        join ward_internal.audit_log as e on e.tenant_id = t.id
        where e.operation = 'journal_gap' and exists (
          select from ward_internal.audit_batches as b where b.tenant_id = t.id and e.id = any (b.ids))
        order by e.id"""
    deadline = time.monotonic() + 30
    while True:
        told: dict[str, list[dict[str, Any]]] = {slug: [] for slug in TENANTS}
        for slug, detail in connection.execute(query).fetchall():
            told[slug].append(detail)
        if all(len(gaps) == count for gaps in told.values()):
            return told
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


def asked(scribe: Scribe, *words: str, code: int = 0) -> Any:
    wardkey = Wardkey(scribe.database.cluster.home.path)
    on = ["--json", "--dsn", scribe.database.dsn(), "--keeper", str(scribe.keeper.socket)]
    done = wardkey(*on, *words, code=code)
    return json.loads(done.stdout)


def test_a_lost_slot_is_told_wherever_somebody_asks_who_read(scribe: Scribe, tmp_path) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        with scribe.database.tenant("acme", subject="dr", role="ADMIN") as ward:
            ward.execute("insert into patients (name) values ('Ada')")
        wait_for(connection, 1, "select count(*) from tenant_acme.audit_log where operation = 'login'")
        scribe.kill()
        drop_slot(connection, scribe.slot)
        scribe.start()
        gaps = wait_gaps(connection, 1)
        for (gap,) in gaps.values():
            assert gap.keys() == {"why", "since"}, "nothing of what others do"
            assert "there is no replication slot" in gap["why"]
        answer = asked(scribe, "audit", "who-read", "patients", "1", "--tenant", "acme")
        assert [part["why"] for part in answer["gaps"]] == [gaps["acme"][0]["why"]]
        assert answer["gaps"][0]["from"] < answer["gaps"][0]["to"]
        assert answer["gaps"] == asked(scribe, "audit", "did", "dr", "--tenant", "acme")["gaps"]
        early = asked(scribe, "audit", "who-read", "patients", "1", "--tenant", "acme", "--to", "2026-01-01")
        assert early["gaps"] == []
        with scribe.database.tenant("acme", subject="dr", role="ADMIN") as ward:
            kinds = ward.execute("select kind from ward.audit_coverage('patients')").fetchall()
        assert kinds == [("log",), ("level",), ("gap",)]
        verified = asked(scribe, "audit", "verify", "--live", "--tenant", "acme")
        assert verified["ok"] and [gap["why"] for gap in verified["gaps"]] == [gaps["acme"][0]["why"]]
        page = tmp_path / "report.html"
        asked(scribe, "audit", "report", "--tenant", "acme", "--html", str(page))
        assert "Reads may be missing" in page.read_text()
        findings = asked(scribe, "doctor", code=4)
        (whole,) = [finding for finding in findings if finding["check"] == "journal-whole"]
        assert whole["outcome"] == "warn"
        assert {problem["object"] for problem in whole["problems"]} >= {
            f"the log of {slug}" for slug in TENANTS
        }
        assert scribe.stop() == 0


def test_a_promotion_is_told_though_the_slot_is_there(scribe: Scribe) -> None:
    """As with slots kept in step on a standby: what its primary had not sent is lost all the same."""
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        assert scribe.stop() == 0
        (before,) = connection.execute("select timeline from ward_internal.scribe_state").fetchone() or (
            None,
        )
        assert before is not None
        connection.execute("update ward_internal.scribe_state set timeline = timeline + 1")
        scribe.start()
        for (gap,) in wait_gaps(connection, 1).values():
            assert "promoted" in gap["why"] and gap["since"]
        assert scribe.stop() == 0
        scribe.start()
        at_work(scribe)
        assert connection.execute("select timeline from ward_internal.scribe_state").fetchone() == (before,)
        assert scribe.stop() == 0
        wait_gaps(connection, 1)


def sealed_and_signed(connection: Connection, scribe: Scribe, text: str) -> None:
    """Write an entry into each log, the platform's too, and wait until the keeper has signed all there is."""
    connection.execute("select ward_internal.log_event_in_all('test', %s)", [json.dumps({"text": text})])
    ripe = """
        select count(*) from ward_internal.audit_log as e
        where e.operation = 'test' and e.detail ->> 'text' = %s and (
          select max(size) from ward_internal.audit_checkpoints where tenant_id = e.tenant_id) > (
          select b.first_position from ward_internal.audit_batches as b
          where b.tenant_id = e.tenant_id and e.id = any (b.ids))"""
    deadline = time.monotonic() + 60
    while connection.execute(ripe, [text]).fetchone() != (3,):
        assert time.monotonic() < deadline, scribe.errors
        time.sleep(0.1)


_LOST = ("audit_log", "audit_batches", "audit_trees", "audit_checkpoints", "audit_unsigned")


def save(connection: Connection) -> None:
    for name in _LOST:
        connection.execute(f"create table public.kept_{name} as table ward_internal.{name}")


def bring_back(connection: Connection) -> None:
    for name in _LOST:
        connection.execute(f"delete from ward_internal.{name}")
        connection.execute(
            f"insert into ward_internal.{name} overriding system value table public.kept_{name}"
        )


@pytest.mark.parametrize("how", ["all", "by name"])
def test_a_database_behind_its_keeper_is_refused_until_readmitted_and_says_so(
    scribe: Scribe, how: str
) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        sealed_and_signed(connection, scribe, "kept")
        scribe.stop()
        save(connection)
        scribe.start()
        sealed_and_signed(connection, scribe, "lost")
        scribe.stop()
        bring_back(connection)
        drop_slot(connection, scribe.slot)
        scribe.start()
        wait_gaps(connection, 1)
        deadline = time.monotonic() + 30
        while "the keeper refuses a checkpoint" not in scribe.errors:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        scribe.stop()
        row = connection.execute("select id from ward_internal.tenants where slug = 'globex'").fetchone()
        assert row
        if how == "all":
            rows = asked(scribe, "scribe", "readmit", "--all")
            assert [row["log"] for row in rows] == ["acme", "globex", "platform"]
        else:
            for name in ("acme", str(row[0]), "platform"):
                asked(scribe, "scribe", "readmit", name)
        assert asked(scribe, "scribe", "readmit", "--all") == [], "that is enough"
        scribe.start()
        sealed_and_signed(connection, scribe, "after")
        gaps = wait_gaps(connection, 2)
        assert all("readmitted" in gap[1]["why"] for gap in gaps.values())
        scribe.stop()
        for name in ("acme", "globex", "platform"):
            report = asked(scribe, "audit", "verify", "--live", "--tenant", name)
            assert report["ok"] and report["keeper_agrees"] and len(report["gaps"]) == 2, report
