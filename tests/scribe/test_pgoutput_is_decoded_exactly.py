"""Each payload is one message, wholly understood, or refused: bytes of a real server, and any others.

``pgoutput.json`` is what PostgreSQL 15's ``pg_logical_slot_get_binary_changes`` gave for the statements that
``_EXPECTED`` tells of. The encoder here is written from the protocol's documentation.
"""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardkey.errors import StreamDamaged
from wardkey.scribe.pgoutput import (
    Begin,
    Column,
    Commit,
    Decoder,
    Event,
    Insert,
    Message,
    Origin,
    Relation,
    Row,
    Type,
)

PAYLOADS = [
    bytes.fromhex(text)
    for text in json.loads(Path(__file__).with_name("pgoutput.json").read_text())["payloads"]
]
_AT = datetime(2026, 11, 22, 16, 23, 14, 1459, tzinfo=UTC)
_MOOD = Type(16593, "public", "mood")
_FELT = Relation(
    16597,
    "public",
    "felt",
    "d",
    (Column("id", 23, -1, True), Column("mood", 16593, -1, False), Column("long", 25, -1, False)),
)
_KEPT = Relation(
    16604, "public", "kept", "f", (Column("id", 23, -1, True), Column("what", 1043, 9 + 4, True))
)
_EXPECTED = [
    Begin(302797464, _AT, 760),
    Origin(0, "elsewhere"),
    _MOOD,
    _FELT,
    Insert(_FELT, {"id": "1", "mood": "calm", "long": "ä" * 1100}),
    _KEPT,
    Insert(_KEPT, {"id": "1", "what": "a"}),
    Message(True, 302793760, "other", b"\x00\x01\xff"),
    _MOOD,
    _FELT,
    _KEPT,
    Commit(302797464, 302797904, _AT),
    Message(False, 302798272, "wardkey", b""),
]


def decode_all(payloads: list[bytes]) -> list[Event]:
    decoder = Decoder()
    return [decoder.decode(payload) for payload in payloads]


def test_bytes_of_a_real_server():
    assert decode_all([payload for payload in PAYLOADS if payload[:1] not in (b"U", b"D", b"T")]) == _EXPECTED


def test_only_inserts_are_taken():
    """The publications publish nothing else; a stream that brings it is not theirs."""
    decoder, refused = Decoder(), set()
    for payload in PAYLOADS:
        try:
            decoder.decode(payload)
        except StreamDamaged:
            refused.add(payload[:1])
    assert refused == {b"U", b"D", b"T"}


def encode(event: Event) -> bytes:
    def text(value: str) -> bytes:
        return value.encode() + b"\0"

    def micros(at: datetime) -> int:
        return (at - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)

    def row(values: Row) -> bytes:
        parts = [struct.pack(">H", len(values))]
        for column in event.relation.columns:
            value = values[column.name]
            if value is None:
                parts.append(b"n")
            else:
                parts.append(b"t" + struct.pack(">I", len(value.encode())) + value.encode())
        return b"".join(parts)

    match event:
        case Begin(final_lsn, at, xid):
            return b"B" + struct.pack(">QqI", final_lsn, micros(at), xid)
        case Commit(lsn, end_lsn, at):
            return b"C\0" + struct.pack(">QQq", lsn, end_lsn, micros(at))
        case Origin(lsn, name):
            return b"O" + struct.pack(">Q", lsn) + text(name)
        case Type(oid, schema, name):
            return b"Y" + struct.pack(">I", oid) + text("" if schema == "pg_catalog" else schema) + text(name)
        case Relation(oid, schema, name, identity, columns):
            head = text("" if schema == "pg_catalog" else schema) + text(name) + identity.encode()
            body = b"".join(
                bytes([column.is_key])
                + text(column.name)
                + struct.pack(">Ii", column.type_oid, column.type_modifier)
                for column in columns
            )
            return b"R" + struct.pack(">I", oid) + head + struct.pack(">H", len(columns)) + body
        case Insert(relation, new):
            return b"I" + struct.pack(">I", relation.oid) + b"N" + row(new)
        case Message(transactional, lsn, prefix, content):
            head = b"M" + struct.pack(">BQ", transactional, lsn) + text(prefix)
            return head + struct.pack(">I", len(content)) + content


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
lsns, oids = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
times = st.datetimes(datetime(1, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))
columns = st.builds(Column, words, oids, st.integers(-(2**31), 2**31 - 1), st.booleans())
relations = st.builds(
    Relation,
    oids,
    words,
    words,
    st.sampled_from("dnfi"),
    st.lists(columns, unique_by=lambda column: column.name, max_size=8).map(tuple),
)


@st.composite
def changes(draw) -> list[Event]:
    """A relation and a row of it."""
    relation = draw(relations)
    rows = {column.name: st.none() | words | st.just("") for column in relation.columns}
    return [relation, draw(st.builds(Insert, st.just(relation), st.fixed_dictionaries(rows)))]


others = st.one_of(
    st.builds(Begin, lsns, times, oids),
    st.builds(Commit, lsns, lsns, times),
    st.builds(Origin, lsns, words),
    st.builds(Type, oids, words, words),
    st.builds(Message, st.booleans(), lsns, words | st.just(""), st.binary(max_size=200)),
).map(lambda event: [event])
streams = st.lists(changes() | others, max_size=6).map(
    lambda parts: [event for part in parts for event in part]
)


@given(streams)
def test_what_was_encoded_is_decoded(events):
    assert decode_all([encode(event) for event in events]) == events


@given(changes() | others, st.data())
def test_cut_or_lengthened_is_refused(events, data):
    *before, last = [encode(event) for event in events]
    decoder = Decoder()
    for payload in before:
        decoder.decode(payload)
    cut = last[: data.draw(st.integers(0, len(last) - 1))]
    for damaged in (cut, last + data.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(StreamDamaged):
            decoder.decode(damaged)
    decoder.decode(last)


@given(st.binary(max_size=60) | st.sampled_from(PAYLOADS), st.integers(0, 400), st.binary(max_size=4))
def test_any_bytes_are_decoded_or_refused(payload, at, patch):
    decoder = Decoder()
    for relation in (_FELT, _KEPT):
        decoder.decode(encode(relation))
    try:
        decoder.decode(payload[:at] + patch + payload[at + len(patch) :])
    except StreamDamaged as error:
        assert len(error.message) < 200


@pytest.mark.parametrize("what", ["change of an unknown relation", "wrong number of values"])
def test_row_that_fits_no_relation_is_refused(what):
    decoder, narrower = Decoder(), Relation(_KEPT.oid, "public", "kept", "f", _KEPT.columns[:1])
    if what == "wrong number of values":
        decoder.decode(encode(_KEPT))
    with pytest.raises(StreamDamaged):
        decoder.decode(encode(Insert(narrower, {"id": "1"})))


def test_altered_relation_replaces_the_old_one():
    decoder = Decoder()
    narrower = Relation(_KEPT.oid, "public", "kept", "f", _KEPT.columns[:1])
    for relation, row in ((_KEPT, {"id": "1", "what": "a"}), (narrower, {"id": "2"})):
        decoder.decode(encode(relation))
        assert decoder.decode(encode(Insert(relation, row))) == Insert(relation, row)


def test_no_repr_or_error_tells_contents():
    secret = "Ada Lovelace"
    row = {"id": "1", "what": secret}
    events = [
        Insert(_KEPT, row),
        Message(False, 1, "wardkey", secret.encode()),
    ]
    assert secret not in repr(events)
    decoder = Decoder()
    decoder.decode(encode(_KEPT))
    for event in events:
        with pytest.raises(StreamDamaged) as caught:
            decoder.decode(encode(event)[:-1])
        assert secret[:-2] not in str(caught.value) + str(caught.value.hint)
