"""What the client does without a server: whose a token is, what is tried again, who may have a connection."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections import Counter

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import DeadlockDetected, SerializationFailure, UniqueViolation

from tests.support import tokens
from wardkey import retry, tenant_of
from wardkey.client import tokens as client_tokens
from wardkey.client.ledger import Ledger, Share, Waiter
from wardkey.errors import ContextStale, InvalidToken, KeeperBusy, KeysChanged, TokenExpired

QUICK = {"delay": 0.0}


def token(claims: object) -> str:
    payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


def test_tenant_is_the_slug_or_else_the_id():
    assert tenant_of(token({"tenant": "acme", "tenant_id": tokens.TENANT})) == "acme"
    assert tenant_of(token({"tenant_id": tokens.TENANT})) == tokens.TENANT


@pytest.mark.parametrize(
    "bad",
    [
        *("", "x", "a.b", "a.b.c.d", "a.!.c", "a.ä.c", "a..c", None, 7),
        *(token(claims) for claims in ([], None, {}, {"tenant": 7}, {"tenant": "a" * 9000})),
        "a." + urlsafe_b64encode(b"[" * 5000).decode() + ".c",
    ],
)
def test_what_is_no_token_has_no_tenant(bad):
    with pytest.raises(InvalidToken) as caught:
        tenant_of(bad)
    assert caught.value.__cause__ is caught.value.__context__ is None


class Transient:
    """Fails with ``error`` so many times."""

    def __init__(self, error: BaseException, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "done"


TRANSIENT = [SerializationFailure(), DeadlockDetected(), KeysChanged(), ContextStale(), KeeperBusy()]


@pytest.mark.parametrize("error", TRANSIENT, ids=lambda error: type(error).__name__)
def test_transient_errors_are_tried_again(error):
    work = Transient(error, 3)
    for attempt in retry(**QUICK):
        with attempt:
            work()
    assert work.calls == 4
    work = Transient(error, 3)
    assert retry(**QUICK)(work.__call__)() == "done"

    async def call() -> str:
        return work()

    async def block() -> None:
        async for attempt in retry(**QUICK):
            with attempt:
                work()

    work = Transient(error, 3)
    assert asyncio.run(retry(**QUICK)(call)()) == "done"
    work = Transient(error, 3)
    asyncio.run(block())
    assert work.calls == 4


@pytest.mark.parametrize(
    "error", [UniqueViolation(), TokenExpired(), psycopg.OperationalError(), ValueError()]
)
def test_other_errors_are_raised_at_once(error):
    work = Transient(error, 1)
    with pytest.raises(type(error)):
        retry(**QUICK)(work.__call__)()
    assert work.calls == 1


def test_the_last_attempt_raises():
    work = Transient(SerializationFailure(), 99)
    with pytest.raises(SerializationFailure):
        retry(3, **QUICK)(work.__call__)()
    assert work.calls == 3


def test_what_an_adapter_wrapped_is_seen():
    class Wrapped(Exception):
        orig = SerializationFailure()

    assert retry(**QUICK)(Transient(Wrapped(), 1).__call__)() == "done"
    caused = RuntimeError()
    caused.__cause__ = KeysChanged()
    assert retry(**QUICK)(Transient(caused, 1).__call__)() == "done"


def test_waits_are_drawn_below_a_bound_that_doubles():
    waits = [[retry(delay=0.1, max_delay=0.3)._wait(number) for _ in range(300)] for number in (1, 2, 3, 9)]
    for drawn, bound in zip(waits, (0.1, 0.2, 0.3, 0.3), strict=True):
        assert 0.9 * bound < max(drawn) <= bound
        assert min(drawn) < 0.1 * bound


def test_a_token_that_is_known_is_still_its_tenants(monkeypatch):
    monkeypatch.setattr(client_tokens, "_MAX_KNOWN", 3)
    monkeypatch.setattr(client_tokens, "_known", known := {})
    every = {token({"tenant": f"t{number}", "sub": "ann"}): f"t{number}" for number in range(8)}
    for _ in range(3):
        for each, tenant in every.items():
            assert tenant_of(each) == tenant
            assert len(known) <= 3
    assert not any(each in repr(known) for each in every)


WHAT = st.sampled_from(["sit", "sit", "sit", "rise", "leave"])
SEATS = st.lists(st.tuples(WHAT, st.integers(0, 3)), min_size=12, max_size=60)


@given(SEATS)
def test_seats_are_bounded_and_none_is_left_empty(steps):
    ledger, taken, waiting = Ledger(4, 2), [], []
    for what, number in steps:
        tenant = f"t{number}"
        if what == "sit":
            if ledger.sit(tenant):
                taken.append(tenant)
            else:
                ledger.queue(waiter := Waiter(tenant, None))
                waiting.append(waiter)
        elif what == "rise" and taken:
            gone = taken.pop(number % len(taken))
            if (woken := ledger.rise(gone)) is not None:
                assert woken is next(each for each in waiting if each.tenant == woken.tenant)
                waiting.remove(woken)
                taken.append(woken.tenant)
        elif what == "leave" and waiting:
            ledger.unqueue(waiting.pop(number % len(waiting)))
        counts = Counter(taken)
        assert len(taken) <= 4
        assert max(counts.values(), default=0) <= 2
        if len(taken) < 4:  # who waits does so for a seat of its tenant
            assert all(counts[each.tenant] == 2 for each in waiting)
        assert all(each.has_seat is False for each in waiting)


def test_seats_go_to_tenants_in_turn():
    ledger = Ledger(1, 1)
    assert ledger.sit("x")
    for tenant in ("greedy", "greedy", "greedy", "modest"):
        ledger.queue(Waiter(tenant, None))
    served, tenant = [], "x"
    while (waiter := ledger.rise(tenant)) is not None:
        served.append(tenant := waiter.tenant)
    assert served == ["greedy", "modest", "greedy", "greedy"]


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "retire", "idle", "closed"]), st.integers(0, 3))))
def test_shares_never_add_up_to_more_than_allowed(steps):
    ledger, out, closing = Ledger(4, 4), [], []
    every: set[Share] = set()
    for what, number in steps:
        if what == "take" and len(out) < 4:
            share = ledger.take(f"t{number}")
            if share is None:
                spare = ledger.retire()
                closing += [spare] if spare else []
                assert closing  # nobody waits for what nobody gives back
            else:
                out.append(share)
                every.add(share)
        elif what == "give" and out:
            ledger.give(out.pop(number % len(out)))
        elif what == "closed" and closing:
            ledger.closed(closing.pop())
        elif what in ("retire", "idle"):
            spare = ledger.retire() if what == "retire" else ledger.idle(since=float("inf"))
            closing += [spare] if spare else []
        assert sum(share.size for share in every) == ledger._total <= 4
        assert sum(share.out for share in every) == len(out)
        assert len({share.tenant for share in ledger.live()}) == len(ledger.live())
