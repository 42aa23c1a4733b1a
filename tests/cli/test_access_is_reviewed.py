"""``wardkey access review``: who had which role, what each read, what nobody used; a page to sign."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.audit.databases import SCRIPT, SECRET, START, clinic_month
from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.access.review import SECTIONS
from wardkey.embedded import Cluster

MARCH = ("--from", "2026-03-01", "--to", "2026-04-01")
READ = ("table", "rows_read", "classes", "columns")


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database, database.admin() as admin:
        log = clinic_month(admin)
        log.put("e", "grant", 90, database_role="dba", detail={"objects": [{"object": "audit_log"}]})
        log.put("e", "measures_read", 95, database_role="tenant_globex", detail={"payer": "globex"})
        model = admin.execute("select id::text from ward_internal.models where face = 'patients'").fetchone()
        told = {"subject": "nurse.kim", "role": "VIEWER", "detail": {"model": model[0], "budget": 500}}
        for operation in ("budget_near", "budget_exhausted", "budget_near"):
            log.put("e", operation, 96, **told)
        grant = uuid4()
        admin.execute(
            "insert into ward_internal.break_glass (id, tenant_id, issuer, subject, role, classes, minutes,"
            " reason, emergency, requested_at, state, approver, started_at, until)"
            " select %s, %s, 'i', 'dr.glass', 'VIEWER', '{note}', 30, 'unconscious', false, at, 'ended',"
            " 'dr.boss', at, at + interval '30 minutes' from (select %s::timestamptz) as t (at)",
            [grant, log.tenant, START],
        )
        log.login("dr.glass", "VIEWER", 5, purpose=f"ETREAT {grant}")
        for row in ("17", "17", "18"):
            log.read("dr.glass", row, minute=6)
        log.seal(24 * 60 * 21)
        query = "select city, 1 as numerator, 1 as complement from patients"
        admin.execute("select ward.register_payer('globex'), ward.register_measure('m', %s, 11)", [query])
        with database.tenant("acme", subject="admin", role="ADMIN") as acme:
            acme.execute("select ward.delegate('globex', '{m}')")
        yield database


@pytest.fixture(scope="module")
def page(filled: Database, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("review") / "review.html"


@pytest.fixture(scope="module")
def asked(filled: Database, page: Path) -> dict[str, Any]:
    wardkey = Wardkey(filled.cluster.home.path)
    review = ("access", "review", "--tenant", "acme", *MARCH, "--html", str(page))
    answer = wardkey.json("--dsn", filled.dsn(), *review)
    assert isinstance(answer, dict) and page.stat().st_mode & 0o777 == 0o600
    return answer


def test_it_says_who_had_which_role_and_what_each_read(asked: dict[str, Any]) -> None:
    assert asked["log_is_good"] is True and {section.name for section in SECTIONS} <= asked.keys()
    people = {row["who"]: row for row in asked["people"]}
    jones = people["dr.jones"]
    assert people.keys() == {"dr.jones", "nurse.kim", "dr.glass", SCRIPT}
    assert (jones["role"], jones["logins"], jones["rows_read"], jones["rows_written"]) == (
        *("EVALUATOR", 1),
        *(422, 20),
    )
    assert jones["last"].startswith("2026-03-21")
    reads = {row["who"]: [row[name] for name in READ] for row in asked["reads"]}
    assert reads["dr.jones"] == ["patients", 422, "clinical", "name, ssn"]
    assert reads["nurse.kim"] == ["patients", 32, "clinical", "name"]


def test_it_says_what_nobody_used(asked: dict[str, Any]) -> None:
    unused = {row["role"]: (row["never_read"], row["never_written"]) for row in asked["unused"]}
    # EVALUATOR reads and writes, VIEWER reads and may not write; all columns are of one class
    assert unused == {"ADMIN": (None, "clinical"), "ANALYST": ("clinical", None)}


def test_it_names_each_break_glass_and_what_was_read_meanwhile(asked: dict[str, Any]) -> None:
    (row,) = asked["break_glass"]
    said = [row[name] for name in ("who", "role", "classes", "reason", "approver", "rows_read", "review_due")]
    assert said == ["dr.glass", "VIEWER", "note", "unconscious", "dr.boss", 2, None]


def test_it_names_who_came_near_the_end_of_a_budget(asked: dict[str, Any]) -> None:
    (row,) = asked["budgets"]
    said = [row[name] for name in ("who", "role", "table", "budget", "times_near", "times_used_up")]
    assert said == ["nurse.kim", "VIEWER", "patients", 500, 2, 1]


def test_it_names_delegations_changes_and_refusals(asked: dict[str, Any]) -> None:
    (delegation,) = asked["delegations"]
    assert (delegation["payer"], delegation["measures"], delegation["delegated_by"]) == (
        "globex",
        "m",
        "admin",
    )
    assert delegation["last_read"].startswith("2026-03-02")
    (change,) = asked["changes"]
    assert (change["what"], change["who"]) == ("grant", "dba") and "audit_log" in change["detail"]
    assert [(row["sqlstate"], row["times"]) for row in asked["refusals"]] == [("WK003", 1)]


def test_the_page_is_to_be_signed_and_runs_nothing(asked: dict[str, Any], page: Path) -> None:
    text = page.read_text()
    assert all(section.title in text for section in SECTIONS) and "164.308(a)(4)" in text
    assert SCRIPT not in text and "<script" not in text and SECRET not in text
    (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "'unsafe" not in policy
    assert "Yes." in text and text.count('class="decision"') == len(asked["people"]) + 4


def test_that_it_was_asked_is_an_entry_and_the_terminal_shows_it(
    filled: Database, asked: dict[str, Any]
) -> None:
    wardkey = Wardkey(filled.cluster.home.path)
    shown = wardkey("--dsn", filled.dsn(), "access", "review", "--tenant", "acme", *MARCH).stdout
    assert all(section.title in shown for section in SECTIONS) and "dr.jones" in shown
    with filled.admin() as admin:
        query = "select count(*) from ward.events where slug = 'acme' and kind = 'access reviewed'"
        assert admin.execute(query).fetchone() == (2,)


def test_a_section_without_an_answer_says_so(filled: Database) -> None:
    wardkey = Wardkey(filled.cluster.home.path)
    shown = wardkey("--dsn", filled.dsn(), "access", "review", "--tenant", "globex").stdout
    assert "Nobody came near" in shown and "Nothing was read." in shown and "Nothing is delegated." in shown
