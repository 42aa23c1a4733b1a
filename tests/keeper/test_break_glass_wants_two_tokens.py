"""Break-glass is granted on two tokens, which the keeper itself checks: whatever the database says."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from wardkey_core.administration import Unsupported
from wardkey_core.errors import GrantRefused, InvalidToken, WardError
from wardkey_core.tokens import Claims

from tests.support.keepers import ACME, GLOBEX, Keeper
from wardkey.keeper.grants import LONGEST_MINUTES, REQUEST_SECONDS, Grant, Grants, SteadyClock

REASON, OTHER = "1" * 64, "2" * 64
CLASSES = ["identifier", "note"]


def ask(
    keeper: Keeper, action: str, subject: str, role: str, tenant: str = ACME, **members: Any
) -> dict[str, Any]:
    token = keeper.issuer.sign_token(tenant, subject, role)
    return keeper.ask(**{"op": "grant", "tenant": tenant, "action": action, "token": token, **members})


def request(keeper: Keeper, subject: str = "dr.grey", role: str = "ANALYST", **members: Any) -> str:
    made = str(uuid4())
    asked = {"id": made, "classes": CLASSES, "minutes": 30, "reason": REASON, **members}
    ask(keeper, "request", subject, role, **asked)
    return made


def approve(
    keeper: Keeper, made: str, subject: str = "chief", role: str = "ADMIN", **members: Any
) -> dict[str, Any]:
    return ask(keeper, "approve", subject, role, **{"id": made, "reason": REASON, **members})


def test_a_second_admin_grants_what_was_asked(shared_keeper: Keeper) -> None:
    made = request(shared_keeper)
    granted = approve(shared_keeper, made)
    assert granted["state"] == "started"
    assert granted["until"] == granted["started_at"] + 30 * 60
    assert approve(shared_keeper, made) == granted  # as a backend repeats what was not answered
    lines = [line for line in shared_keeper.log_lines() if line.get("grant") == made]
    assert [(line["op"], line["subject"]) for line in lines[:2]] == [
        ("grant request", "dr.grey"),
        ("grant approve", "chief"),
    ]
    assert ask(shared_keeper, "end", "dr.grey", "ANALYST", id=made)["state"] == "ended"
    with pytest.raises(GrantRefused, match="was ended"):  # replayed
        approve(shared_keeper, made)


def test_nobody_else_approves(shared_keeper: Keeper) -> None:
    made = request(shared_keeper)
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"subject": "dr.grey"}, "own request"),  # with a token of the other role that he has
        ({"role": "EVALUATOR"}, "ADMIN of the tenant"),
        ({"role": "SUPER_ADMIN"}, "ADMIN of the tenant"),
        ({"tenant": GLOBEX}, "no such request"),
        ({"id": str(uuid4())}, "no such request"),
        ({"reason": OTHER}, "another reason"),
        ({"token": shared_keeper.issuer.sign_token(GLOBEX, "chief", "ADMIN")}, "another tenant"),
    ]
    for members, said in refusals:
        with pytest.raises(GrantRefused, match=said):
            approve(shared_keeper, made, **{"subject": "chief", **members})
    forged = shared_keeper.issuer.sign_token(ACME, "chief", "ADMIN")[:-8] + "AAAAAAAA"
    with pytest.raises(InvalidToken):
        approve(shared_keeper, made, token=forged)
    with pytest.raises(GrantRefused):
        ask(shared_keeper, "deny", "dr.grey", "ANALYST", id=made)
    assert approve(shared_keeper, made)["state"] == "started"
    with pytest.raises(GrantRefused, match="was granted"):
        ask(shared_keeper, "deny", "chief", "ADMIN", id=made)


def test_a_token_approves_one_request(shared_keeper: Keeper) -> None:
    """One that was caught where it passed approves nothing of its catcher's."""
    token = shared_keeper.issuer.sign_token(ACME, "chief", "ADMIN")
    approve(shared_keeper, request(shared_keeper), token=token)
    with pytest.raises(GrantRefused, match="another request"):
        approve(shared_keeper, request(shared_keeper), token=token)


def test_of_two_approvals_at_once_one_holds(shared_keeper: Keeper) -> None:
    made = request(shared_keeper)

    def one(subject: str) -> str:
        try:
            return str(approve(shared_keeper, made, subject)["state"])
        except WardError as error:
            return error.sqlstate

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(one, [f"chief{number}" for number in range(8)]))
    assert outcomes == ["WK245"] * 7 + ["started"]


def test_without_an_approver_the_tenant_decides(shared_keeper: Keeper) -> None:
    with pytest.raises(GrantRefused, match="wants an approver"):
        request(shared_keeper, emergency=True)
    with pytest.raises(GrantRefused, match="ADMIN of the tenant"):
        ask(shared_keeper, "allow", "dr.grey", "ANALYST")
    ask(shared_keeper, "allow", "chief", "ADMIN")
    made = str(uuid4())
    asked = {"id": made, "classes": CLASSES, "minutes": 30, "reason": REASON, "emergency": True}
    assert ask(shared_keeper, "request", "dr.grey", "ANALYST", **asked)["state"] == "started"
    with pytest.raises(GrantRefused, match="SUPER_ADMIN"):
        request(shared_keeper, role="SUPER_ADMIN", emergency=True)
    with pytest.raises(GrantRefused, match="wants an approver"):
        ask(shared_keeper, "request", "dr.grey", "ANALYST", GLOBEX, **{**asked, "id": str(uuid4())})
    ask(shared_keeper, "forbid", "chief", "ADMIN")
    with pytest.raises(GrantRefused, match="wants an approver"):
        request(shared_keeper, emergency=True)


def test_what_is_no_request_is_refused(shared_keeper: Keeper) -> None:
    good = {"id": str(uuid4()), "classes": CLASSES, "minutes": 30, "reason": REASON}
    for wrong in (
        {"minutes": 0},
        {"minutes": LONGEST_MINUTES + 1},
        {"classes": []},
        {"classes": ["No Class"]},
        {"reason": "because"},
        {"id": "not an id"},
    ):
        with pytest.raises(Unsupported):
            ask(shared_keeper, "request", "dr.grey", "ANALYST", **{**good, **wrong})
    with pytest.raises(Unsupported):
        ask(shared_keeper, "approve", "chief", "ADMIN", id=good["id"])
    with pytest.raises(GrantRefused, match="approves"):
        request(shared_keeper, role="ADMIN")
    made = request(shared_keeper)
    with pytest.raises(GrantRefused, match="of that id"):
        ask(shared_keeper, "request", "dr.grey", "ANALYST", **{**good, "id": made, "minutes": 31})


def test_the_ledger_outlives_the_keeper(keeper: Keeper) -> None:
    made, denied = request(keeper), request(keeper)
    until = approve(keeper, made)["until"]
    ask(keeper, "deny", "chief", "ADMIN", id=denied)
    keeper.stop()
    ledger = keeper.directory / "grants.jsonl"
    assert "dr.grey" in ledger.read_text() and ledger.stat().st_mode & 0o777 == 0o600
    keeper.start()
    assert approve(keeper, made)["until"] == until
    with pytest.raises(GrantRefused, match="was denied"):
        approve(keeper, denied)
    keeper.stop()
    with ledger.open("a") as file:
        file.write(json.dumps({"what": "started", "time": 0, "issuer": "", "subject": ""}) + "\n")
    assert keeper.launch().wait(10) != 0
    assert "line 5" in keeper.errors


# The clock, on the ledger itself

TENANT = UUID(ACME)
DOCTOR = Claims("issuer", "dr.grey", ACME, "ANALYST", 0.0, 0.0, "1")
CHIEF = Claims("issuer", "chief", ACME, "ADMIN", 0.0, 0.0, "2")


class Wall:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(SteadyClock.__init__, "__defaults__", (wall,))
    return wall


def started(grants: Grants) -> Grant:
    made = grants.request(uuid4(), TENANT, DOCTOR, CLASSES, 30, REASON, emergency=False)
    return grants.approve(made.id, TENANT, CHIEF, REASON)


def active(grants: Grants) -> Grant | None:
    return grants.active(TENANT, DOCTOR)


def test_a_grant_ends_in_time(tmp_path: Path, wall: Wall) -> None:
    grants = Grants(tmp_path / "grants.jsonl", print)
    grant = started(grants)
    assert active(grants) == grant
    wall.now += 29 * 60
    assert active(grants) == grant
    wall.now += 2 * 60
    assert active(grants) is None


def test_a_request_expires(tmp_path: Path, wall: Wall) -> None:
    grants = Grants(tmp_path / "grants.jsonl", print)
    made = grants.request(uuid4(), TENANT, DOCTOR, CLASSES, 30, REASON, emergency=False)
    wall.now += REQUEST_SECONDS
    with pytest.raises(GrantRefused, match="expired"):
        grants.approve(made.id, TENANT, CHIEF, REASON)


def test_a_clock_set_back_prolongs_nothing(tmp_path: Path, wall: Wall) -> None:
    grants = Grants(tmp_path / "grants.jsonl", print)
    started(grants)
    wall.now += 31 * 60
    assert active(grants) is None
    wall.now -= 31 * 60
    assert active(grants) is None
    grants.request(uuid4(), TENANT, DOCTOR, CLASSES, 30, REASON, emergency=False)
    assert active(Grants(tmp_path / "grants.jsonl", print)) is None  # nor does a restart
