"""Reads what ``journal`` writes, for the scribe; the formats are told there. Pure: bytes in, records out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from .identity import text_of
from .journal import COUNTS, FORMAT, HEAD, NO_CONTEXT, NO_TENANT

__all__ = ["Counts", "Event", "Malformed", "Query", "Read", "decode", "readable"]

_TEXTS = ("subject", "role", "purpose", "database_role", "address", "application")
_NUL = rb"(?<!\\)(?:\\\\)*\\u0000"  # as an escape, not as its spelling
_OPERATION = r"[a-z_]{1,63}"


class Malformed(ValueError):
    """These bytes are no message of ours. The text never holds a value."""


class Read(NamedTuple):
    """``row`` is readable: ``17``, a uuid, a JSON array for a key of several columns; None: a statement's.

    Of a column the backend did not know, ``columns`` is the id, ``row`` hexadecimal after ``\\x``, and
    ``model`` is None.
    """

    tenant: UUID
    context: bytes | None
    statement: int
    model: UUID | None
    columns: str
    row: str | None


class Query(NamedTuple):
    """A transaction queries the face of a model, from this statement on."""

    tenant: UUID
    context: bytes | None
    statement: int
    model: UUID


class Counts(NamedTuple):
    """What a backend counted of a tenant; ``logins`` by how long they took (``journal.LOGIN_SECONDS``)."""

    tenant: UUID
    transactions: int
    sealed: int
    microseconds: int
    logins: Sequence[int]
    hits: int


class Event(NamedTuple):
    """``tenant`` is None: that of login role ``texts["database_role"]``, else the platform."""

    tenant: UUID | None
    context: bytes | None
    at: int
    operation: str
    texts: Mapping[str, str]
    detail: Mapping[str, Any] | None


def decode(message: bytes) -> Read | list[Read] | Query | Counts | Event:
    """Return what a message says; a list of what a client has read out of its cache. Raises Malformed."""
    if len(message) < HEAD.size:
        raise Malformed("is too short")
    number, kind, tenant, context, time = HEAD.unpack_from(message)
    if number != FORMAT:
        raise Malformed("is of a format that this version does not know")
    login = None if context == NO_CONTEXT else context
    body = message[HEAD.size :]
    if kind == b"e":
        return _event(None if tenant == NO_TENANT else UUID(bytes=tenant), login, time, body)
    if kind not in (b"r", b"p", b"s", b"q", b"c"):
        raise Malformed("is of a type that this version does not know")
    if tenant == NO_TENANT:
        raise Malformed("is a read of no tenant")
    if kind == b"c":
        if len(body) != COUNTS.size:
            raise Malformed("is damaged")
        transactions, sealed, microseconds, *logins, hits = COUNTS.unpack(body)
        return Counts(UUID(bytes=tenant), transactions, sealed, microseconds, logins, hits)
    if kind == b"q":
        if len(body) != 16:
            raise Malformed("is damaged")
        return Query(UUID(bytes=tenant), login, time, UUID(bytes=body))
    model, form, columns, row = _parts(body)
    if kind == b"s" and row:
        raise Malformed("has more than it should")
    identity = UUID(bytes=model) if any(model) else None
    read = Read(UUID(bytes=tenant), login, time, identity, columns, None)
    if kind == b"s":
        return read
    texts = [_readable(form, each) if form else _hexadecimal(each) for each in _rows(kind, row)]
    reads = [read._replace(row=text) for text in texts]
    return reads if kind == b"p" else reads[0]


def readable(form: str, row: bytes) -> str:
    """Return a row id as people read it; in hexadecimal if it is of another form, or that is not known."""
    try:
        return _readable(form, row) if form else _hexadecimal(row)
    except Malformed:
        return _hexadecimal(row)


def _hexadecimal(row: bytes) -> str:
    return f"\\x{row.hex()}"


def _parts(body: bytes) -> tuple[bytes, str, str, bytes]:
    try:
        form = body[17 : 17 + body[16]].decode("ascii")
        place = 17 + body[16]
        size = int.from_bytes(body[place : place + 2], "big")
        columns = body[place + 2 : place + 2 + size]
        if len(body) < place + 2 or len(columns) != size or not set(form) <= set("iut"):
            raise Malformed("is damaged")
        text = columns.decode()
    except (IndexError, UnicodeDecodeError):
        raise Malformed("is damaged") from None
    if not text or "\0" in text:
        raise Malformed("names no column")
    return body[:16], form, text, body[place + 2 + size :]


def _rows(kind: bytes, body: bytes) -> list[bytes]:
    if kind == b"r":
        return [body]
    rows, place = [], 0
    while place < len(body):
        end = place + 2 + int.from_bytes(body[place : place + 2], "big")
        if not place + 2 < end <= len(body):
            raise Malformed("is damaged")
        rows.append(body[place + 2 : end])
        place = end
    return rows


def _readable(form: str, row: bytes) -> str:
    """Return a row id as people read it."""
    if len(form) == 1:
        return str(_part(form, row))
    parts: list[int | str] = []
    place = 0
    for letter in form:
        size = int.from_bytes(row[place : place + 4], "big")
        part = row[place + 4 : place + 4 + size]
        if len(row) < place + 4 or len(part) != size:
            raise Malformed("has a row id of another form")
        parts.append(_part(letter, part))
        place += 4 + size
    if place != len(row):
        raise Malformed("has a row id of another form")
    return json.dumps(parts, ensure_ascii=False)


def _part(letter: str, part: bytes) -> int | str:
    if letter == "i" and len(part) == 8:
        return int.from_bytes(part, "big", signed=True)
    if letter == "u" and len(part) == 16:
        return text_of(part)
    if letter == "t" and b"\0" not in part:
        try:
            return part.decode()
        except UnicodeDecodeError:
            pass
    raise Malformed("has a row id of another form")


def _event(tenant: UUID | None, context: bytes | None, at: int, body: bytes) -> Event:
    try:
        members = json.loads(body.decode())
        again = json.dumps(members, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Malformed("is not JSON of Unicode text") from None
    if re.search(_NUL, again):
        raise Malformed("has a text that PostgreSQL cannot hold")
    if not isinstance(members, dict):
        raise Malformed("is not a JSON object")
    operation = members.pop("operation", None)
    detail = members.pop("detail", None)
    if not isinstance(operation, str) or not re.fullmatch(_OPERATION, operation):
        raise Malformed("has no operation")
    if detail is not None and not isinstance(detail, dict):
        raise Malformed("has a detail that is no object")
    if not all(name in _TEXTS and isinstance(text, str) for name, text in members.items()):
        raise Malformed("has a member that this version does not know")
    return Event(tenant, context, at, operation, members, detail)
