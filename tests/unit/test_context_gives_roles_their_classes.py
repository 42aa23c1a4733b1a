"""A role has the keys of what it sees: as the registry says and, where that is less, as the keeper does."""

from __future__ import annotations

import base64
import json
import socket
from typing import Any
from uuid import UUID

import pytest
from wardkey_core.envelope import ColumnKey
from wardkey_core.errors import ClassHidden, KeyUnknown, OpenFailed, RoleMayNotWrite
from wardkey_core.journal_reader import Read
from wardkey_pg import registry
from wardkey_pg.keyring import TenantKeys
from wardkey_pg.sealing import make_seal, make_unseal, open_slowly, sealers_slowly

from tests.support.backend import ACME, CLASSES, Backend, SocketKeeper, class_of, frame, release_any

ROW = b"row"
BIRTH, NOTE, FINDING = (UUID(int=number).bytes for number in (1, 2, 3))
NUMBERS = {BIRTH: 2, NOTE: 4, FINDING: 3}
MASKS = {BIRTH: "year", NOTE: "redact", FINDING: "null"}
ACCESS = {
    "ADMIN": dict.fromkeys(CLASSES, ("clear", True)),
    "ANALYST": {"quasi": ("mask", False), "clinical": ("clear", True)},
    "VIEWER": {"quasi": ("clear", False), "note": ("mask", False)},
}


def _access(role: str, name: str) -> dict[str, Any]:
    access, writes = ACCESS.get(role, {}).get(name, ("none", False))
    return {"access": access, "writes": writes}


@pytest.fixture
def ward(backend: Backend, keeper: SocketKeeper) -> Backend:
    kinds = {BIRTH: "date", NOTE: "text", FINDING: "text"}
    backend.columns = [
        {
            "id": str(UUID(bytes=column)), "model_id": str(UUID(int=9)), "name": "c", "level": "row",
            "form": "t", "class": CLASSES[NUMBERS[column] - 1], "mask": MASKS[column], "kind": kinds[column],
        }
        for column in NUMBERS
    ]  # fmt: skip
    backend.policy = _access
    return backend


def _login(ward: Backend, role: str) -> TenantKeys:
    ward.begin()
    ward.session.login(ward.token(role=role))
    context = ward.session.current()
    assert context is not None
    return context.keys


def _sealed(column: bytes, text: bytes, number: int | None = None) -> bytes:
    number = number or NUMBERS[column]
    key = ColumnKey(class_of(ACME, CLASSES[number - 1]), UUID(ACME).bytes, number, 1, column)
    return key.seal(text, ROW, bytes(12))


def _read(
    ward: Backend, column: bytes, text: bytes = b"2001-05-06", number: int | None = None
) -> bytes | None:
    unseal = make_unseal(ward.session, lambda *args: open_slowly(ward.session, *args))
    first, second = (unseal(_sealed(column, text, number), column, ROW) for _ in range(2))
    assert first == second  # the hot path shows what the slow one does
    return first


def _seal(ward: Backend, columns: bytes, *plaintexts: bytes | None) -> list[bytes | None] | None:
    seal = make_seal(ward.session, lambda *args: sealers_slowly(ward.session, *args))
    return seal(plaintexts, columns, ROW)


def _held(keys: TenantKeys) -> set[str]:
    return {name for released, _ in keys._released.values() for name in released}


def test_each_role_sees_what_it_may_and_has_the_keys_of_that(ward: Backend) -> None:
    for _ in range(2):
        keys = _login(ward, "ADMIN")
        assert (_read(ward, BIRTH), _read(ward, NOTE, b"x")) == (b"2001-05-06", b"x")
        assert _held(keys) == set(CLASSES)
        keys = _login(ward, "ANALYST")
        assert (_read(ward, BIRTH), _read(ward, FINDING, b"y")) == (b"2001-01-01", b"y")
        with pytest.raises(ClassHidden):
            _read(ward, NOTE)
        assert _held(keys) == {"quasi", "clinical"}
        keys = _login(ward, "VIEWER")
        assert _read(ward, BIRTH) == b"2001-05-06"
        with pytest.raises(ClassHidden):
            _read(ward, FINDING)
        assert _read(ward, NOTE, b"x") == b"[redacted]"
        assert any(isinstance(entry, Read) for entry in ward.journalled())  # a mask's reading is one
        ward.messages.clear()
        assert _held(keys) == {"quasi"}  # the constant needs no key


def test_a_warm_backend_asks_once_for_each_role(ward: Backend, keeper: SocketKeeper) -> None:
    for _ in range(3):
        for role in ("ADMIN", "ANALYST", "VIEWER"):
            _login(ward, role)
            _read(ward, BIRTH)
    assert [request["classes"] for request in keeper.requests] == [
        sorted(CLASSES), ["clinical", "quasi"], ["quasi"]
    ]  # fmt: skip


def test_no_row_of_the_policy_is_no_class(ward: Backend, keeper: SocketKeeper) -> None:
    """SUPER_ADMIN has none, whatever the column."""
    keys = _login(ward, "SUPER_ADMIN")
    for column in NUMBERS:
        with pytest.raises(ClassHidden):
            _read(ward, column)
    assert not keys.may_write and not keeper.requests


def test_what_the_keeper_masks_or_withholds_is_masked_or_hidden(ward: Backend) -> None:
    def answer(request: dict[str, Any], connection: socket.socket) -> bytes:
        given = json.loads(release_any(request, connection)[4:])
        del given["classes"]["note"]
        return frame({**given, "masked": ["quasi"]})

    with SocketKeeper(answer) as keeper:
        ward.settings["keeper_socket"] = keeper.path
        keys = _login(ward, "ADMIN")
        assert _read(ward, BIRTH) == b"2001-01-01"
        assert not keys.sees(BIRTH) and keys.sees(FINDING)
        with pytest.raises(ClassHidden, match="keeper"):
            _read(ward, NOTE)
        with pytest.raises(ClassHidden, match="keeper"):
            _seal(ward, NOTE, b"x")
        assert len(keeper.requests) == 1  # what it withheld is not asked for query by query


def test_a_value_of_another_class_needs_the_rights_of_both(ward: Backend) -> None:
    """The column was reclassified, the value not resealed yet."""
    _login(ward, "ADMIN")
    assert _read(ward, FINDING, b"x", number=4) == b"x"
    _login(ward, "ANALYST")
    assert _read(ward, FINDING, b"x") == b"x"
    with pytest.raises(ClassHidden):
        _read(ward, FINDING, b"x", number=4)  # note, which it does not see
    with pytest.raises(ClassHidden):
        _read(ward, NOTE, b"x", number=3)  # the column is of note by now
    with pytest.raises(OpenFailed):
        open_slowly(ward.session, b"\x01\x63\x00\x00\x01" + bytes(60), FINDING, ROW)


def test_a_role_seals_the_classes_that_it_may_write(ward: Backend) -> None:
    _login(ward, "ANALYST")
    made = _seal(ward, FINDING + NOTE, b"x", None)
    assert made and made[0] and made[0][:2] == b"\x01\x03" and made[1] is None
    for _ in range(2):  # also where the other column's sealer is at hand
        with pytest.raises(RoleMayNotWrite):
            _seal(ward, FINDING + NOTE, b"x", b"y")
    keys = _login(ward, "ANALYST")
    assert keys.may_empty(FINDING) and not keys.may_empty(FINDING + NOTE)
    assert not keys.may_delete(UUID(int=9).bytes)
    assert _login(ward, "ADMIN").may_delete(UUID(int=9).bytes)


def test_a_column_that_is_not_registered_is_looked_for_and_not_sealed(ward: Backend) -> None:
    _login(ward, "ADMIN")
    before = ward.queries.count("select ward.renew_keys()")
    with pytest.raises(KeyUnknown):
        _seal(ward, UUID(int=77).bytes, b"x")
    assert ward.queries.count("select ward.renew_keys()") == before + 1


def test_a_policy_that_was_narrowed_holds_at_the_next_transaction(ward: Backend) -> None:
    _login(ward, "VIEWER")
    assert _read(ward, BIRTH) == b"2001-05-06"
    ward.policy = lambda role, name: {"access": "none", "writes": False}
    ward.tenants[ACME]["key_epoch"] += 1
    keys = _login(ward, "VIEWER")
    with pytest.raises(ClassHidden):
        _read(ward, BIRTH)
    assert not keys._released
    assert ward.queries.count(registry.POLICY) == 2


def test_a_context_that_is_renewed_takes_no_key_along_that_the_role_lost(ward: Backend) -> None:
    _login(ward, "VIEWER")
    _read(ward, BIRTH)
    ward.policy = lambda role, name: {"access": "none", "writes": False}
    ward.tenants[ACME]["key_epoch"] += 1
    ward.session.renew_keys()
    context = ward.session.current()
    assert context is not None and _held(context.keys) == set()
    with pytest.raises(ClassHidden):
        _read(ward, BIRTH)


def test_base64_of_a_key_is_in_no_repr(ward: Backend) -> None:
    keys = _login(ward, "ADMIN")
    _read(ward, BIRTH)
    assert base64.b64encode(class_of(ACME, "quasi")).decode() not in repr(keys) + repr(ward.session.current())
