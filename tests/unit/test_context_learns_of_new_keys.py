"""A value under a key that the context does not know has the registry looked at, once per key."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest
from wardkey_core.envelope import ColumnKey
from wardkey_core.errors import KeysChanged, KeyUnknown, OpenFailed, TenantNotActive
from wardkey_pg import registry
from wardkey_pg.sealing import make_seal, open_slowly, sealers_slowly

from tests.support.backend import ACME, Backend, SocketKeeper, class_of

COLUMN, ROW = bytes(16), b"row"


@pytest.fixture(autouse=True)
def _keeper(keeper: SocketKeeper) -> Iterator[SocketKeeper]:
    yield keeper


def _sealed(version: int) -> bytes:
    return ColumnKey(class_of(ACME, version=version), UUID(ACME).bytes, 3, version, COLUMN).seal(
        b"value", ROW, bytes(12)
    )


def _rotate(backend: Backend, version: int) -> None:
    backend.keys[ACME] = [Backend.wrapped(ACME, version - 1, "decrypt-only"), Backend.wrapped(ACME, version)]
    backend.tenants[ACME]["key_epoch"] += 1


def _open(backend: Backend, version: int) -> bytes:
    return open_slowly(backend.session, _sealed(version), COLUMN, ROW)


def _seal(backend: Backend) -> bytes:
    seal = make_seal(backend.session, lambda *args: sealers_slowly(backend.session, *args))
    return seal([b"value"], COLUMN, ROW)[0]


def test_a_newer_key_is_learnt_and_seals_from_then_on(backend: Backend) -> None:
    backend.session.login(backend.token())
    assert _open(backend, 1) == b"value" and _seal(backend)[4] == 1
    _rotate(backend, 2)
    assert _seal(backend)[4] == 1  # nothing told this transaction
    assert _open(backend, 2) == b"value"
    assert _seal(backend)[4] == 2
    _rotate(backend, 3)
    assert _open(backend, 3) == b"value"


def test_what_opened_before_opens_after(backend: Backend) -> None:
    """Version 1 was retired meanwhile; an older snapshot may still hold values of it, released or not."""
    backend.session.login(backend.token())
    _rotate(backend, 3)
    assert _open(backend, 3) == b"value"
    assert _open(backend, 1) == b"value"


def test_an_unknown_key_is_looked_up_once(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.queries.clear()
    for _ in range(3):
        with pytest.raises(KeyUnknown):
            _open(backend, 77)
    assert backend.queries.count(registry.STATE) == 1


def test_any_number_of_unknown_keys_costs_few_queries(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.queries.clear()
    for version in range(100, 300):
        with pytest.raises(KeyUnknown):
            _open(backend, version)
    assert backend.queries.count(registry.STATE) <= 16


def test_bytes_that_are_no_sealed_value_cost_none(backend: Backend) -> None:
    backend.session.login(backend.token())
    backend.queries.clear()
    for nonsense in (b"", b"\x01", b"\x02" + bytes(60)):
        with pytest.raises(OpenFailed):
            open_slowly(backend.session, nonsense, COLUMN, ROW)
    assert backend.queries == []


def test_a_parallel_plan_cannot_ask(backend: Backend) -> None:
    backend.session.login(backend.token())
    _rotate(backend, 2)
    backend.parallel = True
    with pytest.raises(KeysChanged):
        _open(backend, 2)
    assert _open(backend, 1) == b"value"


def test_a_suspended_tenant_learns_nothing_and_is_logged_out(backend: Backend) -> None:
    backend.session.login(backend.token())
    _rotate(backend, 2)
    backend.tenants[ACME]["status"] = "suspended"
    with pytest.raises(TenantNotActive):
        _open(backend, 2)
    assert backend.session.current() is None
