"""``wardkey demo``: safe to repeat, nothing half loaded, and verdicts that come from the answers."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.demo import attacks, data, load, roles
from wardkey.embedded import Cluster, Home
from wardkey.embedded.issuer import embedded_issuer


@pytest.fixture(scope="module")
def shown(cluster: Cluster) -> Iterator[Wardkey]:
    """A home in which the demo has run, with two small clinics."""
    directory = make_directory(cluster.home.python)
    wardkey = Wardkey(directory / "home")
    try:
        wardkey("demo", "--tenants", "2", "--patients-per-tenant", "20")
        yield wardkey
    finally:
        throw_away(directory)


def _wards(wardkey: Wardkey, admin: psycopg.Connection[tuple[object, ...]]) -> list[load.Ward]:
    cluster = Cluster(Home(Path(wardkey.home)))
    issuer, _ = embedded_issuer(admin, cluster.home)
    return [load.provision(cluster, admin, issuer, slug) for slug in data.slugs(2)]


@pytest.fixture
def admin(shown: Wardkey) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(Cluster(Home(shown.home)).dsn()) as connection:
        yield connection


def test_second_run_uses_the_clinics_that_are_there(shown: Wardkey) -> None:
    facts = shown.json("demo", "--tenants", "2", "--patients-per-tenant", "20")
    assert facts["clinics"]["created"] == 0 and facts["clinics"]["loaded_rows"] == 0
    expected = {slug: data.clinic(number, 20).counts for number, slug in enumerate(data.slugs(2))}
    assert facts["clinics"]["counts"] == expected
    assert facts["summaries"] is None  # of two clinics there is no sum
    assert facts["held"] is True and len(facts["attacks"]) >= 12
    assert all(one["plain"] > 0 and one["sealed"] > 0 for one in facts["costs"])
    searched = facts["on_disk"]["searched"]
    assert searched["mrn"] == [20, 20] and searched["ssn"] == [20, 0]
    seen = {one["column"]: one["shown"] for one in facts["roles"]}
    assert seen["family"]["ADMIN"] == seen["family"]["VIEWER"] and seen["family"]["ANALYST"] == "WK232"
    assert seen["birth_date"]["ANALYST"] == seen["birth_date"]["ADMIN"][:4] + "-01-01"
    assert seen["zip"]["ANALYST"] == seen["zip"]["ADMIN"][:3]
    assert facts["guess"]["told"] == 0 and facts["guess"]["days"] == 5
    got = [step["got"] for step in facts["glass"]["steps"]]
    assert got[:4] == ["WK232", "waits", "WK245", "started"] and got[5:] == ["ended", "WK232"]
    assert not got[4].startswith("WK") and facts["glass"]["trail"]["approver"] == "dr. chief"
    counted = facts["exercise"]
    assert (counted["by_token"], counted["by_dump"], counted["untouched"]) == (3, 20, 1)
    assert counted["verdicts"] == {"token": ["version 1 fails"], "dump": ["version 1 holds"]}
    got = [step["got"] for step in facts["limits"]["steps"]]
    assert got == ["5", "WK253", "WK253", "20", "1", "WK255"] and len(facts["limits"]["ended"]) == 1
    assert {view["slug"]: len(view["rows"]) for view in facts["views"]} == dict.fromkeys(data.slugs(2), 5)


def test_terminal_shows_every_part(shown: Wardkey) -> None:
    out = shown("demo", "--tenants", "2", "--patients-per-tenant", "20").stdout
    for part in (
        "One query",
        "as each role sees it",
        "Break-glass",
        "Budgets and honey rows",
        "A payer reads sums",
        "lie on disk",
        "attacks",
        "An exercise",
        "What it costs",
        "Go on by hand",
        str(shown.home),
    ):
        assert part in out
    assert "NOT HELD" not in out


def test_nothing_remains_of_the_attacks_and_measurements(
    shown: Wardkey, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    before = [load.counts(admin, ward) for ward in _wards(shown, admin)]
    shown("demo", "--tenants", "2", "--patients-per-tenant", "20")
    assert [load.counts(admin, ward) for ward in _wards(shown, admin)] == before
    assert admin.execute("select to_regnamespace('ward_demo_plain')").fetchone() == (None,)
    left = "select count(*) from ward.budgets union all select count(*) from ward.honey_rows"
    assert admin.execute(left).fetchall() == [(0,), (0,)]
    assert shown.json("access", "honey", "ended", "--tenant", data.slugs(2)[0]) == []


def test_guesses_find_what_is_not_masked(
    shown: Wardkey, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Each of them: the demo's verdict is drawn from answers."""
    ward = _wards(shown, admin)[0]
    admin.commit()
    shown("access", "policy", "set", "ANALYST", "quasi", "clear")
    try:
        guess = roles.guess_behind_the_mask(ward)
        assert guess.told == guess.days * len(guess.tried)
    finally:
        shown("access", "policy", "set", "ANALYST", "quasi", "mask")
    assert roles.guess_behind_the_mask(ward).held


_RLS = "alter table clinic.patients {0} row level security, {1} row level security"
# attack → what weakens the server, and what mends it
_WEAKENED = {
    "read the table behind all clinics": (
        f"grant select on clinic.patients to ward_tenant; {_RLS.format('no force', 'disable')}",
        f"revoke all on clinic.patients from ward_tenant; {_RLS.format('force', 'enable')}",
    ),
    "read the wrapped keys": (
        "grant usage on schema ward_internal to ward_tenant;"
        "grant select on ward_internal.tenant_keys to ward_tenant",
        "revoke all on ward_internal.tenant_keys from ward_tenant;"
        "revoke usage on schema ward_internal from ward_tenant",
    ),
    "read statistics": (
        "grant select (reltuples) on pg_class to ward_tenant",
        "revoke select (reltuples) on pg_class from ward_tenant",
    ),
    "lay a trap for a definer function": (
        "grant temporary on database wardkey to ward_tenant",
        "revoke temporary on database wardkey from ward_tenant",
    ),
}


@pytest.mark.parametrize("attack", _WEAKENED)
def test_a_weakened_server_is_not_said_to_hold(
    shown: Wardkey, admin: psycopg.Connection[tuple[object, ...]], attack: str
) -> None:
    scene = attacks.scene(*_wards(shown, admin), admin)
    weaken, mend = _WEAKENED[attack]
    admin.execute(weaken)
    admin.commit()
    try:
        outcomes = list(attacks.run(scene))
    finally:
        admin.execute(mend)
        admin.commit()
    assert {outcome.attack for outcome in outcomes if not outcome.held} == {attack}


def test_interrupted_load_leaves_clinics_whole_or_empty(
    cluster: Cluster, new_home: Callable[[], Home]
) -> None:
    home = new_home()
    wardkey = Wardkey(home.path)
    wardkey("migrate", code=3)
    wardkey("up")
    wardkey("migrate")
    options = ("demo", "--json", "--tenants", "3", "--patients-per-tenant", "150")
    running = subprocess.Popen(
        wardkey.command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    busy = "select count(*) from pg_stat_activity where query ~* '^copy' and state = 'active'"
    with psycopg.connect(Cluster(home).dsn(), autocommit=True) as admin:
        for _ in range(600):
            if admin.execute(busy).fetchone() != (0,):
                break
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
        assert running.returncode == 130, errors
        assert "Traceback" not in errors
        cluster_, (issuer, _) = Cluster(home), embedded_issuer(admin, home)
        wards = [load.provision(cluster_, admin, issuer, slug) for slug in data.slugs(3)]
        counts = [load.counts(admin, ward) for ward in wards]
    whole = [data.clinic(number, 150).counts for number in range(3)]
    assert all(count in (want, dict.fromkeys(want, 0)) for count, want in zip(counts, whole, strict=True))
    assert counts != whole
    facts = wardkey.json(*options[:1], *options[2:])
    assert list(facts["clinics"]["counts"].values()) == whole
    read = facts["summaries"]
    assert read["systems"] == 3 and read["hidden"] == read["cells"] - read["shown"] > 0
    assert 0 < _diabetics(range(3), 150) < 11 and not any(
        one["measure"] == "diabetes" for one in read["totals"]
    )
    assert wardkey.json(*options[:1], *options[2:])["summaries"] == read


def _diabetics(numbers: range, patients: int) -> int:
    """Return how many of the clinics' patients are alive and have diabetes."""
    alive, ill = set(), set()
    for number in numbers:
        tables = data.clinic(number, patients).tables
        for row in (dict(zip(data.COLUMNS["patients"], row, strict=True)) for row in tables["patients"]):
            alive |= {row["id"]} if not row["deceased"] else set()
        for row in (dict(zip(data.COLUMNS["conditions"], row, strict=True)) for row in tables["conditions"]):
            ill |= {row["patient_id"]} if row["code"] == "44054006" else set()
    return len(alive & ill)


def test_dsn_is_refused(shown: Wardkey) -> None:
    assert "embedded server only" in shown("--dsn", "host=/nowhere", "demo", code=2).stderr
