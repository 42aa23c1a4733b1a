"""What a backend writes into the WAL for the audit log: messages of prefix ``wardkey``, outside transactions.

They stay whatever becomes of the transaction, and a READ ONLY one can write them. Tenants cannot: they may
not execute what emits messages. A *transactional* message of this prefix is never ours.

A message of format 1; integers are big-endian, times signed microseconds since 2000-01-01 UTC::

    0x01 · type (1) · tenant (16) · context (16, zeros: none) · time (8) · body

``r``, a row was read; the time is when the client's statement began, ``statement`` of the entry::

    model (16) · length (1) · form of the key · length (2) · columns · row id, to the end

The form has a letter for each column of the primary key: ``i`` integer, ``u`` uuid, ``t`` text. Of a column
that the backend did not know, form and model are empty and zeros, and columns is its id. Columns as in the
log: quoted as in SQL, comma-separated. The row id is that of the ciphertexts (see ``envelope``). One
statement may write several messages for a row; each names all columns that the statement had read by then,
and those that statements of the same text had read before.

``s``, a statement read rows of a model whose level is ``statement``: as ``r``, without a row id.

``q``, a transaction begins to query the face of a model; the time is that of its first statement that does::

    model (16)

What of a row is NULL or not sealed is opened by nobody, so this is all that is noted of it.

``e``, an event: a JSON object in UTF-8 with ``operation`` and any of subject, role, purpose, database_role,
address, application (text) and ``detail`` (object). Tenant zeros: it is that of login role
``database_role``, else the platform.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .identity import text_of

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "NO_CONTEXT",
    "NO_MODEL",
    "NO_TENANT",
    "PREFIX",
    "Event",
    "Malformed",
    "Query",
    "Read",
    "decode",
    "event",
    "query",
    "read_ends",
    "readable",
]

PREFIX = "wardkey"
NO_TENANT = NO_CONTEXT = NO_MODEL = bytes(16)

_FORMAT = 1
_HEAD = struct.Struct(">Bc16s16sq")
_LONGEST_COLUMNS = 65_535
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


class Event(NamedTuple):
    """``tenant`` is None: that of login role ``texts["database_role"]``, else the platform."""

    tenant: UUID | None
    context: bytes | None
    at: int
    operation: str
    texts: Mapping[str, str]
    detail: Mapping[str, Any] | None


def read_ends(
    tenant: bytes, context: bytes, model: bytes, form: str, columns: Sequence[str], *, row: bool
) -> tuple[bytes, bytes]:
    """Return what a message about rows read is before the time, and between time and row id."""
    names = _cut(",".join(columns).encode())
    head = _HEAD.pack(_FORMAT, b"r" if row else b"s", tenant, context, 0)[:-8]
    return head, b"".join((model, bytes((len(form),)), form.encode(), len(names).to_bytes(2, "big"), names))


def query(tenant: bytes, context: bytes, at: int, model: bytes) -> bytes:
    """Return a message about a model whose face is queried."""
    return _HEAD.pack(_FORMAT, b"q", tenant, context, at) + model


def event(
    tenant: bytes,
    context: bytes,
    at: int,
    operation: str,
    texts: Mapping[str, str | None],
    detail: Mapping[str, Any],
) -> bytes:
    """Return a message about an event; texts that are None are left out."""
    members: dict[str, Any] = {"operation": operation}
    members |= {name: text for name, text in texts.items() if text is not None}
    if detail:
        members["detail"] = dict(detail)
    body = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    return _HEAD.pack(_FORMAT, b"e", tenant, context, at) + body


def decode(message: bytes) -> Read | Query | Event:
    """Return what a message says. Raises Malformed."""
    from uuid import UUID  # writers of messages do without

    if len(message) < _HEAD.size:
        raise Malformed("is too short")
    number, kind, tenant, context, time = _HEAD.unpack_from(message)
    if number != _FORMAT:
        raise Malformed("is of a format that this version does not know")
    login = None if context == NO_CONTEXT else context
    body = message[_HEAD.size :]
    if kind == b"e":
        return _event(None if tenant == NO_TENANT else UUID(bytes=tenant), login, time, body)
    if kind not in (b"r", b"s", b"q"):
        raise Malformed("is of a type that this version does not know")
    if tenant == NO_TENANT:
        raise Malformed("is a read of no tenant")
    if kind == b"q":
        if len(body) != 16:
            raise Malformed("is damaged")
        return Query(UUID(bytes=tenant), login, time, UUID(bytes=body))
    model, form, columns, row = _parts(body)
    if kind == b"s":
        if row:
            raise Malformed("has more than it should")
        row_text = None
    else:
        row_text = _readable(form, row) if form else _hexadecimal(row)
    identity = UUID(bytes=model) if any(model) else None
    return Read(UUID(bytes=tenant), login, time, identity, columns, row_text)


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


def _cut(names: bytes) -> bytes:
    """Return what fits of a list of columns: 1,600 columns of 63 bytes would not."""
    if len(names) <= _LONGEST_COLUMNS:
        return names
    return names[: names.rindex(b",", 0, _LONGEST_COLUMNS)]
