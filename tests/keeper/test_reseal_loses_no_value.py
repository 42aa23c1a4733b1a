"""Resealing, bytes in, bytes out: a value comes back under the new version, as it came, or not at all."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import OVERHEAD, ColumnKey, class_key, class_of, version_of

from tests.support.keepers import field, split
from wardkey.keeper.reseal import reseal

TENANT = bytes(range(16))
DEKS = {version: bytes((version,)) * 32 for version in (1, 2, 3)}
COLUMNS = [bytes((number,)) * 16 for number in range(3)]
CLASSES = {1: "identifier", 3: "clinical"}


def key_of(
    version: int, column: bytes, number: int = 3, dek: bytes = b"", tenant: bytes = TENANT
) -> ColumnKey:
    of_class = class_key(dek or DEKS[version], tenant, version, CLASSES[number])
    return ColumnKey(of_class, tenant, number, version, column)


KEYS = {(version, column): key_of(version, column) for version in DEKS for column in COLUMNS}

values = st.tuples(
    st.sampled_from(COLUMNS), st.binary(max_size=40), st.binary(max_size=300), st.sampled_from([1, 2, 3])
)


def sealed_field(column: bytes, row: bytes, plaintext: bytes, version: int) -> bytes:
    return field(column, row, KEYS[version, column].seal(plaintext, row, os.urandom(12)))


def resealed(fields: bytes, to: int = 3) -> list[bytes]:
    data = bytearray(fields)
    return list(split(bytes(data[: reseal(data, TENANT, DEKS, to, CLASSES)])))


@given(st.lists(values, max_size=50))
def test_every_value_opens_under_the_new_version_in_its_place(
    rows: list[tuple[bytes, bytes, bytes, int]],
) -> None:
    answer = resealed(b"".join(sealed_field(*row) for row in rows))
    assert len(answer) == len(rows)
    for (column, row, plaintext, _), value in zip(rows, answer, strict=True):
        assert version_of(value) == 3 and KEYS[3, column].open(value, row) == plaintext


@given(
    st.lists(st.tuples(st.sampled_from(COLUMNS), st.binary(max_size=20), st.binary(max_size=99)), max_size=30)
)
def test_what_is_no_sealed_value_does_not_open_and_harms_no_other(
    rows: list[tuple[bytes, bytes, bytes]],
) -> None:
    good = sealed_field(COLUMNS[0], b"row", b"plain", 1)
    fields = good + b"".join(field(*row) + good for row in rows)
    answer = resealed(fields)
    assert answer[1::2] == [b""] * len(rows)
    assert all(KEYS[3, COLUMNS[0]].open(value, b"row") == b"plain" for value in answer[::2])


@given(st.binary(max_size=400))
def test_bytes_that_are_no_fields_are_refused_or_read_as_they_say(data: bytes) -> None:
    try:
        answer = resealed(data)
    except Unsupported:
        return
    assert sum(len(value) + 4 for value in answer) <= len(data)


def test_cut_anywhere_else_than_between_fields_they_are_refused() -> None:
    parts = [sealed_field(COLUMNS[0], b"row", b"x" * number, 1) for number in range(3)]
    fields, ends = b"".join(parts), {0, len(parts[0]), len(parts[0] + parts[1])}
    for cut in set(range(len(fields))) - ends:
        with pytest.raises(Unsupported):
            resealed(fields[:cut])


def test_every_changed_byte_is_noticed() -> None:
    value = KEYS[1, COLUMNS[0]].seal(b"plain", b"row", bytes(12))
    for position in range(len(value)):
        changed = bytearray(value)
        changed[position] ^= 1
        assert resealed(field(COLUMNS[0], b"row", bytes(changed))) == [b""]
    for length in range(len(value)):
        assert resealed(field(COLUMNS[0], b"row", value[:length])) == [b""]


def test_a_value_of_elsewhere_does_not_open() -> None:
    value = KEYS[1, COLUMNS[0]].seal(b"plain", b"row", bytes(12))
    foreign = key_of(1, COLUMNS[0], tenant=bytes(16)).seal(b"plain", b"row", bytes(12))
    unknown = key_of(9, COLUMNS[0], dek=DEKS[1]).seal(b"plain", b"row", bytes(12))
    for column, row, moved in (
        (COLUMNS[0], b"other", value),
        (COLUMNS[1], b"row", value),
        (COLUMNS[0], b"row", foreign),
        (COLUMNS[0], b"row", unknown),
    ):
        assert resealed(field(column, row, moved)) == [b""]


def test_what_is_new_already_goes_as_it_came() -> None:
    value = KEYS[3, COLUMNS[0]].seal(b"plain", b"row", bytes(12))
    assert resealed(field(COLUMNS[0], b"row", value)) == [value]
    assert resealed(field(COLUMNS[0], b"row", value[: OVERHEAD - 1])) == [b""]


def test_no_nonce_is_used_twice() -> None:
    answer = resealed(sealed_field(COLUMNS[0], b"row", b"plain", 1) * 5000)
    assert len({value[5:17] for value in answer}) == 5000


@pytest.mark.parametrize("length", [0, 20_000_000])
def test_empty_and_very_long_values(length: int) -> None:
    plaintext = bytes(length)
    [answer] = resealed(sealed_field(COLUMNS[0], b"row", plaintext, 1))
    assert KEYS[3, COLUMNS[0]].open(answer, b"row") == plaintext
    assert resealed(b"") == []


def test_a_value_comes_back_in_the_class_of_its_column() -> None:
    old = key_of(3, COLUMNS[0]).seal(b"plain", b"row", bytes(12))
    (value,) = resealed(field(COLUMNS[0], b"row", old, 1))
    assert class_of(value) == 1 and key_of(3, COLUMNS[0], 1).open(value, b"row") == b"plain"
    assert resealed(field(COLUMNS[0], b"row", value, 1)) == [value]
    relabelled = old[:1] + b"\x01" + old[2:]
    assert resealed(field(COLUMNS[0], b"row", relabelled, 3)) == [b""]
    with pytest.raises(Unsupported):
        resealed(field(COLUMNS[0], b"row", old, 9))
