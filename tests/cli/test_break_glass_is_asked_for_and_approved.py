"""The commands of break-glass: each step is somebody's, with a token of his own; operators look on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from wardkey.embedded import Cluster

SLUG = "breakglass"


@pytest.fixture
def wardkey(cluster: Cluster) -> Iterator[Wardkey]:
    wardkey = Wardkey(cluster.home.path)
    wardkey("tenant", "create", SLUG)
    yield wardkey
    wardkey("tenant", "drop", SLUG, "--yes", SLUG, "--force")


def test_a_request_is_approved_ended_and_listed(wardkey: Wardkey) -> None:
    glass = ("access", "break-glass")
    doctor = ("--tenant", SLUG, "--subject", "dr.grey", "--role", "ANALYST")
    chief = ("--tenant", SLUG, "--subject", "chief")
    made = wardkey.json(*glass, "request", *doctor, "--reason", "unconscious", "--class", "identifier")
    assert (made["state"], made["classes"], made["minutes"]) == ("requested", ["identifier"], 60)
    own = wardkey(*glass, "approve", made["id"], "--tenant", SLUG, "--subject", "dr.grey", code=1)
    assert "nobody approves his own request" in own.stderr
    assert wardkey.json(*glass, "approve", made["id"], *chief)["approver"] == "chief"
    assert wardkey.json(*glass, "end", made["id"], *doctor)["closed_by"] == "dr.grey"
    late = wardkey(*glass, "deny", made["id"], *chief, code=0)
    assert "ended" in late.stdout  # nothing changes
    (row,) = wardkey.json(*glass, "list", "--tenant", SLUG)
    assert (row["state"], row["subject"], row["approver"]) == ("ended", "dr.grey", "chief")


def test_an_emergency_is_due_for_review(wardkey: Wardkey, cluster: Cluster) -> None:
    glass = ("access", "break-glass")
    doctor = ("--tenant", SLUG, "--subject", "dr.grey", "--role", "VIEWER", "--reason", "unconscious")
    chief = ("--tenant", SLUG, "--subject", "chief")
    refused = wardkey(*glass, "request", *doctor, "--emergency", code=1)
    assert "wants an approver" in refused.stderr
    wardkey(*glass, "allow", *chief, "--unapproved")
    assert "to be reviewed" in wardkey(*glass, "request", *doctor, "--emergency").stdout
    (row,) = wardkey.json(*glass, "list", "--tenant", SLUG)
    due = wardkey.json("doctor", code=4)
    assert [one["outcome"] for one in due if one["check"] == "break-glass-reviewed"] == ["warn"]
    wardkey(*glass, "review", row["id"], *chief, "--finding", "right and proper")
    with psycopg.connect(cluster.dsn()) as admin:
        query = "select finding from ward.break_glass_grants where id = %s"
        assert admin.execute(query, [row["id"]]).fetchone() == ("right and proper",)


def test_somebody_has_to_say_who_he_is(wardkey: Wardkey, tmp_path: Path) -> None:
    request = ("access", "break-glass", "request", "--tenant", SLUG, "--reason", "r")
    assert "who are you?" in wardkey(*request, code=2).stderr
    token = tmp_path / "token"
    token.write_text(wardkey("token", "--tenant", SLUG, "--subject", "nurse", "--role", "VIEWER").stdout)
    assert wardkey.json(*request, "--token", str(token))["subject"] == "nurse"
