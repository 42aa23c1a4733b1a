"""``wardkey incident`` from a token that leaked to a signed report; what is to be done is done once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.audit.databases import START, Filled
from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.support.sqlstate import refused
from wardkey.embedded import Cluster
from wardkey.errors import InvalidIncident
from wardkey.incident import duties, losses
from wardkey.incident import report as reports

TITLE = "<script>a stolen dump</script>"


class Case:
    """A leaked token of one clinic of a database, and the command."""

    def __init__(self, database: Database, directory: Path) -> None:
        self.database, self.directory = database, directory
        self.slug = database.new_tenant()
        self.token = database.token(self.slug, subject="dr.grey")
        self.file = directory / "token"
        self.file.write_text(self.token + "\n")
        self.wardkey = Wardkey(database.cluster.home.path)
        with database.admin() as admin:
            log = Filled(admin, self.slug)
            digest = hashlib.sha256(self.token.encode()).hexdigest()
            issuer = database.issuer.name
            now = (datetime.now(UTC) - START).total_seconds() / 60
            log.login(
                "dr.grey", minute=now, detail={"issuer": issuer, "token_id": "1", "token_sha256": digest}
            )
            for row in ("1", "2"):
                log.read("dr.grey", row, minute=now)

    def __call__(self, *words: str, code: int = 0) -> Any:
        return self.wardkey.json("--dsn", self.database.dsn(), "incident", *words, code=code)

    def refuse(self, *words: str, code: int = 1) -> str:
        done = self.wardkey("--dsn", self.database.dsn(), "incident", *words, code=code)
        assert self.token not in done.stderr + done.stdout
        return str(done.stderr)

    def open(self, *more: str) -> str:
        return str(self("open", TITLE, "--discovered", "2h", *more)["id"])


@pytest.fixture(scope="module")
def case(cluster: Cluster, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    with clone(cluster, template) as database:
        yield Case(database, tmp_path_factory.mktemp("incident"))


@pytest.fixture(scope="module")
def scoped(case: Case) -> str:
    identity = case.open("--token-file", str(case.file), "--since", START.isoformat())
    told = case("scope", identity, "--patients-to", str(case.directory / "patients.csv"))
    assert [tenant["slug"] for tenant in told["tenants"]] == [case.slug] and told["patients"] == 2
    return identity


def test_who_is_to_be_told_is_a_file_and_no_token_is_kept(case: Case, scoped: str) -> None:
    assert (case.directory / "patients.csv").read_text() == f"tenant,patient\n{case.slug},1\n{case.slug},2\n"
    with case.database.admin() as admin:
        kept = admin.execute("select l::text from ward_internal.incident_losses as l").fetchall()
        events = admin.execute("select operation, detail::text from ward_internal.audit_platform").fetchall()
    assert kept and case.token not in str(kept) + str(events)
    assert {"incident_opened", "incident_scoped"} <= {operation for operation, _ in events}


def test_all_four_factors_have_evidence_and_wait_for_the_officer(case: Case, scoped: str) -> None:
    told = case("assess", scoped)
    assert [factor["is_low"] for factor in told] == [None] * 4
    assert "2 patients" in told[0]["evidence"][0] and "dr.grey" in told[1]["evidence"][0]
    assert "2 rows of patients read" in told[2]["evidence"][0]
    assert "not all four factors" in case.refuse(
        "close", scoped, "--conclusion", "low-probability", "--reason", "x"
    )
    assert "stayed sealed" in case.refuse("close", scoped, "--conclusion", "secured", "--reason", "x")
    told = case("assess", scoped, "--factor", "3", "--not-low", "--reason", "two rows were read")
    assert (told[2]["is_low"], told[2]["reason"]) == (False, "two rows were read")
    case.refuse("assess", scoped, "--factor", "3", code=2)


def test_the_report_is_a_page_and_a_signed_document(case: Case, scoped: str) -> None:
    page, signed = case.directory / "report.html", case.directory / "report.json"
    made = case("report", scoped, "--html", str(page), "--signed", str(signed))
    assert [notice["section"] for notice in made["notices"]] == ["164.404", "164.410", "164.408(c)"]
    assert made["portal"][0]["approximate_number_of_individuals"] == 2
    assert {line["what"] for line in made["timeline"]} >= {"discovered", "incident opened"}
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text and case.token not in text
    (policy,) = re.findall(r'Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'") and "'unsafe" not in policy
    assert page.stat().st_mode & 0o777 == signed.stat().st_mode & 0o777 == 0o600
    assert case("verify", str(signed))["ok"] is True
    assert case("timeline", scoped)[0]["what"] == "token may be in other hands"


def test_a_changed_report_is_none(case: Case, scoped: str) -> None:
    signed = case.directory / "changed.json"
    case("report", scoped, "--signed", str(signed))
    data = signed.read_bytes()
    for changed in (data.replace(b'"patients": 2', b'"patients": 1'), data + b" ", b"{}", b"[1]", data[:-9]):
        with pytest.raises(InvalidIncident):
            reports.verify(changed)
    with pytest.raises(InvalidIncident):
        reports.verify(data, b"k" * 32)
    assert reports.verify(data)["scope"]["patients"] == 2


def test_what_is_to_be_done_is_done_once(case: Case, scoped: str) -> None:
    assert "not confirmed" in case.refuse("scope", scoped, "--act")
    done = case.wardkey("--dsn", case.database.dsn(), "incident", "scope", scoped, "--act", "--yes")
    assert f"{case.slug}: version 2 is active" in done.stdout and "retired: 1" in done.stdout
    with case.database.tenant(case.slug) as tenant, refused("WK255"):
        tenant.execute("select ward.login(%s)", [case.token])
    with case.database.tenant(case.slug, subject="dr.other") as tenant:
        assert tenant.execute("select count(*) from patients").fetchone() == (0,)
    again = case.wardkey("--dsn", case.database.dsn(), "incident", "scope", scoped, "--act", "--yes")
    assert "version 2 is active" not in again.stdout and "1 fails, 2 holds" in again.stdout
    with case.database.admin() as admin:
        acts = admin.execute("select act, what from ward_internal.incident_acts order by act").fetchall()
        versions = admin.execute(
            "select count(*) from ward_internal.tenant_keys as k"
            " join ward_internal.tenants as t on t.id = tenant_id where slug = %s", [case.slug],
        ).fetchall()  # fmt: skip
    assert acts == [("revoke", "dr.grey"), ("rotate", "")] and versions == [(2,)]
    assert any("revoke dr.grey" in line for line in case("assess", scoped)[3]["evidence"])


def test_a_closed_incident_stays_closed(case: Case) -> None:
    identity = case.open("--subject", "dr.grey", "--since", START.isoformat())
    assert "nobody has looked" in case.refuse("close", identity, "--conclusion", "breach", "--reason", "x")
    assert "nobody has looked" in case.refuse("report", identity)
    case("scope", identity)
    case("close", identity, "--conclusion", "breach", "--reason", "two patients were read")
    for words in (
        ("scope", identity),
        ("assess", identity, "--factor", "1", "--low", "--reason", "x"),
        ("close", identity, "--conclusion", "breach", "--reason", "x"),
    ):
        assert "is closed" in case.refuse(*words)
    states = {row["id"]: row["state"] for row in case("list")}
    assert states[identity] == "breach"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dump", "2026-03-01T08:00"), "without a zone"),
        (("--dump", "2026-03-01"), "without a zone"),
        (("--dump", "2999-01-01T00:00Z"), "in the future"),
        (("--dump", "yesterday"), "not a date"),
        (("--subject", "dr.grey"), "--since"),
        (("--key", "acme", "--since", "1d"), "SLUG:VERSION"),
        ((), "name what was lost"),
    ],
)
def test_words_that_say_nothing_exact_are_refused(case: Case, words: tuple[str, ...], said: str) -> None:
    assert said in case.refuse("open", TITLE, "--discovered", "2h", *words, code=2).replace("\n", " ")


def test_what_the_database_does_not_know_is_one_clear_error(case: Case) -> None:
    unknown = case.directory / "unknown"
    unknown.write_text(case.database.token("acme"))
    since = ("--since", "1d")
    opened = ("open", TITLE, "--discovered", "2h")
    assert "no log has a login with that token (WK228)" in case.refuse(
        *opened, "--token-file", str(unknown), *since
    )
    assert "before the log begins (WK285)" in case.refuse(*opened, "--dump", "2020-01-01T00:00Z")
    assert "no such file" in case.refuse(*opened, "--token-file", str(case.directory / "none"), *since)
    nobody = "00000000-0000-4000-8000-000000000000"
    assert "no incident has that id (WK204)" in case.refuse("scope", nobody)


def test_clocks_run_as_the_law_says() -> None:
    """45 CFR 164.404 to .410; the last day of February is the 60th after a year's end in a leap year."""

    def due(day: datetime, patients: int) -> dict[str, str]:
        return {clock["section"]: clock["due"] for clock in duties.clocks(day, patients, day.date())}

    day = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    assert due(day, 499) == {"164.404": "2026-04-30", "164.410": "2026-04-30", "164.408(c)": "2027-03-01"}
    assert due(day, 500) == {"164.404": "2026-04-30", "164.410": "2026-04-30", "164.408(b)": "2026-04-30"}
    assert due(day, 501).keys() == {"164.404", "164.406", "164.408(b)", "164.410"}
    assert due(datetime(2027, 5, 1, tzinfo=UTC), 1)["164.408(c)"] == "2028-02-29"
    with pytest.raises(LookupError):
        duties.rules(date(2000, 1, 1))


def test_an_exact_moment_has_a_zone_or_is_an_age() -> None:
    assert losses.exact_moment("2026-03-01T08:00+01:00").isoformat() == "2026-03-01T08:00:00+01:00"
    assert losses.exact_moment("2026-03-01T08:00Z").tzinfo is UTC
    assert losses.exact_moment(" 7d ") < datetime.now(UTC)
    assert json.dumps(losses.Loss("dump", START).document()) == f'{{"kind": "dump", "since": "{START}"}}'
