"""What the current statement has opened, so that each row is journalled once, before plaintext leaves.

A message about a row names all columns of its table that the statement has opened by then. A column that is
new to the statement makes all its rows new again: a row's messages name every column of it that was opened,
and may name more. Rows are forgotten by the 50,000: a row may be named again, never left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from wardkey_core import journal
from wardkey_core.envelope import ColumnKey
from wardkey_core.identity import text_of

__all__ = ["Column", "Opener", "Reads"]

_Cipher = Callable[[bytes, bytes, bytes], bytes]
# decrypt, additional data up to the row id, rows that need no message (None: none does), what writes one
Opener = tuple[_Cipher, bytes, set[bytes] | None, Callable[[bytes], None] | None]

_MOST_ROWS = 50_000
_FIRST = 32
_BETWEEN = 0.2  # seconds
_MOST_HEADS = 256
_WATCHED = 1.0  # seconds of reading after which the context is asked about


class Journal(Protocol):
    def journal(self, message: bytes) -> None:
        """Write a message that reaches the disk in a moment."""

    def journal_later(self, message: bytes) -> None:
        """Write a message that reaches the disk soon after the transaction's end, or with a later one."""


class Column(NamedTuple):
    """A sealed column: id of its model, name as SQL quotes it, level of its model, form of the row id."""

    model: bytes
    name: str
    level: str
    form: str


class Reads:
    """The reads of a context, statement by statement. ``openers`` is for the hot path of ``unseal``.

    Five times a second a statement's first messages go to disk at once, for whoever leaves a transaction
    open; each time that costs a page 0.2 ms, because it wakes another process.

    ``keys``: those that have opened something, by column id and header of the sealed value.

    What a statement costs before its first row is a restart, what each of its columns costs is a message and
    a few look-ups: pages are often twenty statements of one row.

    ``watch`` is called before a row is noted, once a second. It may raise ValueError: then the hot path
    leaves the field to the slow one.
    """

    __slots__ = (
        "_columns",
        "_flushed",
        "_journal",
        "_models",
        "_now",
        "_statement",
        "_tenant",
        "context",
        "keys",
        "openers",
        "until",
        "watch",
    )

    def __init__(
        self,
        journal: Journal,
        tenant: bytes,
        context: bytes,
        columns: Mapping[bytes, Column],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._tenant = tenant
        self.context = context
        self._columns = columns
        self._statement = 0
        self._flushed = float("-inf")
        self.until = float("inf")
        self.watch = watch
        self._now = journal.journal
        self._models: dict[bytes, _Model] = {}
        self.keys: dict[tuple[bytes, bytes], ColumnKey] = {}
        self.openers: dict[tuple[bytes, bytes], Opener] = {}

    def restart(self, statement: int) -> None:
        """Begin a statement."""
        self._statement = statement
        now = time.monotonic()
        self.until = now + _WATCHED
        self._now = self._journal.journal_later
        if now - self._flushed > _BETWEEN:
            self._now = self._journal.journal
            self._flushed = now
        self.openers.clear()
        for model in self._models.values():
            model.now = self._now
            model.columns = ()
            model.rows.clear()

    def note(self, column: bytes, key: ColumnKey, row: bytes) -> None:
        """Journal that ``column`` of ``row`` was opened, and let the hot path open the next ones."""
        known = self._columns.get(column)
        if known is None:  # newer than the context; what cannot be named is journalled all the same
            known = Column(journal.NO_MODEL, text_of(column), "row", "")
        rows, note = None, None
        if known.level != "off":
            table = known.model if known.form else column
            model = self._models.get(table)
            if model is None:
                model = self._models[table] = _Model(self, self._now, self._journal.journal_later)
            new = known.name not in model.columns
            if new:
                model.columns += (known.name,)
                model.rows.clear()
                self._name(model, known)
            if known.level == "row":
                rows, note = model.rows, model.note
                if row not in rows:
                    note(row)
            elif new:
                self._now(model.head)
        place = (column, key.header)
        self.keys[place] = key
        self.openers[place] = (key.decrypt, key.aad_prefix, rows, note)

    def _name(self, model: _Model, column: Column) -> None:
        """Give ``model`` the head of messages about the columns it has now."""
        ends = model.ends.get(model.columns)
        if ends is None:
            if len(model.ends) >= _MOST_HEADS:  # orders of columns are many
                model.ends.clear()
            ends = model.ends[model.columns] = journal.read_ends(
                self._tenant,
                self.context,
                column.model,
                column.form,
                model.columns,
                row=column.level == "row",
            )
        model.head = ends[0] + self._statement.to_bytes(8, "big", signed=True) + ends[1]


class _Model:
    """One table's rows in a statement: those of which a message names all ``columns``."""

    __slots__ = ("_later", "_reads", "columns", "ends", "head", "now", "rows")

    def __init__(self, reads: Reads, now: Callable[[bytes], None], later: Callable[[bytes], None]) -> None:
        self._reads = reads
        self.now = now
        self._later = later
        self.columns: tuple[str, ...] = ()
        self.ends: dict[tuple[str, ...], tuple[bytes, bytes]] = {}
        self.rows: set[bytes] = set()
        self.head = b""

    def note(self, row: bytes) -> None:
        """Write the message about ``row``: the first ones at once, if it is time, the others later."""
        if time.monotonic() >= self._reads.until:
            self._reads.until = time.monotonic() + _WATCHED
            self._reads.watch()
        rows = self.rows
        if len(rows) < _FIRST:
            self.now(self.head + row)
        else:
            self._later(self.head + row)
            if len(rows) >= _MOST_ROWS:
                rows.clear()
        rows.add(row)
