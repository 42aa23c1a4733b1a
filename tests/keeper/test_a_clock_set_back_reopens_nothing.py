"""A keeper that starts again under a clock that was set back counts, and grants, as it did before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from tests.support.clocks import clock_off
from tests.support.keepers import ACME, Keeper

from .test_break_glass_wants_two_tokens import approve, request
from .test_leases_are_counted_by_the_keeper import LIMIT, allow, lease, lease_all

DAY = 86_400
At = Callable[[int], Keeper]


@pytest.fixture
def at(new_keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    """Start the keeper again at a clock that is off by some seconds, as that of who makes tokens is then."""
    now = time.time

    def start(off: int) -> Keeper:
        if new_keeper.process is not None:
            new_keeper.stop()
        monkeypatch.setattr("time.time", lambda: now() + off)
        with clock_off(off):
            return new_keeper.start()

    yield start


def test_a_budget_that_is_used_up_stays_so(at: At) -> None:
    keeper = at(0)
    allow(keeper)
    assert lease_all(keeper, "dr.grey") == LIMIT
    assert lease(at(-DAY), "dr.grey")["rows"] == 0
    assert lease(at(601), "dr.grey")["rows"] == 4  # a window lasts ten minutes
    keeper = at(0)
    assert 4 + lease_all(keeper, "dr.grey") == LIMIT
    assert lease(at(-DAY), "dr.grey")["rows"] == 0


def test_a_grant_that_is_over_stays_so(at: At) -> None:
    keeper = at(0)
    key = keeper.key()

    def sees(keeper: Keeper) -> bool:
        token = keeper.issuer.sign_token(ACME, "dr.grey", "ANALYST")
        answer = keeper.ask(op="release", tenant=ACME, token=token, classes=["identifier"], **key)
        return "identifier" in answer["classes"]

    assert not sees(keeper)
    approve(keeper, request(keeper, minutes=30))
    assert sees(keeper) and sees(at(-DAY)) and sees(at(29 * 60))
    keeper = at(31 * 60)
    assert not sees(keeper)
    request(keeper, id=str(uuid4()))  # a line of the ledger: it shows that time has passed
    assert not sees(at(0)) and not sees(at(-DAY))
