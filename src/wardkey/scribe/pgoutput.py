"""Decoder of what the output plugin ``pgoutput`` sends, protocol version 1. No I/O.

Source: PostgreSQL's documentation, "Logical Replication Message Formats", and its ``proto.c``. Each payload
is one message: a tag, then fields; integers are big-endian, strings end with NUL, times are microseconds
since 2000-01-01 UTC. Values come in their text form, in UTF-8: the stream asks for no other.

In the stream a transaction comes as a whole, when it commits: Begin, changes, Commit. Messages that belong to
no transaction stand between transactions, where they are in the WAL, whatever became of the transaction they
were written in. So ``Commit.end_lsn`` and the ``lsn`` of such a Message ever grow, and are the positions from
which a stream can go on; the LSNs of changes inside transactions go back and forth.

The publications publish inserts only: updates, deletes and truncates are not decoded, but refused.

Contents are no part of any repr: a traceback may be logged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from ..errors import StreamDamaged

__all__ = [
    "Begin",
    "Column",
    "Commit",
    "Decoder",
    "Event",
    "Insert",
    "Message",
    "Origin",
    "Relation",
    "Row",
    "Type",
]

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_BUILTIN: Final = "pg_catalog"  # sent as an empty string


Row = Mapping[str, str | None]
"""Column name → text, or None for SQL's null."""


@dataclass(frozen=True, slots=True)
class Begin:
    """A transaction follows. ``final_lsn``: where its commit record starts."""

    final_lsn: int
    committed_at: datetime
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction ends. ``end_lsn``: where its commit record ends, a position to go on from."""

    lsn: int
    end_lsn: int
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class Origin:
    """The transaction came from another server, known here as ``name``."""

    lsn: int
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type_oid: int
    type_modifier: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, sent before its first change in a connection, and again when it was altered.

    ``identity``: d default, n nothing, f full, i index.
    """

    oid: int
    schema: str
    name: str
    identity: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Type:
    """A type that is not built in, sent before the first Relation that uses it."""

    oid: int
    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Insert:
    relation: Relation
    new: Row = field(repr=False)


@dataclass(slots=True, unsafe_hash=True)  # by far the most frequent: frozen would double the time to make it
class Message:
    """What ``LogLogicalMessage`` wrote. ``lsn``: where its record ends.

    ``transactional``: it came inside its transaction and only because that one committed. ``left_out``: bytes
    of a content that is longer than anybody wants to hold, and is not here.
    """

    transactional: bool
    lsn: int
    prefix: str
    content: bytes = field(repr=False)
    left_out: int = 0


Event = Begin | Commit | Origin | Relation | Type | Insert | Message

_MESSAGE: Final = struct.Struct(">BQ")
_LENGTH: Final = struct.Struct(">I")
_LONGEST_HEAD: Final = 10_000  # bytes up to the end of a long message's prefix


class Decoder:
    """Decodes the payloads of one connection, in order: it remembers the relations they refer to."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._readers: dict[int, Callable[[_Reader], Event]] = {
            ord("B"): _begin,
            ord("C"): _commit,
            ord("O"): _origin,
            ord("R"): self._relation,
            ord("Y"): _type,
            ord("I"): self._insert,
        }

    def decode_long(self, payload: memoryview) -> Message:
        """Return the Message in ``payload`` without its content. Raises StreamDamaged unless it is one.

        Anybody who may execute pg_logical_emit_message can write one of a gigabyte, of whatever prefix.
        """
        head = bytes(payload[:_LONGEST_HEAD])
        end = head.find(0, 10)
        if head[:1] != b"M" or end < 0:
            raise _damaged(payload)
        flags, lsn = _MESSAGE.unpack_from(head, 1)
        prefix = head[10:end].decode(errors="replace")
        return Message(flags == 1, lsn, prefix, b"", left_out=len(payload) - end - 5)

    def decode(self, payload: bytes) -> Event:
        """Return the one message in ``payload``. Raises StreamDamaged unless it is exactly that."""
        try:
            if payload[0] == 77:  # M
                return _message(payload)
            reader = _Reader(payload)
            event = self._readers[reader.byte()](reader)
        except (IndexError, KeyError, ValueError, OverflowError, struct.error) as error:
            raise _damaged(payload) from error
        if reader.at != len(payload):
            raise _damaged(payload)
        return event

    def _known(self, reader: _Reader) -> Relation:
        return self._relations[reader.int32()]

    def _relation(self, reader: _Reader) -> Relation:
        oid, schema, name, identity = reader.int32(), reader.text(), reader.text(), chr(reader.byte())
        columns = []
        for _ in range(reader.int16()):
            is_key = reader.one_of(0, 1)
            columns.append(Column(reader.text(), reader.int32(), reader.signed32(), bool(is_key)))
        relation = Relation(oid, schema or _BUILTIN, name, identity, tuple(columns))
        self._relations[oid] = relation
        return relation

    def _insert(self, reader: _Reader) -> Insert:
        relation = self._known(reader)
        reader.one_of(ord("N"))
        return Insert(relation, reader.row(relation))


def _message(payload: bytes) -> Message:
    flags, lsn = _MESSAGE.unpack_from(payload, 1)
    end = payload.index(0, 10)
    (length,) = _LENGTH.unpack_from(payload, end + 1)
    if flags > 1 or len(payload) != end + 5 + length:
        raise ValueError
    return Message(flags == 1, lsn, payload[10:end].decode(), payload[end + 5 :])


def _begin(reader: _Reader) -> Begin:
    return Begin(reader.int64(), reader.time(), reader.int32())


def _commit(reader: _Reader) -> Commit:
    reader.one_of(0)  # flags, none defined
    return Commit(reader.int64(), reader.int64(), reader.time())


def _origin(reader: _Reader) -> Origin:
    return Origin(reader.int64(), reader.text())


def _type(reader: _Reader) -> Type:
    oid, schema, name = reader.int32(), reader.text(), reader.text()
    return Type(oid, schema or _BUILTIN, name)


class _Reader:
    """Takes fields off a payload; IndexError, ValueError or struct.error where there is no such field."""

    __slots__ = ("_payload", "at")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self.at = 0

    def byte(self) -> int:
        value = self._payload[self.at]
        self.at += 1
        return value

    def one_of(self, *allowed: int) -> int:
        if (value := self.byte()) not in allowed:
            raise ValueError
        return value

    def int16(self) -> int:
        return int.from_bytes(self.take(2))

    def int32(self) -> int:
        return int.from_bytes(self.take(4))

    def signed32(self) -> int:
        return int.from_bytes(self.take(4), signed=True)

    def int64(self) -> int:
        return int.from_bytes(self.take(8))

    def time(self) -> datetime:
        return _EPOCH + timedelta(microseconds=int.from_bytes(self.take(8), signed=True))

    def text(self) -> str:
        end = self._payload.index(0, self.at)
        value = self._payload[self.at : end].decode()
        self.at = end + 1
        return value

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._payload):
            raise ValueError
        value = self._payload[self.at : end]
        self.at = end
        return value

    def row(self, relation: Relation) -> Row:
        columns = relation.columns
        if self.int16() != len(columns):
            raise ValueError
        return {column.name: self._value() for column in columns}

    def _value(self) -> str | None:
        match self.byte():
            case 0x74:  # t
                return self.take(self.int32()).decode(errors="surrogateescape")
            case 0x6E:  # n
                return None
            case _:
                raise ValueError


def _damaged(payload: bytes | memoryview) -> StreamDamaged:
    """Say where, not what: payloads hold people's data."""
    tag = repr(chr(payload[0])) if payload else "nothing"
    return StreamDamaged(
        f"the audit stream has a message of {len(payload)} bytes, tagged {tag}, that pgoutput version 1 "
        "does not send",
        "connect again; if it stays, the server or something between is not PostgreSQL's own pgoutput",
    )
