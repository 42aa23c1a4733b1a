"""A sealed value opens for its row, column, tenant and version, unaltered; else always the same refusal."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from wardkey_core.envelope import (
    MAX_VERSION,
    OVERHEAD,
    ColumnKey,
    class_key,
    class_of,
    commitment,
    header,
    key_aad,
    version_of,
)
from wardkey_core.errors import OpenFailed, WardError
from wardkey_pg.keyring import TenantKeys, WrappedKey, nonce

TENANT = UUID("6f1c2b9e-3d4a-4c5b-8e7f-0123456789ab").bytes
COLUMN = bytes(range(16))
DEK = bytes(range(32))
ROW = (7).to_bytes(8, "big")
KEY = ColumnKey(DEK, TENANT, 3, 1, COLUMN)
NONCE = bytes(12)

ids = st.binary(min_size=16, max_size=16)
deks = st.binary(min_size=32, max_size=32)
versions = st.integers(1, MAX_VERSION)
numbers = st.integers(1, 255)
nonces = st.binary(min_size=12, max_size=12)


def the_refusal(error: WardError) -> bool:
    return (type(error), error.sqlstate, error.message, error.hint, error.args) == (
        OpenFailed,
        "WK101",
        OpenFailed.default_message,
        OpenFailed.default_hint,
        (OpenFailed.default_message,),
    )


def refused(key: ColumnKey, sealed: bytes, row: bytes) -> None:
    with pytest.raises(OpenFailed) as caught:
        key.open(sealed, row)
    assert the_refusal(caught.value)
    assert caught.value.__cause__ is None


@given(st.binary(), deks, ids, versions, ids, st.binary(), nonces)
def test_what_is_sealed_opens_exactly(
    plaintext: bytes, dek: bytes, tenant: bytes, version: int, column: bytes, row: bytes, once: bytes
) -> None:
    sealed = ColumnKey(dek, tenant, 3, version, column).seal(plaintext, row, once)
    assert ColumnKey(dek, tenant, 3, version, column).open(sealed, row) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD == len(plaintext) + 33
    assert sealed[:17] == b"\x01\x03" + version.to_bytes(3, "big") + once
    assert version_of(sealed) == version and class_of(sealed) == 3


@given(st.binary(max_size=64), st.data())
def test_no_byte_can_be_changed(plaintext: bytes, data: st.DataObject) -> None:
    sealed = KEY.seal(plaintext, ROW, NONCE)
    place = data.draw(st.integers(0, len(sealed) - 1))
    mask = data.draw(st.integers(1, 255))
    refused(KEY, sealed[:place] + bytes([sealed[place] ^ mask]) + sealed[place + 1 :], ROW)


def test_every_bit_of_a_value_counts() -> None:
    sealed = KEY.seal(b"1950-02-28", ROW, NONCE)
    for place in range(len(sealed)):
        for bit in range(8):
            refused(KEY, sealed[:place] + bytes([sealed[place] ^ 1 << bit]) + sealed[place + 1 :], ROW)


@given(st.binary(), st.binary())
def test_another_row_does_not_open(row: bytes, other: bytes) -> None:
    assume(row != other)
    refused(KEY, KEY.seal(b"secret", row, NONCE), other)


@given(ids)
def test_another_column_does_not_open(column: bytes) -> None:
    assume(column != COLUMN)
    refused(ColumnKey(DEK, TENANT, 3, 1, column), KEY.seal(b"secret", ROW, NONCE), ROW)


@given(ids)
def test_another_tenant_does_not_open_even_under_the_same_dek(tenant: bytes) -> None:
    assume(tenant != TENANT)
    refused(ColumnKey(DEK, tenant, 3, 1, COLUMN), KEY.seal(b"secret", ROW, NONCE), ROW)


@given(versions)
def test_another_version_does_not_open_even_under_the_same_dek(version: int) -> None:
    assume(version != 1)
    sealed = KEY.seal(b"secret", ROW, NONCE)
    other = ColumnKey(DEK, TENANT, 3, version, COLUMN)
    refused(other, sealed, ROW)
    refused(other, header(3, version) + sealed[5:], ROW)


@given(numbers)
def test_another_class_does_not_open_even_under_the_same_key(number: int) -> None:
    assume(number != 3)
    sealed = KEY.seal(b"secret", ROW, NONCE)
    other = ColumnKey(DEK, TENANT, number, 1, COLUMN)
    refused(other, sealed, ROW)
    refused(other, header(number, 1) + sealed[5:], ROW)


@given(deks, ids, versions, st.text(), st.text())
def test_classes_have_keys_of_their_own(dek: bytes, tenant: bytes, version: int, one: str, two: str) -> None:
    assume(one != two)
    key = class_key(dek, tenant, version, one)
    assert key != class_key(dek, tenant, version, two) and len(key) == 32
    assert key != class_key(dek, tenant, version % MAX_VERSION + 1, one)
    assert key not in (dek, commitment(dek, tenant, version))


@given(deks)
def test_another_dek_does_not_open(dek: bytes) -> None:
    assume(dek != DEK)
    refused(ColumnKey(dek, TENANT, 3, 1, COLUMN), KEY.seal(b"secret", ROW, NONCE), ROW)


@pytest.mark.parametrize("row", [b"", b"\0", bytes(8), ROW[:-1], ROW + b"\0", ROW * 2], ids=bytes.hex)
def test_row_ids_are_not_padded_or_cut(row: bytes) -> None:
    refused(KEY, KEY.seal(b"secret", ROW, NONCE), row)


@given(st.binary(max_size=200))
def test_no_other_bytes_open(sealed: bytes) -> None:
    refused(KEY, sealed, ROW)
    refused(KEY, header(3, 1) + sealed, ROW)


@pytest.mark.parametrize("length", range(34))
def test_cut_off_it_does_not_open(length: int) -> None:
    refused(KEY, KEY.seal(b"x", ROW, NONCE)[:length], ROW)
    with pytest.raises(OpenFailed):
        KEY.open(KEY.seal(b"x", ROW, NONCE)[length:] if length else b"", ROW)


def test_huge_garbage_does_not_open() -> None:
    refused(KEY, header(3, 1) + bytes(8 << 20), ROW)


def test_a_huge_value_opens() -> None:
    plaintext = bytes(8 << 20)
    assert KEY.open(KEY.seal(plaintext, ROW, NONCE), ROW) == plaintext


@pytest.mark.parametrize("form", [0, 2, 3, 127, 128, 255])
def test_an_unknown_format_does_not_open(form: int) -> None:
    sealed = bytes([form]) + KEY.seal(b"x", ROW, NONCE)[1:]
    refused(KEY, sealed, ROW)
    with pytest.raises(OpenFailed) as caught:
        version_of(sealed)
    assert the_refusal(caught.value)


def test_whatever_fails_says_the_same_where_the_keys_are_chosen_too() -> None:
    """A missing version is a matter of keys (WK104); the rest gives WK101."""
    wrapped = WrappedKey(1, "active", "k", "1", b"", commitment(DEK, TENANT, 1))
    keys = TenantKeys(str(UUID(bytes=TENANT)), 1, [wrapped])
    for sealed in (b"", b"\x01", header(3, 1), header(3, 1) + bytes(27), b"\x02" + bytes(40)):
        with pytest.raises(OpenFailed) as caught:
            keys.opening(sealed, COLUMN, lambda *_: ({"clinical": DEK}, ()))
        assert the_refusal(caught.value)


@given(ids, versions, ids, st.binary(), ids, versions, ids, st.binary())
def test_additional_data_is_injective(
    tenant: bytes, version: int, column: bytes, row: bytes, t2: bytes, v2: int, c2: bytes, r2: bytes
) -> None:
    one = ColumnKey(DEK, tenant, 3, version, column).aad_prefix + row
    two = ColumnKey(DEK, t2, 3, v2, c2).aad_prefix + r2
    assert (one == two) == ((tenant, version, column, row) == (t2, v2, c2, r2))


@given(ids, ids, versions)
def test_columns_have_keys_of_their_own(column: bytes, other: bytes, version: int) -> None:
    assume(column != other)
    one, two = (ColumnKey(DEK, TENANT, 3, version, c).encrypt(NONCE, b"same", b"") for c in (column, other))
    assert one != two


@given(deks, ids, versions)
def test_commitment_tells_deks_tenants_and_versions_apart(dek: bytes, tenant: bytes, version: int) -> None:
    committed = commitment(dek, tenant, version)
    assert len(committed) == 32
    assert committed != commitment(bytes([dek[0] ^ 1]) + dek[1:], tenant, version)
    assert committed != commitment(dek, bytes([tenant[0] ^ 1]) + tenant[1:], version)
    assert committed != commitment(dek, tenant, version - 1)
    assert key_aad(tenant, version, "default") != key_aad(tenant, version - 1, "default")


@pytest.mark.parametrize(
    ("dek", "tenant", "column"), [(31, 16, 16), (33, 16, 16), (32, 15, 16), (32, 16, 17)]
)
def test_ids_and_keys_have_their_length(dek: int, tenant: int, column: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        ColumnKey(bytes(dek), bytes(tenant), 3, 1, bytes(column))


def test_no_nonce_is_drawn_twice() -> None:
    drawn = [nonce() for _ in range(5000)]
    assert len(set(drawn)) == 5000
    assert {len(once) for once in drawn} == {12}
