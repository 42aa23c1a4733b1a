"""The keeper counts what is leased, on tokens that it checks itself, and across its own restarts."""

from __future__ import annotations

import signal
from typing import Any
from uuid import UUID, uuid4

import pytest
from wardkey_core import wire
from wardkey_core.administration import UnknownObject, Unsupported
from wardkey_core.errors import InvalidToken, KeyRefused, LoginsEnded, WardError

from tests.support.keepers import ACME, GLOBEX, Keeper, is_root, stranger_asks
from wardkey.keeper.budgets import BUDGETS_FILE, Budget, write_budgets

MODEL, OTHER = UUID(int=7), UUID(int=8)
LIMIT = 64


def allow(keeper: Keeper, rows: int = LIMIT, *, distinct: bool = False) -> None:
    made = [Budget(UUID(each), "VIEWER", MODEL, rows, distinct, 600) for each in (ACME, GLOBEX)]
    write_budgets(keeper.directory / BUDGETS_FILE, made)


def lease(keeper: Keeper, subject: str, tenant: str = ACME, **members: Any) -> dict[str, Any]:
    token = members.pop("token", None) or keeper.issuer.sign_token(tenant, subject, "VIEWER")
    return keeper.ask(**wire.lease(tenant, str(members.pop("model", MODEL)), token, **members))


def lease_all(keeper: Keeper, subject: str) -> int:
    rows = 0
    while made := lease(keeper, subject)["rows"]:
        rows += made
    return rows


def test_leases_add_up_to_the_budget_and_outlive_the_keeper(keeper: Keeper) -> None:
    allow(keeper)
    first = lease(keeper, "dr.grey")
    assert (first["rows"], first["limit"], first["salt"]) == (4, LIMIT, "")
    keeper.stop(signal.SIGKILL)
    keeper.start()
    settled = wire.settled(first["lease"], 1, [])
    again = lease(keeper, "dr.grey", settled=settled)
    assert again["rows"] == 3 and 1 + again["rows"] + lease_all(keeper, "dr.grey") == LIMIT
    keeper.stop()
    keeper.start()
    used_up = lease(keeper, "dr.grey")
    assert (used_up["rows"], used_up["alert"]) == (0, None)  # that was told before
    file = keeper.directory / "counters.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert lease(keeper, "dr.house")["rows"] == 4 and lease(keeper, "dr.grey", GLOBEX)["rows"] == 4
    keeper.stop()
    with file.open("a") as stream:
        stream.write('{"what": "leased"}\n')
    assert keeper.launch().wait(10) != 0 and "is damaged" in keeper.errors


def test_a_release_says_which_tables_have_a_budget(keeper: Keeper) -> None:
    request = keeper.provision()
    assert "budgets" not in keeper.ask(**request)
    allow(keeper)
    assert keeper.ask(**request)["budgets"] == [str(MODEL)]
    admin = {**request, "token": keeper.issuer.sign_token(ACME, "chief", "ADMIN")}
    assert "budgets" not in keeper.ask(**admin)
    (keeper.directory / BUDGETS_FILE).write_text("rubbish")
    with pytest.raises(KeyRefused, match="budgets"):
        keeper.ask(**request)


def test_nobody_counts_for_another(shared_keeper: Keeper) -> None:
    allow(shared_keeper)
    with pytest.raises(KeyRefused, match="another tenant"):
        lease(shared_keeper, "x", token=shared_keeper.issuer.sign_token(GLOBEX, "x", "VIEWER"))
    with pytest.raises(InvalidToken):
        lease(shared_keeper, "x", token=shared_keeper.token()[:-8] + "AAAAAAAA")
    assert lease(shared_keeper, "x", model=OTHER)["limit"] == 0  # of which there is no budget
    mine = lease(shared_keeper, "thrifty")
    shared_keeper.ask(**wire.settle(ACME, wire.settled("0" * 32, 0, [])))  # not a lease: gives nothing back
    assert spent(shared_keeper, "thrifty") == 4
    shared_keeper.ask(**wire.settle(ACME, wire.settled(mine["lease"], 0, [])))
    assert spent(shared_keeper, "thrifty") == 0


def spent(keeper: Keeper, subject: str) -> int:
    windows = keeper.ask(**wire.usage(ACME))["windows"]
    return next(each["spent"] for each in windows if each["subject"] == subject)


def test_distinct_rows_are_known_by_digests_under_a_salt(keeper: Keeper) -> None:
    allow(keeper, 2, distinct=True)
    seen = [b"12345678", b"abcdefgh"]
    first = lease(keeper, "x")
    second = lease(keeper, "x", settled=wire.settled(first["lease"], 1, seen[:1]))
    assert first["salt"] == second["salt"] != ""
    keeper.ask(**wire.settle(ACME, wire.settled(second["lease"], 1, seen[1:])))
    assert [lease(keeper, "x", row=row)["known"] for row in (*seen, b"ijklmnop")] == [True, True, False]
    keeper.stop()
    keeper.start()
    assert [lease(keeper, "x", row=row)["known"] for row in (*seen, b"ijklmnop")] == [True, True, False]
    assert lease(keeper, "y")["salt"] != first["salt"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"settled": {"lease": "0" * 32, "used": -1, "seen": []}},
        {"settled": {"lease": "0" * 32, "used": 501, "seen": []}},
        {"settled": {"lease": "x", "used": 1, "seen": []}},
        {"settled": {"lease": "0" * 32, "used": 1, "seen": ["AA=="]}},
        {"row": b"1234567"},
        {"model": "not an id"},
    ],
)
def test_what_is_no_lease_is_refused(shared_keeper: Keeper, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        lease(shared_keeper, "x", **wrong)


def test_a_lease_settled_with_more_than_it_was_of_is_refused(shared_keeper: Keeper) -> None:
    allow(shared_keeper)
    made = lease(shared_keeper, "greedy")
    with pytest.raises(Unsupported):
        shared_keeper.ask(**wire.settle(ACME, wire.settled(made["lease"], made["rows"] + 1, [])))


def test_who_was_ended_gets_nothing_until_somebody_lifts_that(keeper: Keeper) -> None:
    allow(keeper)
    request, told = keeper.provision(), keeper.socket.with_name(keeper.socket.name + wire.ENDED_SUFFIX)
    assert not told.exists()
    keeper.ask(**wire.logins(ACME, "end", token=keeper.token()))
    for _ in range(2):
        for refused in (lambda: keeper.ask(**request), lambda: lease(keeper, "dr.grey")):
            with pytest.raises(LoginsEnded):
                refused()
        assert lease(keeper, "dr.house")["rows"]
        assert len(told.read_text().splitlines()) == 1 and told.stat().st_mode & 0o777 == 0o644
        keeper.stop()
        told.unlink()
        keeper.start()
    issuer = keeper.issuer.document()["issuer"]
    (known,) = keeper.ask(**wire.logins(ACME, "list"))["subjects"]
    assert (known["subject"], known["issuer"]) == ("dr.grey", issuer)
    assert keeper.ask(**wire.logins(GLOBEX, "list"))["subjects"] == []
    keeper.ask(**wire.logins(ACME, "lift", issuer=issuer, subject="dr.grey"))
    assert keeper.ask(**request)["classes"] and told.read_text() == ""
    with pytest.raises(UnknownObject):
        keeper.ask(**wire.logins(ACME, "lift", issuer=issuer, subject="dr.grey"))
    for wrong in ({"action": "lift"}, {"action": "end"}, {"action": "list", "subject": "x"}):
        with pytest.raises(Unsupported):
            keeper.ask(op="logins", tenant=ACME, **wrong)


@pytest.mark.skipif(not is_root(), reason="asks as another OS user")
def test_only_operators_see_what_people_opened_and_let_them_in(new_keeper: Keeper) -> None:
    new_keeper.start("--allow-uid", "65534")
    new_keeper.base.chmod(0o755)
    new_keeper.socket.chmod(0o666)
    for request in (
        wire.usage(ACME),
        wire.logins(ACME, "list"),
        wire.logins(ACME, "lift", issuer="i", subject="s"),
    ):
        answer = stranger_asks(new_keeper, request)
        assert answer is not None and answer["sqlstate"] == "WK103"


def test_a_counter_that_cannot_be_written_leases_nothing(keeper: Keeper) -> None:
    allow(keeper)
    lease(keeper, "x")
    with (keeper.directory / "counters.jsonl").open("a") as file:
        file.write("{}\n")  # by somebody else
    with pytest.raises(WardError, match="cannot count"):
        lease(keeper, str(uuid4()))
