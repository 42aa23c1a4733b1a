"""What the stream brings, as entries: messages of the journal to be written, rows that are there already.

A ``Turn`` takes events in their order, makes the bytes that are hashed, and writes what is journalled. Reads
are most of it, so their lines are put together from parts that all rows of a statement share; whatever else
is journalled goes through ``audit.source``, as everything does when it is exported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import Any, Final, cast
from uuid import UUID

import psycopg
from wardkey_core import journal_reader as journal
from wardkey_core.log import entry as entry_format
from wardkey_core.log.canonical import encode as canonical
from wardkey_core.log.merkle import leaf_hash
from wardkey_core.log.source import COLUMNS, UNREADABLE, bytes_of, split_columns

from .counts import Counts
from .pgoutput import Begin, Message
from .pgoutput import Row as StreamRow
from .replication import lsn_text

__all__ = ["PLATFORM", "Leaves", "Turn", "time_text"]

PLATFORM: Final = str(UUID(int=0))
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EARLIEST: Final = -946_684_800_000_000  # 1970: a clock that was never set
_LATEST: Final = 9_000_000_000_000_000  # as far as an entry's member statement goes
_TEXTS: Final = ("subject", "role", "purpose", "database_role", "address", "application")
_COPY: Final = f"""
    copy ward_internal.audit_log (tenant_id, id, at, kind, operation, context, statement, model_id, row_id,
      columns, detail, {", ".join(_TEXTS)}, journalled) from stdin"""
_NO_TEXTS: Final = "\t\\N" * len(_TEXTS) + "\tt\n"
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_ISO: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_MANY: Final = 64  # rows that a statement read, from which on an entry names more than one
_LONG: Final = 60_000  # bytes of ids in an entry: brokers take messages of a megabyte
_INTEGER: Final = re.compile("0|-?[1-9][0-9]{0,17}")
_NEAR: Final = timedelta(seconds=2)
_LOOK_UP: Final = f"""
    select {COLUMNS} from ward_internal.audit_log as e where e.tenant_id = %s and e.id = %s
      and octet_length(concat(row_id, columns, operation, subject, role, purpose, database_role, address,
        application)) < 16000000 limit 1"""  # noqa: S608
_STORED_TIME: Final = re.compile(r"(.{10}) (.{8})(?:\.([0-9]+))?\+00")

Connection = psycopg.Connection[Any]
Stored = tuple[Any, ...]
"""A row of ``audit.source.COLUMNS``; of one that is still to be written the id is None."""


@dataclass(slots=True)
class Leaves:
    """A tenant's entries of a turn, in order. ``newest``: the latest time that one tells of."""

    ids: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    newest: str = ""


@dataclass(slots=True)
class _Form:
    """What entries share whose rows one statement read, the same columns of each; in the gaps: id, row."""

    tenant: str
    at: str
    read: journal.Read
    data: tuple[str, str, str]
    line: tuple[str, str, str]
    fields: int  # how many columns
    opened: list[int] = field(default_factory=lambda: [0, 0, 0])  # rows, fields, statements without rows


@dataclass(slots=True)
class _Read:
    form: _Form
    row: str


@dataclass(slots=True)
class _Group:
    """What one statement read of a model: forms by their columns; each row's columns and place."""

    forms: dict[str, _Form] = field(default_factory=dict)
    rows: dict[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(slots=True)
class _Sealed:
    """A row that is in the table: only its place is to be sealed."""

    tenant: str
    id: int
    at: str
    leaf: bytes


class Turn:
    """Events in the order of the log, to be written and sealed together.

    ``size``: bytes of the messages among them, which are what is kept of them; of a row, only its hash is.
    """

    def __init__(self) -> None:
        self.size = 0
        self._items: list[_Read | Stored | journal.Event | _Sealed] = []
        self._groups: dict[tuple[Any, ...], _Group] = {}
        self._defects: dict[tuple[str, str], list[str]] = {}  # by tenant and what is wrong: ids
        self._counts, self._counted = Counts(), 0  # messages that are no entries

    def __len__(self) -> int:
        return len(self._items) + len(self._defects) + self._counted

    def message(self, message: Message) -> None:
        """Take a message of the journal. What is none of ours becomes an event that says so."""
        if message.transactional:
            self.event("journal_forged", {"defect": "is transactional"} | _traits(message))
            return
        if message.left_out:
            self.event("journal_malformed", {"defect": "is too long to be read"} | _traits(message))
            return
        self.size += len(message.content)
        try:
            content = journal.decode(message.content)
            if isinstance(content, journal.Read):
                self._read(content)
            elif isinstance(content, list):
                for read in content:
                    self._read(read)
            elif isinstance(content, journal.Query):
                self._items.append(_queried(content))
            elif isinstance(content, journal.Counts):
                self._counts.backend(content)
                self._counted += 1
            else:
                _check_event(content)
                self._items.append(content)
        except (journal.Malformed, ValueError) as error:
            defect = str(error) if isinstance(error, journal.Malformed) else "holds what cannot be stored"
            self.event("journal_malformed", {"defect": defect} | _traits(message))

    def event(self, operation: str, detail: Mapping[str, Any], tenant: str = PLATFORM) -> None:
        """Take an event that the scribe has to tell itself."""
        self._items.append(journal.Event(UUID(tenant), None, _now(), operation, {}, dict(detail)))

    def inserted(self, row: StreamRow, begin: Begin | None, settled: str | None) -> None:
        """Take a row of audit_log that its own transaction wrote, as the stream has it.

        ``settled``: no entry that is still to come should tell of a time before this.
        """
        text: dict[str, Any] = dict(row)
        if stored_time := _STORED_TIME.fullmatch(text["at"]):
            day, time, fraction = stored_time.groups()
            text["at"] = f"{day}T{time}.{fraction or '':0<6}Z"
        self._take(
            (
                text["tenant_id"],
                int(text["id"]),
                text["at"],
                text["kind"],
                text["operation"],
                text["context"] and text["context"].removeprefix("\\x"),
                text["transaction"],
                text["statement"] and int(text["statement"]),
                *(text[name] for name in ("model_id", "row_id", "columns", "old", "new", "detail")),
                *(text[name] for name in _TEXTS),
            ),
            begin,
            settled,
        )

    def looked_up(
        self, connection: Connection, ids: StreamRow, begin: Begin | None, settled: str | None
    ) -> None:
        """Take a row of audit_log of which the stream has only whose and which it is."""
        rows = connection.execute(_LOOK_UP, [ids["tenant_id"], ids["id"]]).fetchall()
        if rows:
            self._take(rows[0], begin, settled)
        else:
            self._defect(str(ids["tenant_id"]), str(ids["id"]), "is too long to be read, or gone: not sealed")

    def stored(self, row: Stored) -> None:
        """Take a row of which the stream had nothing: its time has to be believed."""
        self._take(row, None, None)

    def _take(self, row: Stored, begin: Begin | None, settled: str | None) -> None:
        if UNREADABLE in row[11:14]:
            self._defect(row[0], str(row[1]), "is too long to be read: not sealed")
            return
        try:
            data = bytes_of(row)
            is_entry = entry_format.match(data.decode()) is not None
        except ValueError:
            is_entry = False
        if not is_entry:
            self._defect(row[0], str(row[1]), "is no entry: not sealed")
            return
        self._items.append(_Sealed(row[0], row[1], row[2], leaf_hash(data)))
        if row[3] == "w":
            self._counts.written(row[0], row[4])
        if begin is not None and (defect := _defect_of(row, begin, settled)):
            self._defect(row[0], str(row[1]), defect)

    def _defect(self, tenant: str, identity: str, defect: str) -> None:
        """Have an event say what is wrong with an entry: somebody put it in by hand."""
        self._defects.setdefault((tenant, defect), []).append(identity)

    def write(self, connection: Connection, months: set[tuple[str, str]]) -> dict[str, Leaves]:
        """Write what is journalled and return the leaves of all entries, by tenant.

        ``months``: tenants' partitions that are known to be there.
        """
        self._join_reads()
        for (tenant, defect), entries in self._defects.items():
            told = {"defect": defect, "entries": entries[:20], "count": len(entries), "investigate": True}
            self.event("tampered_log", told, tenant)
        items = self._items
        ids = iter(_ids(connection, sum(not isinstance(item, _Sealed) for item in items)))
        events = iter(_stored_events(connection, [item for item in items if isinstance(item, journal.Event)]))
        leaves: dict[str, Leaves] = {}
        lines: list[str] = []
        for item in items:
            if type(item) is _Sealed:
                tenant, at, id_, leaf = item.tenant, item.at, item.id, item.leaf
            else:
                id_ = next(ids)
                if type(item) is _Read:
                    form, row_id = item.form, item.row
                    tenant, at = form.tenant, form.at
                    before, between, behind = form.data
                    leaf = leaf_hash(f"{before}{id_}{between}{encode_basestring(row_id)}{behind}".encode())
                    before, between, behind = form.line
                    lines.append(f"{before}{id_}{between}{row_id.translate(_ESCAPES)}{behind}")
                else:
                    if isinstance(item, journal.Event):
                        row = next(events)
                        self._counts.event(row[0], item.operation, item.detail)
                    else:
                        row = cast(Stored, item)
                    row = (row[0], id_, *row[2:])
                    tenant, at, leaf = row[0], row[2], leaf_hash(bytes_of(row))
                    lines.append(_line(row))
                if (tenant, at[:7]) not in months:
                    _make_month(connection, tenant, at)
                    months.add((tenant, at[:7]))
            of_tenant = leaves.get(tenant)
            if of_tenant is None:
                of_tenant = leaves[tenant] = Leaves()
            of_tenant.ids.append(id_)
            of_tenant.hashes.append(leaf)
            if at > of_tenant.newest:
                of_tenant.newest = at
        if lines:
            with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                for place in range(0, len(lines), 500):
                    copy.write("".join(lines[place : place + 500]).encode())
        for group in self._groups.values():
            for form in group.forms.values():
                self._counts.read(form.tenant, *form.opened)
        self._counts.store(connection)
        self._items, self._groups, self._defects, self.size, self._counted = [], {}, {}, 0, 0
        return leaves

    def _join_reads(self) -> None:
        """Let one entry name the rows of a statement where they are many."""
        items: list[Any] = list(self._items)
        for group in self._groups.values():
            if len(group.rows) < _MANY:
                continue
            places: dict[str, list[int]] = {}
            for columns, place in group.rows.values():
                places.setdefault(columns, []).append(place)
            for columns, of_form in places.items():
                first = items[of_form[0]]
                if len(of_form) < _MANY or type(first) is not _Read:
                    continue
                joined = _join(group.forms[columns], [items[place].row for place in of_form])
                for place in of_form:
                    items[place] = None
                items[of_form[0]] = joined
        self._items = [
            entry
            for item in items
            for entry in (item if isinstance(item, list) else [item])
            if entry is not None
        ]

    def _read(self, read: journal.Read) -> None:
        """Take a row that was read; of a row's messages the last names all columns, as a rule."""
        tenant, context, statement, model, columns, row_id = read
        key = tenant, context, statement, model
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group()
        form = group.forms.get(columns)
        if form is None:
            form = group.forms[columns] = _form(read)
        name = row_id if row_id is not None else ""
        place = None
        if name in group.rows:
            known, place_known = group.rows[name]
            place = place_known if set(split_columns(known)) <= set(split_columns(columns)) else None
        item: _Read | Stored
        if context is None or model is None or row_id is None or statement < 0:
            item = _plain(read, form.at)
        else:
            item = _Read(form, row_id)
        if row_id is None:
            form.opened[2] += 1
        else:
            form.opened[0] += place is None
            form.opened[1] += form.fields - (0 if place is None else group.forms[known].fields)
        if place is not None:
            self._items[place] = item
        else:
            place = len(self._items)
            self._items.append(item)
        group.rows[name] = columns, place


def _now() -> int:
    return (datetime.now(UTC) - _EPOCH) // timedelta(microseconds=1)


def _defect_of(row: Stored, begin: Begin, settled: str | None) -> str | None:
    """Return what shows that no function of wardkey wrote this row, in this transaction.

    A clock that was set back makes honest entries tell of times that were settled, and commits as well.
    """
    if row[6] is None or int(row[6]) & 0xFFFFFFFF != begin.xid:
        return "is not of the transaction that wrote it"
    if row[2] < (begin.committed_at - _NEAR).strftime(_ISO) and settled is not None and row[2] < settled:
        return "is dated before it was written"
    if row[2] > (begin.committed_at + _NEAR).strftime(_ISO):
        return "is dated after it was written"
    return None


def time_text(microseconds: int) -> str:
    """Return a time, microseconds since 2000, as entries have it. Raises ValueError where there is none."""
    if not _EARLIEST <= microseconds <= _LATEST:
        raise ValueError("no such time")
    return (_EPOCH + timedelta(microseconds=microseconds)).strftime(_ISO)


def _form(read: journal.Read) -> _Form:
    tenant, at, columns = str(read.tenant), time_text(read.statement), read.columns
    context = read.context.hex() if read.context else ""
    names = split_columns(columns)
    listed = canonical(names).decode()
    behind = f',"statement":{read.statement},"table":"{read.model}","tenant":"{tenant}"}}'
    return _Form(
        tenant,
        at,
        read,
        (
            f'{{"at":"{at}","columns":{listed},"context":"{context}","format":1,"id":"',
            '","kind":"read","operation":"read","row":',
            behind,
        ),
        (
            f"{tenant}\t",
            f"\t{at}\tr\tread\t\\\\x{context}\t{read.statement}\t{read.model}\t",
            f"\t{columns.translate(_ESCAPES)}\t\\N{_NO_TEXTS}",
        ),
        len(names),
    )


def _join(form: _Form, rows: list[str]) -> list[Stored]:
    """Return entries, each of which names many rows: ids, and pairs of integers for ranges of them."""
    numbers = sorted(int(row) for row in rows if _INTEGER.fullmatch(row))
    parts: list[Any] = [row for row in rows if not _INTEGER.fullmatch(row)]
    start = 0
    for place in range(1, len(numbers) + 1):
        if place == len(numbers) or numbers[place] != numbers[place - 1] + 1:
            first, last = numbers[start], numbers[place - 1]
            parts += [[first, last]] if last - first > 1 else range(first, last + 1)
            start = place
    entries, piece, size = [], [], 0
    for part in parts:
        piece.append(part)
        size += len(part) + 4 if isinstance(part, str) else 12
        if size >= _LONG:
            entries.append(_joined(form, piece))
            piece, size = [], 0
    return [*entries, _joined(form, piece)] if piece else entries


def _joined(form: _Form, rows: list[Any]) -> Stored:
    read, detail = form.read, json.dumps({"rows": rows}, ensure_ascii=False)
    return (*_plain(read, form.at)[:9], None, read.columns, None, None, detail, *(None for _ in _TEXTS))


def _plain(read: journal.Read, at: str) -> Stored:
    """Return a read that lacks something most have."""
    return (
        *(str(read.tenant), None, at, "r", "read", read.context.hex() if read.context else None, None),
        read.statement if read.statement >= 0 else None,
        str(read.model) if read.model else None,
        *(read.row, read.columns, None, None, None),
        *(None for _ in _TEXTS),
    )


def _queried(query: journal.Query) -> Stored:
    """Return that a transaction began to query the face of a model."""
    read = journal.Read(query.tenant, query.context, query.statement, query.model, "", None)
    row = _plain(read, time_text(query.statement))
    return (*row[:4], "query", *row[5:10], None, *row[11:])


def _line(row: Stored) -> str:
    """Return the line of COPY for a row that is to be written."""
    context = None if row[5] is None else f"\\x{row[5]}"
    values = (*row[:5], context, *row[7:11], *row[13:], "t")
    return "\t".join("\\N" if value is None else str(value).translate(_ESCAPES) for value in values) + "\n"


def _traits(message: Message) -> dict[str, Any]:
    """Say which message, and nothing of what is in it: it may be anything."""
    return {
        "lsn": lsn_text(message.lsn),
        "length": len(message.content) + message.left_out,
        "sha256": None if message.left_out else hashlib.sha256(message.content).hexdigest(),
    }


def _check_event(event: journal.Event) -> None:
    """Raise ValueError for an event that text and jsonb cannot hold."""
    time_text(event.at)
    whole = json.dumps([event.detail, dict(event.texts)], ensure_ascii=False, allow_nan=False)
    whole.encode("utf-8")
    if "\\u0000" in whole:
        raise ValueError("NUL")


def _ids(connection: Connection, count: int) -> list[int]:
    if count == 0:
        return []
    row = connection.execute("select ward_internal.lease_audit_ids(%s)", [count]).fetchone()
    return list(range(row[0], row[0] + count)) if row else []


def _stored_events(connection: Connection, events: list[journal.Event]) -> list[Stored]:
    """Return events as rows without ids: their tenants found, their details as jsonb writes them."""
    if not events:
        return []
    details = [json.dumps(event.detail, ensure_ascii=False) if event.detail else None for event in events]
    roles = [None if event.tenant else event.texts.get("database_role") for event in events]
    query = """
        select coalesce(t.id, %s)::text, e.detail::jsonb::text
        from unnest(%s::text[], %s::text[]) with ordinality as e (role, detail, place)
        left join ward_internal.tenants as t on t.login_role = e.role
        order by e.place"""
    rows = connection.execute(query, [UUID(PLATFORM), roles, details]).fetchall()
    return [
        (
            *(str(event.tenant) if event.tenant else tenant, None, time_text(event.at), "e", event.operation),
            *(
                event.context.hex() if event.context else None,
                None,
                None,
                None,
                None,
                None,
                None,
                None,
                detail,
            ),
            *(event.texts.get(name) for name in _TEXTS),
        )
        for event, (tenant, detail) in zip(events, rows, strict=True)
    ]


def _make_month(connection: Connection, tenant: str, at: str) -> None:
    connection.execute("select ward_internal.make_audit_partition(%s, %s)", [tenant, at])
