"""What the current statement has opened, so that each row is journalled once, before plaintext leaves.

A message about a row names all columns of its table that the statement has opened by then. A column that is
new to the statement makes all its rows new again: a row's messages name every column of it that was opened,
and may name more. A statement with the text of an earlier one is expected to open the same columns, and its
messages name them from the first: else a page's row would cost a message a column. Rows are forgotten by the
50,000: a row may be named again, never left out.
"""

from __future__ import annotations

import time

from wardkey_core import journal
from wardkey_core.identity import text_of
from wardkey_core.records import Record

__all__ = ["Column", "Reads"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from .budgets import Guard
    from .cached import Recording
    from .keyring import Key

    _Cipher = Callable[[bytes, bytes, bytes], bytes]
    # decrypt, additional data up to the row id, rows that need no message (None: none does), what writes one
    Opener = tuple[_Cipher, bytes, set[bytes] | None, Callable[[bytes], None] | None]

    class Journal(Protocol):
        def journal(self, message: bytes) -> None:
            """Write a message that reaches the disk in a moment."""

        def journal_later(self, message: bytes) -> None:
            """Write a message that reaches the disk soon after the transaction's end, or with a later one."""


_MOST_ROWS = 50_000
_FIRST = 32
_BETWEEN = 0.2  # seconds
_MOST_HEADS = 256
_MOST_TEXTS = 128
_WATCHED = 1.0  # seconds of reading after which the context is asked about


class Column(Record):
    """A sealed column: id of its model, name as SQL quotes it, level of its model, form of the row id.

    ``number`` of its class.
    """

    model: bytes
    name: str
    level: str
    form: str
    number: int = 0


class Reads:
    """The reads of a context, statement by statement. ``openers`` is for the hot path of ``unseal``.

    Five times a second a statement's first messages go to disk at once, as some client leaves a transaction
    open; each time that costs a page 0.2 ms, because it wakes another process.

    ``keys``: those that have opened something, by column id and header of the sealed value.

    What a statement costs before its first row is a restart, what each column that was not expected costs is
    a message and a few look-ups: pages are often twenty statements of one row.

    ``watch`` is called before a row is noted, once a second. It may raise ValueError: then the hot path
    leaves the field to the slow one.

    ``recording`` hears of each statement's rows before they are forgotten, where a client fills its cache.

    ``guard_of`` says what guards a table's rows: a budget, honey rows. Most tables have neither, and their
    rows cost nothing for it.
    """

    __slots__ = (
        "_begun",
        "_columns",
        "_ends",
        "_flushed",
        "_guard_of",
        "_guards",
        "_journal",
        "_now",
        "_statement",
        "_tenant",
        "_texts",
        "context",
        "keys",
        "openers",
        "recording",
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
        guard_of: Callable[[Column], Guard | None] = lambda column: None,
    ) -> None:
        self._journal = journal
        self._tenant = tenant
        self.context = context
        self._columns = columns
        self._statement = 0
        self._flushed = float("-inf")
        self.until = float("inf")
        self.watch = watch
        self._guard_of = guard_of
        self._guards: dict[bytes, Guard] = {}
        self._now = journal.journal
        self._ends: dict[tuple[bytes, tuple[str, ...]], tuple[bytes, bytes]] = {}
        self.keys: dict[tuple[bytes, bytes], Key] = {}
        self._texts: dict[int, _Statement] = {}
        self._begun = _Statement()
        self.openers = self._begun.openers
        self.recording: Recording | None = None

    def record(self) -> None:
        """Have the rows of the current statement recorded, if somebody records."""
        if self.recording is not None:
            self.recording.take(self._statement, self._begun.models)

    def restart(self, statement: int, text: int | None = None) -> None:
        """Begin a statement. ``text``: what tells its text from others, None where that promises nothing."""
        self.record()
        self._statement = statement
        now = time.monotonic()
        self.until = now + _WATCHED
        self._now = self._journal.journal_later
        if now - self._flushed > _BETWEEN:
            self._now = self._journal.journal
            self._flushed = now
        for model in self._begun.models.values():
            model.rows.clear()
        for guard in self._guards.values():
            guard.known.clear()
        begun = None if text is None else self._texts.get(text)
        if begun is None:
            begun = _Statement()
            if text is not None:
                if len(self._texts) >= _MOST_TEXTS:
                    self._texts.clear()
                self._texts[text] = begun
        else:
            at = statement.to_bytes(8, "big", signed=True)
            for model in begun.models.values():
                model.restart(self._now, at)
            for place in begun.once:
                begun.openers.pop(place, None)
            begun.once.clear()
        self._begun = begun
        self.openers = begun.openers

    def note(self, column: bytes, key: Key, row: bytes) -> None:
        """Journal that ``column`` of ``row`` was opened, and let the hot path open the next ones.

        Raises BudgetExhausted, and what asking the keeper may.
        """
        known = self._columns.get(column)
        if known is None:  # newer than the context; what cannot be named is journalled all the same
            known = Column(journal.NO_MODEL, text_of(column), "row", "")
        place = (column, key.header)
        rows, note = None, None
        guard = self._guarding(known) if key.aad_prefix else None  # a constant mask opens nothing
        if guard is not None:
            model = self._model(known, column, guard)
            rows, note = model.rows, model.guarded
            if row not in rows:
                guard.ensure(row)
        if known.level != "off":
            model = self._model(known, column, guard)
            new = known.name not in model.columns
            if new:
                model.columns += (known.name,)
                model.forget_rows()
                self._name(model, known)
            if known.level == "row":
                if guard is None:
                    rows, note = model.rows, model.note
                if row not in model.rows:
                    model.note(row)
            else:
                self._begun.once.append(place)
                if new:
                    self._now(model.head)
        self.keys[place] = key
        self.openers[place] = (key.decrypt, key.aad_prefix, rows, note)

    def query(self, model: bytes) -> None:
        """Journal that the face of ``model`` is queried."""
        self._now(journal.query(self._tenant, self.context, self._statement, model))

    def _guarding(self, column: Column) -> Guard | None:
        guard = self._guards.get(column.model) or self._guard_of(column)
        if guard is not None:
            self._guards[column.model] = guard
        return guard

    def _model(self, known: Column, column: bytes, guard: Guard | None) -> _Model:
        """Return the statement's rows of a table: those that are guarded, apart from those shown masked."""
        table = known.model if known.form else column
        place = table if guard is None else table + b"!"
        model = self._begun.models.get(place)
        if model is None:
            later = self._journal.journal_later
            model = _Model(self, known.level == "row", self._now, later, guard)
            self._begun.models[place] = model
        return model

    def _name(self, model: _Model, column: Column) -> None:
        """Give ``model`` the head of messages about the columns it has now."""
        place = (column.model, model.columns)
        ends = self._ends.get(place)
        if ends is None:
            if len(self._ends) >= _MOST_HEADS:  # orders of columns are many
                self._ends.clear()
            ends = self._ends[place] = journal.read_ends(
                self._tenant,
                self.context,
                column.model,
                column.form,
                model.columns,
                row=column.level == "row",
            )
        model.ends = ends
        model.head = ends[0] + self._statement.to_bytes(8, "big", signed=True) + ends[1]


class _Statement:
    """What a statement opens, kept for the next one of the same text. ``once``: openers that are not kept."""

    __slots__ = ("models", "once", "openers")

    def __init__(self) -> None:
        self.models: dict[bytes, _Model] = {}
        self.openers: dict[tuple[bytes, bytes], Opener] = {}
        self.once: list[tuple[bytes, bytes]] = []


class _Model:
    """One table's rows in a statement: those of which a message names all ``columns``."""

    __slots__ = ("_guard", "_later", "_reads", "by_row", "columns", "ends", "head", "now", "rows")

    def __init__(
        self,
        reads: Reads,
        by_row: bool,
        now: Callable[[bytes], None],
        later: Callable[[bytes], None],
        guard: Guard | None,
    ) -> None:
        self._reads = reads
        self.by_row = by_row
        self._guard = guard
        self.now = now
        self._later = later
        self.columns: tuple[str, ...] = ()
        self.ends = (b"", b"")
        self.rows: set[bytes] = set()
        self.head = b""

    def restart(self, now: Callable[[bytes], None], at: bytes) -> None:
        """Begin a statement at ``at`` that opens the same columns, if rows are named; else they are new."""
        self.now = now
        if self.by_row:
            self.head = self.ends[0] + at + self.ends[1]
        else:
            self.columns = ()

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
                self._reads.record()
                rows.clear()
        rows.add(row)

    def guarded(self, row: bytes) -> None:
        """As ``note``, of a table that is guarded. Raises ValueError where somebody has to be asked first."""
        guard = self._guard
        if guard is None or (row not in guard.known and (row in guard.honey or not guard.take(row))):
            raise ValueError
        if self.by_row:
            self.note(row)
        else:
            if len(self.rows) >= _MOST_ROWS:
                self.rows.clear()
            self.rows.add(row)

    def forget_rows(self) -> None:
        """Have messages about all rows again; what was counted of them is counted."""
        if self._guard is not None:
            self._guard.know(self.rows)
        self.rows.clear()
