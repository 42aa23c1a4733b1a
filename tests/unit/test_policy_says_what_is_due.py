"""What ``--due`` would do: each rule, one day before it applies and when it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from wardkey.keys.policy import Due, Key, Policy, TenantKeys, destroyable, due, kek_in_use_since

NOW = datetime(2026, 6, 1, tzinfo=UTC)
POLICY = Policy()


def key(version: int = 1, state: str = "active", age: int = 1, **more: object) -> Key:
    made = NOW - timedelta(days=age)
    values = {"kek": "local:x", "kek_version": "1", "created_at": made, "wrapped_at": made, **more}
    return Key(version, state, **values)


def actions(*keys: Key, **tenant: object) -> list[tuple[str, int | None]]:
    facts = TenantKeys(**{"id": UUID(int=10), "slug": "acme", "keys": keys, **tenant})
    return [(step.action, step.version) for step in due(facts, POLICY, NOW)]


def test_nothing_is_due_for_a_young_key():
    assert actions(key()) == []


@pytest.mark.parametrize(("age", "rotated"), [(364, []), (365, [("rotate", 1)]), (900, [("rotate", 1)])])
def test_key_is_rotated_at_the_end_of_its_cryptoperiod(age, rotated):
    assert actions(key(age=age, wrapped_at=NOW)) == rotated


@pytest.mark.parametrize(("fields", "rotated"), [(2**31 - 1, []), (2**31, [("rotate", 1)])])
def test_key_is_rotated_before_it_has_sealed_too_much(fields, rotated):
    assert actions(key(), fields=fields) == rotated


def test_key_is_rotated_when_the_tenant_asks():
    (step,) = due(TenantKeys(UUID(int=10), "acme", [key()], request="a laptop is lost"), POLICY, NOW)
    assert step == Due("rotate", "requested: a laptop is lost", 1)


@pytest.mark.parametrize(("age", "rewrapped"), [(364, []), (365, [("rewrap", None)])])
def test_kek_is_rotated_at_the_end_of_its_own_cryptoperiod(age, rewrapped):
    assert actions(key(created_at=NOW - timedelta(days=1), age=age)) == rewrapped


def test_new_key_under_an_old_kek_does_not_make_the_kek_young():
    old = key(1, "destroyed", age=400)
    assert kek_in_use_since([old, key(2, age=3)]) == old.wrapped_at
    assert actions(old, key(2, age=3)) == [("rewrap", None)]


def test_rewrapped_key_is_under_a_young_kek():
    keys = key(1, "destroyed", age=400), key(2, age=300, kek_version="2", wrapped_at=NOW - timedelta(days=2))
    assert actions(*keys) == []


def test_rewrap_comes_before_rotation_so_that_the_new_key_is_under_the_new_kek():
    assert actions(key(age=400)) == [("rewrap", None), ("rotate", 1)]


def test_interrupted_resealing_continues_unless_paused():
    keys = key(1, "decrypt-only", age=9), key(2, "decrypt-only", age=5), key(3)
    assert actions(*keys) == [("reseal", None)]
    assert actions(*keys, paused=True) == []


def test_rotation_is_finished_before_another_is_begun():
    assert actions(key(1, "decrypt-only", wrapped_at=NOW), key(2, age=500, wrapped_at=NOW)) == [
        ("reseal", None)
    ]


@pytest.mark.parametrize(("days", "destroyed"), [(29, []), (30, [("destroy", 1)])])
def test_retired_key_is_destroyed_after_the_grace(days, destroyed):
    assert actions(key(1, "retired", retired_at=NOW - timedelta(days=days)), key(2)) == destroyed


@pytest.mark.parametrize("state", ["active", "decrypt-only", "destroyed"])
def test_key_of_another_state_is_never_destroyed(state):
    assert destroyable([key(1, state, retired_at=NOW - timedelta(days=999))], POLICY, NOW) == []


def test_tenant_without_an_active_key_is_not_rotated():
    assert actions(key(1, "destroyed", age=999)) == []


def test_derived_key_has_no_kek_of_its_own():
    assert actions(key(age=400, kek="master"), mode="derived") == [("rotate", 1)]


def test_master_secret_has_no_rows_to_reseal():
    keys = key(1, "decrypt-only", age=500), key(2, age=400)
    assert actions(*keys, slug=None, mode="master") == [("rewrap", None), ("rotate", 2)]
    assert actions(key(1, "decrypt-only"), key(2), slug=None, mode="master") == []
