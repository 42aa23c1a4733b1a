"""What a backend writes into the WAL for the audit log: messages of prefix ``wardkey``, outside transactions.

They stay when the transaction is rolled back, and a READ ONLY one can write them. Tenants cannot: they may
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

``p``, rows were read out of a client's cache: as ``r``, each row id behind its length (2).

``s``, a statement read rows of a model whose level is ``statement``: as ``r``, without a row id.

``q``, a transaction begins to query the face of a model; the time is that of its first statement that does::

    model (16)

What of a row is NULL or not sealed is opened by nobody, so this is all that is noted of it.

``c``, what a backend counted of the tenant since it last said, for metrics; no entry, and the time is 0::

    transactions (8) · fields sealed (8) · microseconds of logins (8) · logins (4) in each of LOGIN_SECONDS,
    and of longer ones (4) · values that clients say they had out of their cache (8)

``e``, an event: a JSON object in UTF-8 with ``operation`` and any of subject, role, purpose, database_role,
address, application (text) and ``detail`` (object). Tenant zeros: it is that of login role
``database_role``, else the platform.
"""

from __future__ import annotations

from _struct import Struct  # struct's, without reading it

from .plain_json import dumps

__all__ = [
    "COUNTS",
    "LOGIN_SECONDS",
    "NO_CONTEXT",
    "NO_MODEL",
    "NO_TENANT",
    "PREFIX",
    "cached_read",
    "counts",
    "event",
    "query",
    "read_ends",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

PREFIX = "wardkey"
NO_TENANT = NO_CONTEXT = NO_MODEL = bytes(16)

FORMAT = 1
HEAD = Struct(">Bc16s16sq")
LOGIN_SECONDS = (0.001, 0.0025, 0.005, 0.02, 0.1, 1.0)
"""How long logins take at most that are counted together; each but the first longer than the one before."""
COUNTS = Struct(f">QQQ{len(LOGIN_SECONDS) + 1}IQ")
_LONGEST_COLUMNS = 65_535


def read_ends(
    tenant: bytes, context: bytes, model: bytes, form: str, columns: Sequence[str], *, row: bool
) -> tuple[bytes, bytes]:
    """Return what a message about rows read is before the time, and between time and row id."""
    return _read_ends(b"r" if row else b"s", tenant, context, model, form, columns)


def cached_read(
    tenant: bytes,
    context: bytes,
    at: int,
    model: bytes,
    form: str,
    columns: Sequence[str],
    rows: Sequence[bytes],
) -> bytes:
    """Return a message about rows, or a statement of which no row is known, that a client had cached."""
    head, end = _read_ends(b"p" if rows else b"s", tenant, context, model, form, columns)
    parts = [head, at.to_bytes(8, "big", signed=True), end]
    for row in rows:
        parts += len(row).to_bytes(2, "big"), row
    return b"".join(parts)


def _read_ends(
    kind: bytes, tenant: bytes, context: bytes, model: bytes, form: str, columns: Sequence[str]
) -> tuple[bytes, bytes]:
    names = _cut(",".join(columns).encode())
    head = HEAD.pack(FORMAT, kind, tenant, context, 0)[:-8]
    return head, b"".join((model, bytes((len(form),)), form.encode(), len(names).to_bytes(2, "big"), names))


def query(tenant: bytes, context: bytes, at: int, model: bytes) -> bytes:
    """Return a message about a model whose face is queried."""
    return HEAD.pack(FORMAT, b"q", tenant, context, at) + model


def counts(
    tenant: bytes, transactions: int, sealed: int, microseconds: int, logins: Sequence[int], hits: int = 0
) -> bytes:
    """Return a message about what a backend counted."""
    return HEAD.pack(FORMAT, b"c", tenant, NO_CONTEXT, 0) + COUNTS.pack(
        transactions, sealed, microseconds, *logins, hits
    )


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
    return HEAD.pack(FORMAT, b"e", tenant, context, at) + dumps(members).encode()


def _cut(names: bytes) -> bytes:
    """Return what fits of a list of columns: 1,600 columns of 63 bytes would not."""
    if len(names) <= _LONGEST_COLUMNS:
        return names
    return names[: names.rindex(b",", 0, _LONGEST_COLUMNS)]
