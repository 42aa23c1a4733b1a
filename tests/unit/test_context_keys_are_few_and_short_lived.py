"""A backend holds the keys of few tenants for a short time, and drops them at suspension and new epoch."""

from __future__ import annotations

import base64
import socket
from typing import Any
from uuid import UUID

import pytest
from wardkey_core.envelope import ColumnKey, header
from wardkey_core.errors import (
    CommitmentMismatch,
    KeeperUnavailable,
    KeyRefused,
    KeyUnknown,
    NoContext,
    TenantNotActive,
)
from wardkey_pg import keyring
from wardkey_pg.keyring import Keyring, TenantKeys
from wardkey_pg.sealing import make_seal, make_unseal, open_slowly, sealers_slowly

from tests.support.backend import ACME, CLASSES, GLOBEX, Backend, SocketKeeper, class_of, frame
from tests.support.tokens import ISSUER

COLUMN, ROW = bytes(range(16)), (1).to_bytes(8, "big")


def sealed_under(version: int = 1, text: str = "Ada") -> bytes:
    key = ColumnKey(class_of(ACME, version=version), UUID(ACME).bytes, 3, version, COLUMN)
    return key.seal(text.encode(), ROW, bytes(12))


def read(backend: Backend, sealed: bytes | None = None) -> str:
    """Read as SQL does: through the hot path first."""
    unseal = make_unseal(backend.session, lambda *args: open_slowly(backend.session, *args))
    return unseal(sealed or sealed_under(), COLUMN, ROW).decode()


def write(backend: Backend, text: str) -> bytes:
    session = backend.session
    seal = make_seal(session, lambda *args: sealers_slowly(session, *args))
    return seal([text.encode()], COLUMN, ROW)[0]


def login(backend: Backend, **changes: Any) -> None:
    backend.session.login(backend.token(**changes))


def test_a_key_is_asked_for_once(backend: Backend, keeper: SocketKeeper) -> None:
    for _ in range(3):
        backend.begin()
        login(backend)
        assert [read(backend), read(backend, write(backend, "Zoë"))] == ["Ada", "Zoë"]
    assert len(keeper.requests) == 1


def test_the_keeper_sees_the_token_that_logged_in(backend: Backend, keeper: SocketKeeper) -> None:
    token = backend.token()
    backend.session.login(token)
    read(backend)
    (request,) = keeper.requests
    assert request == {
        "op": "release",
        "tenant": ACME,
        "version": 1,
        "kek": "local:test",
        "kek_version": "1",
        "wrapped": base64.b64encode(b"wrapped").decode(),
        "commitment": base64.b64encode(backend.wrapped(ACME)["commitment"]).decode(),
        "token": token,
        "classes": sorted(CLASSES),
    }


def test_keys_serve_the_issuer_whose_tokens_the_keeper_accepted(
    backend: Backend, keeper: SocketKeeper
) -> None:
    """An issuer that is in the database only, or is another since, finds no key that is warm."""
    login(backend)
    read(backend)
    issuer, _ = backend.issuers[ISSUER]
    backend.issuers["https://rogue.example"] = ({**issuer, "issuer": "https://rogue.example"}, 2)
    for count, changes in enumerate(({"iss": "https://rogue.example"}, {}), 2):
        backend.begin()
        login(backend, **changes)
        assert read(backend) == "Ada"
        assert len(keeper.requests) == min(count, 2)
    backend.issuers[ISSUER] = (issuer, 3)
    backend.begin()
    login(backend)
    read(backend)
    assert len(keeper.requests) == 3


def test_keys_do_not_follow_a_context_to_another_generation(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    read(backend)
    backend.issuers[ISSUER] = (backend.issuers[ISSUER][0], 2)
    backend.clock.now += 2
    backend.statement()
    assert backend.session.current() is not None
    read(backend)
    assert len(keeper.requests) == 2


def test_login_alone_asks_for_no_key(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    assert not keeper.requests


def test_without_a_context_nothing_opens_or_seals(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    assert read(backend) == "Ada"
    backend.begin()
    with pytest.raises(NoContext):
        read(backend)
    with pytest.raises(NoContext):
        write(backend, "x")
    assert len(keeper.requests) == 1


def test_keys_are_dropped_after_their_time(backend: Backend, keeper: SocketKeeper) -> None:
    backend.settings["key_ttl"] = "100"
    login(backend)
    read(backend)
    for seconds, asked in ((99, 1), (2, 2), (99, 2)):
        backend.clock.now += seconds
        backend.begin()
        login(backend)
        read(backend)
        assert len(keeper.requests) == asked


def test_their_time_is_not_extended_by_use(backend: Backend, keeper: SocketKeeper) -> None:
    backend.settings["key_ttl"] = "100"
    for _ in range(11):
        backend.begin()
        login(backend)
        read(backend)
        backend.clock.now += 10
    assert len(keeper.requests) == 1
    backend.clock.now += 1
    backend.begin()
    login(backend)
    read(backend)
    assert len(keeper.requests) == 2


def test_suspension_drops_the_keys(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    read(backend)
    backend.tenants[ACME]["status"] = "suspended"
    backend.begin()
    with pytest.raises(TenantNotActive):
        login(backend)
    assert not backend.session._keyring._keys
    assert not backend.session.openers and not backend.session.sealers
    backend.tenants[ACME]["status"] = "active"
    login(backend)
    read(backend)
    assert len(keeper.requests) == 2


def test_a_new_epoch_drops_the_keys(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    read(backend)
    backend.tenants[ACME]["key_epoch"] += 1
    backend.keys[ACME] = [backend.wrapped(ACME, 1, "decrypt-only"), backend.wrapped(ACME, 2)]
    backend.begin()
    login(backend)
    assert read(backend) == "Ada"
    assert write(backend, "x")[:5] == header(3, 2)
    assert [request["version"] for request in keeper.requests] == [1, 1, 2]


@pytest.mark.parametrize("state", ["retired", "destroyed"])
def test_a_version_out_of_use_does_not_open(backend: Backend, keeper: SocketKeeper, state: str) -> None:
    backend.keys[ACME] = [backend.wrapped(ACME, 1, state), backend.wrapped(ACME, 2)]
    login(backend)
    with pytest.raises(KeyUnknown):
        read(backend)
    assert read(backend, sealed_under(2)) == "Ada"


def test_without_an_active_version_nothing_is_sealed(backend: Backend, keeper: SocketKeeper) -> None:
    backend.keys[ACME] = [backend.wrapped(ACME, 1, "decrypt-only")]
    login(backend)
    assert read(backend) == "Ada"
    with pytest.raises(KeyUnknown):
        write(backend, "x")


@pytest.mark.parametrize("key", [b"", class_of(ACME)[:31], class_of(ACME) + b"\0"], ids=len)
def test_what_is_no_key_is_refused(backend: Backend, key: bytes) -> None:
    def answer(request: dict[str, Any], _: socket.socket) -> bytes:
        given = dict.fromkeys(request["classes"], base64.b64encode(key).decode())
        return frame({"ok": True, "classes": given, "masked": []})

    with SocketKeeper(answer) as keeper:
        backend.settings["keeper_socket"] = keeper.path
        login(backend)
        with pytest.raises(KeyRefused):
            read(backend)
        with pytest.raises(KeyRefused):
            write(backend, "x")
        assert not backend.session.openers and not backend.session.sealers


def test_a_replaced_commitment_is_refused(backend: Backend, keeper: SocketKeeper) -> None:
    backend.keys[ACME][0]["commitment"] = backend.wrapped(GLOBEX)["commitment"]
    login(backend)
    with pytest.raises(CommitmentMismatch):
        read(backend)


def test_what_is_warm_does_not_need_the_keeper(backend: Backend) -> None:
    with SocketKeeper() as keeper:
        backend.settings["keeper_socket"] = keeper.path
        login(backend)
        read(backend)
    backend.begin()
    login(backend)
    assert read(backend, write(backend, "warm")) == "warm"
    backend.tenants[ACME]["key_epoch"] += 1
    backend.begin()
    login(backend)
    with pytest.raises(KeeperUnavailable):
        read(backend)


def test_no_setting_no_keeper(backend: Backend) -> None:
    login(backend)
    with pytest.raises(KeeperUnavailable, match="socket is not known") as caught:
        read(backend)
    assert caught.value.hint and "keeper_socket" in caught.value.hint


def test_tenants_in_a_keyring_are_bounded(backend: Backend) -> None:
    ring = Keyring(most=3)
    tenants = [str(UUID(int=number)) for number in range(5)]
    for tenant in tenants[:3]:
        ring.put(TenantKeys(tenant, 1, []))
    assert ring.get(tenants[0], "", ("", 0), 1, 300) is not None  # used again: the second is now the oldest
    ring.put(TenantKeys(tenants[3], 1, []))
    held = [tenant for tenant in tenants if ring.get(tenant, "", ("", 0), 1, 300)]
    assert held == [tenants[0], tenants[2], tenants[3]]


def test_columns_of_a_tenant_are_bounded(
    backend: Backend, keeper: SocketKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may call unseal with column ids that do not exist."""
    monkeypatch.setattr(keyring, "_MOST_COLUMNS", 8)
    login(backend)
    for number in range(100):
        with pytest.raises(Exception, match="does not open"):
            open_slowly(backend.session, sealed_under(), number.to_bytes(16, "big"), ROW)
    context = backend.session.current()
    assert context is not None
    assert len(context.keys._columns) <= 8 and not backend.session.openers
    assert read(backend) == "Ada"
    assert len(keeper.requests) == 1


@pytest.mark.parametrize("ttl", ["", "soon", "nan"])
def test_a_setting_that_is_no_number_does_not_keep_keys_forever(
    backend: Backend, keeper: SocketKeeper, ttl: str
) -> None:
    backend.settings["key_ttl"] = ttl
    login(backend)
    read(backend)
    backend.clock.now += 86_400
    backend.begin()
    login(backend)
    read(backend)
    assert len(keeper.requests) == 2


def test_keys_are_not_shown(backend: Backend, keeper: SocketKeeper) -> None:
    login(backend)
    read(backend)
    context = backend.session.current()
    assert context is not None
    shown = repr(context) + repr(context.keys)
    assert repr(class_of(ACME)) not in shown and class_of(ACME).hex() not in shown
