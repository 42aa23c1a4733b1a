"""New versions, keys that derive from a master secret, KEKs that change: no key leaves the keeper for it."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pytest
from wardkey_core.administration import Unsupported
from wardkey_core.errors import CommitmentMismatch, KeyRefused, WardError

from tests.support.keepers import ACME, GLOBEX, Keeper

MASTER = str(UUID(int=0))
KEY = ("kek", "kek_version", "wrapped")


@pytest.fixture
def keeper(shared_keeper: Keeper) -> Keeper:
    return shared_keeper


def kept(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in KEY}


def test_a_version_is_made_under_the_kek_it_is_asked_for(keeper: Keeper) -> None:
    one = keeper.key()
    rotated = keeper.ask(op="kek", tenant=ACME, action="rotate")
    two = keeper.key(version=2)
    old = {"kek": one["kek"], "kek_version": one["kek_version"]}
    three = keeper.ask(op="provision", tenant=ACME, version=3, **old)
    assert rotated == {name: two[name] for name in ("kek", "kek_version")} != old
    assert old == {name: three[name] for name in old}
    deks = [keeper.class_key(key) for key in (one, two, three)]
    assert len(set(deks)) == 3
    for key in (one, two, three):
        with pytest.raises(KeyRefused):
            keeper.class_key({**key, "version": key["version"] + 1})


def test_a_key_derives_from_master_tenant_version_and_salt(keeper: Keeper) -> None:
    master = kept(keeper.key(MASTER, version=4))
    seen = set()
    for tenant, version in ((ACME, 1), (ACME, 2), (GLOBEX, 1)):
        made = keeper.ask(op="derive", tenant=tenant, version=version, master=4, **master)
        salt = {"master": 4, "salt": made["salt"], "commitment": made["commitment"]}
        dek = keeper.class_key({"version": version, **master, **salt}, tenant)
        assert len(base64.b64decode(made["salt"])) == 32
        seen.add(dek)
        with pytest.raises(CommitmentMismatch):
            keeper.class_key({"version": version + 1, **master, **salt}, tenant)
    assert len(seen) == 3


def test_the_master_is_released_to_nobody(keeper: Keeper) -> None:
    key = keeper.key(MASTER, version=5)
    for tenant, wrapped_for in ((MASTER, MASTER), (ACME, MASTER)):
        token = keeper.token(tenant)
        with pytest.raises(WardError):
            keeper.ask(op="release", tenant=wrapped_for, token=token, classes=["clinical"], **key)
    with pytest.raises(KeyRefused):  # as if it were the tenant's own key
        keeper.class_key(key)
    with pytest.raises(KeyRefused):  # another version of it
        keeper.class_key({**key, "version": 1, "master": 6, "salt": base64.b64encode(bytes(32)).decode()})


def test_rewrapping_changes_the_kek_and_not_the_key(keeper: Keeper) -> None:
    for tenant in (ACME, MASTER):
        key = keeper.key(tenant, version=6)
        rotated = keeper.ask(op="kek", tenant=tenant, action="rotate")
        calls = keeper.status()["kms_calls"]
        rewrapped = keeper.ask(op="rewrap", tenant=tenant, **key)
        assert {name: rewrapped[name] for name in rotated} == rotated and rewrapped["wrapped"] != key[
            "wrapped"
        ]
        new = {**key, **rewrapped}
        if tenant == ACME:
            assert keeper.class_key(new) == keeper.class_key(key)
            assert (
                keeper.status()["kms_calls"] == calls + 4
            )  # unwrap, current KEK, wrap, and a look at the new
        assert keeper.ask(op="rewrap", tenant=tenant, **new) == rewrapped  # nothing to do
        back = {"to_kek": key["kek"], "to_kek_version": key["kek_version"]}
        assert keeper.ask(op="rewrap", tenant=tenant, **new, **back)["kek_version"] == key["kek_version"]


def test_a_key_that_is_not_the_one_committed_to_is_not_rewrapped(keeper: Keeper) -> None:
    key, other = keeper.key(version=7), keeper.key(version=7)
    with pytest.raises(CommitmentMismatch):
        keeper.ask(op="rewrap", tenant=ACME, **{**key, "commitment": other["commitment"]})
    with pytest.raises(CommitmentMismatch):
        keeper.reseal([{**key, "commitment": other["commitment"]}], b"", to=7)
    with pytest.raises(KeyRefused):
        keeper.ask(op="rewrap", tenant=GLOBEX, **key)
    assert keeper.log_lines()[-2]["sqlstate"] == "WK105"


def test_a_kek_of_no_kms_here_is_refused(keeper: Keeper) -> None:
    key = keeper.key(version=8)
    elsewhere = {"kek": "vault:transit/wardkey-x", "kek_version": "1"}
    for request in (
        {"op": "provision", "version": 9, **elsewhere},
        {"op": "rewrap", **key, "to_kek": elsewhere["kek"], "to_kek_version": "1"},
        {"op": "rewrap", **key, **elsewhere},
        {"op": "kek", "action": "disable", **elsewhere},
    ):
        with pytest.raises(KeyRefused):
            keeper.ask(tenant=ACME, **request)


@pytest.mark.parametrize(
    "change",
    [
        {"op": "provision", "version": 0},
        {"op": "provision", "kek": "local:x"},
        {"op": "provision", "kek_version": "1"},
        {"op": "derive", "version": 1},
        {"op": "rewrap", "commitment": "AAAA"},
        {"op": "rewrap", "to_kek": "local:x"},
        {"op": "release", "salt": "AAAA"},
        {"op": "release", "master": 1},
        {"op": "release", "master": 1, "salt": "AAAA"},
        {"op": "kek"},
        {"op": "kek", "action": "explode"},
        {"op": "kek", "action": ["create"]},
        {"op": "kek", "action": "disable"},
        {"op": "kek", "action": "rotate", "kek": "local:x", "kek_version": "1"},
        {"op": "tombstone"},
        {"op": "tombstone", "name": "a\nb"},
        {"op": "tombstone", "name": "a", "version": None},
        {"op": "shred", "name": "a", "version": 1},
        {"op": "certify", "statement": ""},
        {"op": "certify", "statement": "\ud800"},
        {"op": "reseal", "to": 1, "keys": [], "length": 0},
        {"op": "reseal", "to": 1, "keys": {}, "length": 0},
        {"op": "reseal", "to": 1, "keys": [1], "length": 0},
        {"op": "reseal", "to": 1, "keys": [{"version": 1}], "length": 0},
    ],
    ids=str,
)
def test_a_request_that_is_not_whole_is_refused(keeper: Keeper, change: dict[str, Any]) -> None:
    whole = (
        {}
        if change["op"] in ("provision", "kek", "tombstone", "shred", "certify", "reseal")
        else {"version": 1, "kek": "local:x", "kek_version": "1", "wrapped": "AAAA"}
    )
    with pytest.raises(Unsupported):
        keeper.ask(tenant=ACME, **{**whole, **change})
    assert "internal" not in keeper.errors
