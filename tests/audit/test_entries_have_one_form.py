"""An entry has one form as bytes: what is written is read again, and nothing else is read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.log import canonical, entry
from wardkey_core.log.canonical import NotCanonical

from tests.audit.logs import make_entry

_TEXT = st.text(st.characters(codec="utf-8"))
_DIGITS = st.integers(1, 10**19 - 1).map(str)
_ENTRIES = st.fixed_dictionaries(
    {
        "format": st.just(1),
        "tenant": st.uuids().map(str),
        "id": _DIGITS,
        "at": st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")),
        "kind": st.sampled_from(["write", "read", "event"]),
        "operation": st.sampled_from(["insert", "read", "key_release"]),
    },
    optional={
        "context": st.binary(min_size=16, max_size=16).map(bytes.hex),
        "transaction": _DIGITS,
        "statement": st.integers(0, 9 * 10**15 - 1),
        "columns": st.lists(_TEXT, max_size=4),
        **dict.fromkeys(("subject", "role", "purpose", "database_role", "address", "application"), _TEXT),
        **dict.fromkeys(("table", "row", "old", "new", "detail"), _TEXT),
    },
)


@given(_ENTRIES)
def test_what_is_written_is_read_again(members: dict[str, Any]) -> None:
    data = entry.encode(members)
    assert entry.decode(data) == members
    assert b"\n" not in data and data == canonical.encode(json.loads(data))


@given(_ENTRIES, st.data())
def test_the_grammar_is_the_canonical_form(members: dict[str, Any], draw: st.DataObject) -> None:
    """One byte more, less or other: not an entry, or the canonical form of another one."""
    data = bytearray(entry.encode(members))
    place = draw.draw(st.integers(0, len(data) - 1))
    change = draw.draw(st.sampled_from(["remove", "insert", "replace"]))
    byte = draw.draw(st.integers(0, 255))
    if change == "remove":
        del data[place]
    elif change == "insert":
        data.insert(place, byte)
    else:
        data[place] = byte
    try:
        read = entry.decode(bytes(data))
    except NotCanonical:
        return
    assert canonical.encode(read) == bytes(data)


_FULL = make_entry(7, detail="{}", statement=3, old='é\u2028\x7f\x00\x1f\t"\\/😀')


@pytest.mark.parametrize(
    "other",
    [
        json.dumps(_FULL, sort_keys=True).encode(),
        json.dumps(_FULL, separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps(_FULL, separators=(",", ":"), sort_keys=True).encode(),
        canonical.encode(_FULL) + b"\r",
        b"\xef\xbb\xbf" + canonical.encode(_FULL),
        canonical.encode(_FULL).replace(b'"statement":3', b'"statement":3.0'),
        canonical.encode(_FULL).replace(b'"statement":3', b'"statement":3,"statement":3'),
        canonical.encode(_FULL).replace(b"\\u001f", b"\\u001F"),
        canonical.encode(_FULL).replace(b"\\t", b"\\u0009"),
        canonical.encode(_FULL).replace(b"/", b"\\/"),
    ],
    ids=range(10),
)
def test_no_other_way_to_write_it_is_read(other: bytes) -> None:
    assert json.loads(other.decode("utf-8-sig")) == _FULL
    with pytest.raises(NotCanonical):
        entry.decode(other)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("format", 2),
        ("format", True),
        ("format", "1"),
        ("tenant", "3FFAFB0C-6EFC-5C65-1E98-7832B77C9CDA"),
        ("id", 7),
        ("id", "0"),
        ("id", "07"),
        ("id", "-7"),
        ("id", "٧"),  # a digit, but not one of ours
        ("at", "2026-03-01T10:00:00Z"),
        ("at", "2026-03-01T10:00:00.000000+00:00"),
        ("at", "2026-13-01T10:00:00.000000Z"),
        ("at", "2026-03-01T24:00:00.000000Z"),
        ("kind", "delete"),
        ("operation", "Read it"),
        ("context", "AB" * 16),
        ("context", "ab" * 15),
        ("statement", -1),
        ("statement", 1.0),
        ("statement", 10**16),
        ("columns", "name"),
        ("columns", [1]),
        ("subject", None),
        ("subject", ["secret-value"]),
        ("subject", "\ud800"),
        ("new", {"name": "secret-value"}),
        ("hunter2", "secret-value"),
    ],
)
def test_a_member_that_does_not_fit_is_named_and_not_shown(member: str, value: Any) -> None:
    with pytest.raises(NotCanonical) as caught:
        entry.encode(make_entry(1) | {member: value})
    text = str(caught.value)
    assert member in text or member == "hunter2" or value in (2, "\ud800"), text
    assert "secret-value" not in text and "hunter2" not in text


@pytest.mark.parametrize("member", ["format", "tenant", "id", "at", "kind", "operation"])
def test_what_an_entry_must_have_is_named(member: str) -> None:
    members = make_entry(1)
    del members[member]
    with pytest.raises(NotCanonical, match=f'has no member "{member}"'):
        entry.encode(members)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b"{", b"\xff", b'{"a":' * 100_000, b"1" * 5000])
def test_nonsense_is_not_an_entry(data: bytes) -> None:
    with pytest.raises(NotCanonical):
        entry.decode(data)
    with pytest.raises(NotCanonical):
        canonical.decode(data if data != b"{}" else b"{} ")


def test_a_long_entry_is_matched_in_a_straight_line() -> None:
    """The pattern never goes back: a megabyte that fails at its very end fails at once."""
    data = entry.encode(make_entry(1, old='\\"x' * 300_000))
    start = time.perf_counter()
    for end in (b"}", b"", b'"'):
        with pytest.raises(NotCanonical):
            entry.decode(data[:-1] + b"\x01" + end)
    assert time.perf_counter() - start < 2
