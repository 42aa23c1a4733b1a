"""Rows of the audit log's tables as canonical entries, in the order in which they were sealed.

What an entry's bytes are made of is in its row alone, in columns that never change: ``table`` is the model's
id, not its name, which may change or go. ``old``, ``new`` and ``detail`` are the texts of jsonb, which every
PostgreSQL writes in one way.

The scribe seals what ``entry_of`` makes of a row of ``COLUMNS``; the exporter makes it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from wardkey_core.log import canonical, entry
from wardkey_core.log.canonical import NotCanonical
from wardkey_core.log.checkpoint import Checkpoint, Signed
from wardkey_core.log.merkle import Range, leaf_hash

__all__ = [
    "COLUMNS",
    "UNREADABLE",
    "DamagedLog",
    "Database",
    "Log",
    "Row",
    "Sealed",
    "bytes_of",
    "entry_of",
    "split_columns",
]

_TIME = """to_char(e.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

COLUMNS = f"""
e.tenant_id::text, e.id, {_TIME} as at, e.kind::text, e.operation, encode(e.context, 'hex') as context,
e.transaction::text, e.statement, e.model_id::text, e.row_id, e.columns,
ward_internal.json_text(e.old) as old, ward_internal.json_text(e.new) as new,
ward_internal.json_text(e.detail) as detail, e.subject,
e.role, e.purpose, e.database_role, e.address, e.application"""
"""What to select of ``ward_internal.audit_log as e``; ``journalled`` is how a row came, not what it says."""

UNREADABLE = '{"wardkey": "too long to be read"}'
"""What stands for an image or a detail of 16 MB or more: see ward_internal.json_text."""

_KINDS = {"w": "write", "r": "read", "e": "event"}
_MEMBERS = (
    "tenant", "id", "at", "kind", "operation", "context", "transaction", "statement", "table", "row",
    "columns", "old", "new", "detail", "subject", "role", "purpose", "database_role", "address",
    "application",
)  # fmt: skip
_NAME = re.compile(r'"((?:[^"]|"")*)"(?:,|\Z)|([^",]*)(?:,|\Z)')
_GROUP = 5_000  # rows fetched at a time
_FAR = 100_000  # ids further apart are looked for on their own

Row = tuple[Any, ...]


class DamagedLog(ValueError):
    """The order or the checkpoints of the log are not what a scribe writes."""

    exit_code = 4
    hint = "what is wrong says: wardkey audit verify --live"


def entry_of(row: Row) -> dict[str, Any]:
    """Return the members of the entry of a row of ``COLUMNS``."""
    members = dict(zip(_MEMBERS, row, strict=True))
    members["format"] = entry.FORMAT
    members["id"] = str(members["id"])
    members["kind"] = _KINDS.get(members["kind"], members["kind"])
    if members["columns"] is not None:
        members["columns"] = split_columns(members["columns"])
    return {name: value for name, value in members.items() if value is not None}


def bytes_of(row: Row) -> bytes:
    """Return the canonical bytes of a row's entry. Of a row that was tampered with they may be no entry."""
    return canonical.encode(entry_of(row))


def split_columns(text: str) -> list[str]:
    """Return the names in a comma-separated list of names as SQL quotes them."""
    if '"' not in text:
        return text.split(",")
    names, place = [], 0
    while place < len(text) and (match := _NAME.match(text, place)) and match.end() > place:
        quoted, plain = match.groups()
        names.append(plain if quoted is None else quoted.replace('""', '"'))
        place = match.end()
    return names if place == len(text) else [text]  # not a list: as it stands


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is there for a position, and the id and leaf hash it was sealed with. ``row`` is None: nothing."""

    position: int
    row: Row | None
    leaf: bytes
    id: int


class Database(Protocol):
    def rows(self, query: str, *values: str | None, size: int = 1000) -> Iterator[Row]:
        """Yield the rows of a query of names that differ, fetched by ``size``; ``values`` are $1, $2, ….

        No join of it may be a nested loop. Of a log that was never analyzed few rows are expected, and of a
        cursor's result that a tenth is enough: each of 100,000 rows would be compared with each of as many.
        """


class Log:
    """A tenant's log as it is in one snapshot of ``database``.

    ``table``: the log, or this tenant's part of it. ``strays``: rows that stand there beside the one that was
    sealed under their id, as far as was read.
    """

    def __init__(self, database: Database, tenant: UUID, table: str = "ward_internal.audit_log") -> None:
        self._database, self.tenant, self._table = database, str(tenant), table
        self.strays: list[Row] = []

    def checkpoints(self, after: int = 0, until: int | None = None) -> Iterator[tuple[Signed, bytes]]:
        """Yield the checkpoints of sizes above ``after``, up to ``until``, with their public keys.

        The first of all is number 1, or the one of the size that the log begins at. Raises DamagedLog.
        """
        query = """
            select checkpoint, signature, key from ward_internal.audit_checkpoints where tenant_id = $1::uuid
             and size > $2::bigint and size <= coalesce($3::bigint, 9223372036854775807) order by size"""
        for text, signature, key in self._database.rows(query, self.tenant, str(after), _number(until)):
            try:
                yield Signed(Checkpoint.decode(text.encode()), signature), key
            except NotCanonical as error:
                raise DamagedLog(f"a checkpoint of the log {error}") from None

    def begins(self) -> int:
        """Return the first position that is there: above 0 where what was ahead of it was pruned."""
        query = """
            select coalesce(
              (select min(first_position) from ward_internal.audit_batches where tenant_id = $1::uuid),
              (select max(size) from ward_internal.audit_checkpoints where tenant_id = $1::uuid),
              0) as begins"""
        ((begins,),) = self._database.rows(query, self.tenant)
        return int(begins)

    def frontier(self, size: int) -> Range:
        """Return the compact range of the positions before ``size``, that of a checkpoint. Raises DamagedLog.

        As it was stored with the checkpoint: what is below the oldest one may have been pruned.
        """
        query = """
            select frontier from ward_internal.audit_checkpoints
             where tenant_id = $1::uuid and size = $2::bigint"""
        hashes = b"".join(row[0] for row in self._database.rows(query, self.tenant, str(size)))
        try:
            return Range(0, size, [hashes[place : place + 32] for place in range(0, len(hashes), 32)])
        except ValueError:
            raise DamagedLog(f"the checkpoint of {size} entries has lost the hashes of its tree") from None

    def leaves(self, end: int, begin: int = 0) -> Iterator[bytes]:
        """Yield the leaf hashes of positions ``begin`` to before ``end``. Raises DamagedLog."""
        for position, _, leaves in self._batches(begin, end):
            for place in range(max(begin - position, 0), min(end - position, len(leaves) // 32)):
                yield leaves[32 * place : 32 * place + 32]

    def sealed(self, begin: int, end: int | None) -> Iterator[Sealed]:
        """Yield what is there for positions ``begin`` to before ``end``, or all from ``begin`` on."""
        waiting: list[tuple[int, int, bytes]] = []
        for position, ids, leaves in self._batches(begin, end):
            last = len(ids) if end is None else min(end - position, len(ids))
            for place in range(max(begin - position, 0), last):
                waiting.append((position + place, ids[place], leaves[32 * place : 32 * place + 32]))
                if len(waiting) == _GROUP:
                    yield from self._fetch(waiting)
                    waiting.clear()
        yield from self._fetch(waiting)

    def unsealed(self) -> Iterator[Row]:
        """Yield the rows that have no position, by id."""
        query = f"""
            select {COLUMNS} from {self._table} as e where e.tenant_id = $1::uuid and not exists (
              select from (select unnest(ids) as id from ward_internal.audit_batches
                where tenant_id = $1::uuid) as b where b.id = e.id)
            order by e.id"""  # noqa: S608
        yield from self._database.rows(query, self.tenant, size=_GROUP)

    def position_of(self, identity: int) -> int | None:
        """Return where the entry of this id is in the tree."""
        query = """
            select first_position + array_position(ids, $2::bigint) - 1 as position
              from ward_internal.audit_batches where tenant_id = $1::uuid and $2::bigint = any (ids)"""
        positions = [row[0] for row in self._database.rows(query, self.tenant, str(identity))]
        return int(positions[0]) if positions else None

    def _batches(self, begin: int, end: int | None) -> Iterator[tuple[int, list[int], bytes]]:
        """Yield (first position, ids, leaf hashes) of the batches that reach into the range."""
        query = """
            select first_position, ids, leaf_hashes from ward_internal.audit_batches
             where tenant_id = $1::uuid and first_position + cardinality(ids) > $2::bigint
               and first_position < coalesce($3::bigint, 9223372036854775807)
             order by first_position"""
        due = None
        batches = self._database.rows(query, self.tenant, str(begin), _number(end), size=20)
        for position, ids, leaves in batches:
            if position > begin if due is None else position != due:
                raise DamagedLog(f"the order of the log has a gap at position {due or begin}")
            due = position + len(ids)
            yield position, ids, leaves

    def _fetch(self, wanted: Sequence[tuple[int, int, bytes]]) -> Iterator[Sealed]:
        rows_by_id: dict[int, list[Row]] = {}
        for first, last in _stretches(sorted(identity for _, identity, _ in wanted)):
            query = f"""
                select {COLUMNS} from {self._table} as e where e.tenant_id = $1::uuid
                 and e.id between $2::bigint and $3::bigint and e.id = any ($4::bigint[])"""  # noqa: S608
            ids = ",".join(str(identity) for _, identity, _ in wanted if first <= identity <= last)
            values = (self.tenant, str(first), str(last), f"{{{ids}}}")
            for row in self._database.rows(query, *values, size=_GROUP):
                rows_by_id.setdefault(row[1], []).append(row)
        for position, identity, leaf in wanted:
            rows = rows_by_id.get(identity, [])
            if len(rows) > 1:  # the key has the time too, so a second one can be put in
                rows.sort(key=lambda row: leaf_hash(bytes_of(row)) != leaf)
                self.strays += rows[1:]
                rows_by_id[identity] = rows[:1]
            yield Sealed(position, rows[0] if rows else None, leaf, identity)


def _stretches(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of ids in ascending order that are not far apart."""
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or ids[place] - ids[place - 1] > _FAR:
            yield ids[start], ids[place - 1]
            start = place


def _number(position: int | None) -> str | None:
    return None if position is None else str(position)
