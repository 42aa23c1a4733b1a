"""What the backend writes into the WAL is what the scribe reads out of it; anything else is refused."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core import journal
from wardkey_core.journal_reader import Event, Malformed, Query, Read, decode

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_IDS = st.uuids().filter(lambda identity: identity.int != 0)
_CONTEXTS = st.binary(min_size=16, max_size=16).filter(any)
_TIMES = st.integers(-(2**63), 2**63 - 1)
_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_NAMES = st.lists(_TEXT.filter(bool), min_size=1, max_size=5)

_PARTS: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
    "i": (_INTEGERS, lambda value: value.to_bytes(8, "big", signed=True)),
    "u": (st.uuids(), lambda value: value.bytes),
    "t": (_TEXT, str.encode),
}
_KEYS = st.lists(
    st.sampled_from("iut").flatmap(lambda letter: st.tuples(st.just(letter), _PARTS[letter][0])),
    min_size=1,
    max_size=4,
)


def _read_head(
    tenant: bytes, context: bytes, at: int, model: bytes, form: str, names: list[str], *, row: bool
) -> bytes:
    before, behind = journal.read_ends(tenant, context, model, form, names, row=row)
    return before + at.to_bytes(8, "big", signed=True) + behind


def _row_id(key: list[tuple[str, object]]) -> bytes:
    parts = [_PARTS[letter][1](value) for letter, value in key]
    if len(parts) == 1:
        return bytes(parts[0])
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@given(_IDS, _CONTEXTS, _TIMES, _IDS, _NAMES, _KEYS)
def test_a_row_read_comes_out_as_it_went_in(
    tenant: UUID, context: bytes, at: int, model: UUID, names: list[str], key: list[tuple[str, object]]
) -> None:
    form = "".join(letter for letter, _ in key)
    head = _read_head(tenant.bytes, context, at, model.bytes, form, names, row=True)
    values = [value if letter == "i" else str(value) for letter, value in key]
    read = decode(head + _row_id(key))
    readable = str(values[0]) if len(values) == 1 else json.dumps(values, ensure_ascii=False)
    assert read == Read(tenant, context, at, model, ",".join(names), readable)


@given(_IDS, _CONTEXTS, _TIMES, _IDS, _NAMES)
def test_a_statement_has_no_row(tenant: UUID, context: bytes, at: int, model: UUID, names: list[str]) -> None:
    head = _read_head(tenant.bytes, context, at, model.bytes, "i", names, row=False)
    assert decode(head) == Read(tenant, context, at, model, ",".join(names), None)
    with pytest.raises(Malformed):
        decode(head + b"\0")


@given(
    *(_IDS, _CONTEXTS, _TIMES, _IDS, _NAMES),
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
)
def test_rows_out_of_a_cache_come_out_as_rows_that_were_read(
    tenant: UUID, context: bytes, at: int, model: UUID, names: list[str], rows: list[int]
) -> None:
    ids = [row.to_bytes(8, "big") for row in rows]
    message = journal.cached_read(tenant.bytes, context, at, model.bytes, "i", names, ids)
    head = _read_head(tenant.bytes, context, at, model.bytes, "i", names, row=True)
    assert decode(message) == [decode(head + row) for row in ids]
    for cut in range(1, 10):
        with pytest.raises(Malformed):
            decode(message[:-cut])


def test_a_statement_out_of_a_cache_is_one_that_was_read() -> None:
    message = journal.cached_read(b"t" * 16, b"c" * 16, 7, b"m" * 16, "i", ["name"], [])
    assert message == _read_head(b"t" * 16, b"c" * 16, 7, b"m" * 16, "i", ["name"], row=False)


def test_a_column_not_known_is_named_by_its_id_and_the_row_in_hexadecimal() -> None:
    column = UUID(int=5)
    head = _read_head(UUID(int=1).bytes, b"c" * 16, 7, bytes(16), "", [str(column)], row=True)
    assert decode(head + b"\x01\xff") == Read(UUID(int=1), b"c" * 16, 7, None, str(column), "\\x01ff")


@given(
    _IDS,
    _CONTEXTS,
    _TIMES,
    st.from_regex("[a-z_]{1,63}", fullmatch=True),
    _TEXT,
    st.dictionaries(_TEXT, _TEXT),
)
def test_an_event_comes_out_as_it_went_in(
    tenant: UUID, context: bytes, at: int, operation: str, subject: str, detail: dict[str, str]
) -> None:
    texts = {"subject": subject, "role": None}
    message = journal.event(tenant.bytes, context, at, operation, texts, detail)
    assert decode(message) == Event(tenant, context, at, operation, {"subject": subject}, detail or None)


def test_an_escape_spelt_out_is_text() -> None:
    message = journal.event(bytes(16), bytes(16), 0, "login", {"subject": "\\u0000"}, {})
    assert decode(message) == Event(None, None, 0, "login", {"subject": "\\u0000"}, None)


def test_nobodys_event_has_neither_tenant_nor_context() -> None:
    message = journal.event(journal.NO_TENANT, journal.NO_CONTEXT, 0, "refusal", {}, {})
    assert decode(message) == Event(None, None, 0, "refusal", {}, None)


@given(_IDS, st.integers(-(2**63), 2**63 - 1), _IDS)
def test_a_query_names_a_model(tenant: UUID, at: int, model: UUID) -> None:
    message = journal.query(tenant.bytes, b"c" * 16, at, model.bytes)
    assert decode(message) == Query(tenant, b"c" * 16, at, model)
    for other in (message[:-1], message + b"\0"):
        with pytest.raises(Malformed):
            decode(other)


@given(st.binary(max_size=200))
def test_anything_else_is_malformed(message: bytes) -> None:
    for data in (message, *(b"\x01" + kind + message for kind in (b"", b"r", b"e", b"q"))):
        try:
            decoded = decode(data)
        except Malformed:
            continue
        assert isinstance(decoded, Read | Query | Event)


@given(_IDS, _NAMES, _KEYS, st.data())
def test_a_message_cut_short_is_malformed_or_of_another_row(
    tenant: UUID, names: list[str], key: list[tuple[str, object]], data: st.DataObject
) -> None:
    form = "".join(letter for letter, _ in key)
    head = _read_head(tenant.bytes, b"c" * 16, 1, tenant.bytes, form, names, row=True)
    whole = decode(head + _row_id(key))
    cut = data.draw(st.integers(0, len(head) - 1))
    with pytest.raises(Malformed):
        decode(head[:cut])
    if form in ("i", "u") or len(form) > 1:
        with pytest.raises(Malformed):
            decode(head + _row_id(key)[:-1])
        with pytest.raises(Malformed):
            decode(head + _row_id(key) + b"\0")
    assert isinstance(whole, Read)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"operation":"Login"}',
        b'{"operation":"login","subject":1}',
        b'{"operation":"login","detail":"x"}',
        b'{"operation":"login","other":"x"}',
        b'{"operation":"login","subject":"\\u0000"}',
        b'{"operation":"login","subject":"\\ud800"}',
        b'{"operation":"login","detail":{"x":["\\u0000"]}}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_an_event_of_another_form_is_malformed(body: bytes) -> None:
    head = journal.event(bytes(16), bytes(16), 0, "x", {}, {})[:42]
    with pytest.raises(Malformed):
        decode(head + body)


@pytest.mark.parametrize("head", [b"\x02r", b"\x01x", b"\x00e"])
def test_another_format_or_type_is_malformed(head: bytes) -> None:
    with pytest.raises(Malformed, match="does not know"):
        decode(head + bytes(100))


def test_a_list_of_columns_that_is_too_long_is_cut_between_names() -> None:
    names = ["x" * 63] * 1600
    head = _read_head(bytes(15) + b"1", bytes(16), 0, bytes(15) + b"1", "i", names, row=True)
    read = decode(head + bytes(8))
    assert isinstance(read, Read) and set(read.columns.split(",")) == {"x" * 63}
