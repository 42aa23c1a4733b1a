"""What ``wardkey keys`` does, says and refuses."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.embedded import Cluster

from .wards import Ward, make_ward

Run = Callable[..., subprocess.CompletedProcess[str]]


def _commands_of(database: Database) -> Run:
    def run(command: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        home = database.cluster.home.path
        return Wardkey(home)("keys", command, *arguments, "--dsn", database.dsn(), code=code)

    return run


@pytest.fixture
def keys(ward: Ward) -> Run:
    """Run a command of this test's database."""
    return _commands_of(ward.database)


@pytest.fixture(scope="module")
def refusing_keys(cluster: Cluster, template: str) -> Iterator[Run]:
    """The same for commands that are refused: one database for all."""
    with clone(cluster, template) as database:
        yield _commands_of(database)


def facts(keys: Run, *arguments: str, code: int = 0) -> Any:
    return json.loads(keys(*arguments, "--json", code=code).stdout)


def test_rotate_reseals_and_says_how_fast(keys, ward):
    shown = keys("rotate", ward.slug, "--reason", "key year").stdout
    assert f"{ward.slug}: version 2 is active" in shown
    assert "500 rows" in shown
    assert "retired: 1" in shown
    assert ward.is_whole()


def test_facts_of_a_rotation(keys, ward):
    rotated, resealed = facts(keys, "rotate", ward.slug, "--reason", "key year", "--rate", "0")
    assert (rotated["state"], rotated["version"], rotated["reason"]) == ("done", 2, "key year")
    assert (resealed["state"], resealed["rows"], resealed["fields"], resealed["retired"]) == (
        "finished",
        500,
        ward.fields(),
        [1],
    )


def test_no_reseal_leaves_it_to_reseal(keys, ward):
    keys("rotate", ward.slug, "--reason", "x", "--no-reseal")
    assert ward.states() == {1: "decrypt-only", 2: "active"}
    refused = keys("rotate", ward.slug, "--reason", "x", code=1).stdout
    assert "WK213" in refused
    assert f"wardkey keys reseal {ward.slug}" in refused
    keys("reseal", ward.slug)
    assert ward.is_whole()


def test_pause_and_resume(keys, ward):
    keys("rotate", ward.slug, "--reason", "x", "--no-reseal")
    keys("pause", ward.slug)
    paused = keys("reseal", ward.slug, code=1).stdout
    assert f"wardkey keys resume {ward.slug}" in paused
    assert facts(keys, "status", ward.slug)["rotation"]["paused"] is True
    keys("resume", ward.slug)
    keys("reseal", ward.slug)
    assert ward.is_whole()


def test_status_counts_values_under_each_version(keys, ward):
    keys("rotate", ward.slug, "--reason", "x", "--no-reseal")
    status = facts(keys, "status", ward.slug, "--count")
    assert [(row["version"], row["state"], row["fields"]) for row in status["versions"]] == [
        (1, "decrypt-only", ward.fields()),
        (2, "active", 0),
    ]
    assert status["due"] == ["reseal: a rotation is not finished"]
    text = keys("status", ward.slug, "--count").stdout
    assert "decrypt-only" in text
    assert "under way since" in text


def test_list_shows_ages_and_what_is_due(keys, ward):
    _age(ward, 400)
    (row,) = [row for row in facts(keys, "list") if row["slug"] == ward.slug]
    assert (row["version"], row["age_days"], row["kek_age_days"]) == (1, 400, 400)
    assert [text.partition(":")[0] for text in row["due"]] == ["rewrap", "rotate"]
    assert ward.slug in keys("list").stdout


def test_due_does_all_that_is_due_and_nothing_when_called_again(keys, ward):
    _age(ward, 400)
    done = facts(keys, "rotate", "--due")
    assert [(row["action"], row["state"]) for row in done] == [
        ("rewrap", "done"),
        ("rotate", "done"),
        ("reseal", "finished"),
    ]
    assert ward.is_whole()
    assert facts(keys, "rotate", "--due") == []
    ward.query(
        "update ward_internal.tenant_keys set retired_at = retired_at - interval '31 days' returning version"
    )
    assert [row["action"] for row in facts(keys, "destroy", "--due")] == ["destroy"]
    assert ward.states() == {1: "destroyed", 2: "active"}


def test_due_goes_on_with_an_unfinished_rotation(keys, ward):
    ward.rotate()
    assert [row["action"] for row in facts(keys, "rotate", "--due")] == ["reseal"]
    assert ward.is_whole()


def test_tenant_that_asks_is_rotated(keys, ward):
    assert facts(keys, "rotate", "--requested") == []
    with ward.tenant() as connection:
        connection.execute("select ward.request_rotation('a laptop was stolen')")
    assert facts(keys, "status", ward.slug)["request"] == "a laptop was stolen"
    rotated, _ = facts(keys, "rotate", "--requested")
    assert rotated["reason"] == "requested: a laptop was stolen"
    assert facts(keys, "rotate", "--requested") == []


def test_who_accessed_a_key_has_it_rotated_and_nobody_elses(keys, ward):
    other = make_ward(ward.database, 5)
    for each, subject in ((ward, "mallory.reads.keys"), (other, "victor")):
        with each.database.tenant(each.slug, subject=subject, role="ADMIN") as connection:
            connection.execute("select name from patients limit 1")
    assert facts(keys, "rotate", "--accessed-by", "mallory.reads.keys.in.law") == []
    rotated, _ = facts(keys, "rotate", "--accessed-by", "mallory.reads.keys", "--since", "1h")
    assert (rotated["slug"], rotated["reason"]) == (ward.slug, "accessed by mallory.reads.keys")
    assert other.states() == {1: "active"}
    # what was released is not active any more
    assert facts(keys, "rotate", "--accessed-by", "mallory.reads.keys", "--since", "1h") == []


def test_token_by_its_id(keys, ward):
    token = ward.database.token(ward.slug)
    with ward.database.tenant(ward.slug) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [token])
        connection.execute("select name from patients limit 1")
    payload = base64.urlsafe_b64decode(token.split(".")[1] + "==")
    rotated, _ = facts(keys, "rotate", "--accessed-by", json.loads(payload)["jti"])
    assert rotated["slug"] == ward.slug


def test_incident_rotates_while_a_rotation_is_under_way(keys, ward):
    ward.rotate()
    keys("rotate", ward.slug, "--reason", "leak", "--incident")
    assert ward.states() == {1: "retired", 2: "retired", 3: "active"}


def test_rewrap_destroy_and_readmit(keys, ward):
    keys("rewrap", ward.slug)
    assert facts(keys, "status", ward.slug)["kek_version"] == "2"
    keys("rotate", ward.slug, "--reason", "x")
    assert "WK214" in keys("destroy", ward.slug, "--version", "1", code=1).stdout
    keys("readmit", ward.slug, "--version", "1", "--reason", "rows restored")
    keys("reseal", ward.slug)
    shown = keys("destroy", ward.slug, "--version", "1", "--now", "--old-keks").stdout
    assert f"{ward.slug}: version 1 destroyed" in shown
    assert "version 1 of local:" in shown
    assert ward.read() == ward.rows


def test_retire_says_what_holds_a_version(keys, ward):
    ward.rotate()
    assert "resealing has not begun" in keys("retire", ward.slug, code=1).stdout


def test_trouble_with_one_is_told_and_the_others_are_done(keys, ward):
    other = make_ward(ward.database, 5)
    ward.rotate()
    rows = facts(keys, "rotate", ward.slug, other.slug, "--reason", "x", code=1)
    assert {(row["slug"], row["state"]) for row in rows} == {
        (ward.slug, "refused"),
        (other.slug, "done"),
        (other.slug, "finished"),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["rotate"],
        ["rotate", "acme"],  # no reason
        ["rotate", "acme", "--all", "--reason", "x"],
        ["rotate", "--due", "--master"],
        ["rotate", "--due", "--since", "7d"],
        ["rotate", "--accessed-by", "me", "--since", "yesterday"],
        ["reseal"],
        ["rewrap"],
        ["rewrap", "acme", "--master"],
        ["destroy"],
        ["destroy", "acme"],
        ["destroy", "--due", "--now"],
        ["readmit", "acme", "--reason", "x"],
    ],
)
def test_wrong_usage_is_2(refusing_keys, arguments):
    assert refusing_keys(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        (["status", "nobody"], "WK203"),
        (["rotate", "nobody", "--reason", "x"], "WK203"),
        (["pause", "acme"], "WK204"),
        (["readmit", "acme", "--version", "1", "--reason", "x"], "WK204"),
    ],
)
def test_refusals_have_a_code_and_a_hint(refusing_keys, arguments, sqlstate):
    error = json.loads(refusing_keys(*arguments, "--json", code=1).stderr)
    assert error["sqlstate"] == sqlstate
    assert error["hint"]


def _age(ward: Ward, days: int) -> None:
    ward.query(
        "update ward_internal.tenant_keys set created_at = created_at - make_interval(days => %s),"
        " wrapped_at = wrapped_at - make_interval(days => %s)"
        " where tenant_id = (select id from ward_internal.tenants where slug = '{slug}') returning version",
        days,
        days,
    )
