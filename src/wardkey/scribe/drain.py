"""Out of the stream into the log, a transaction at a time.

Entries, their places, trees, checkpoints and the position in the stream are stored together. Whatever goes
wrong is raised, what is in memory goes with it, and everything begins again from what is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from ..errors import SlotMoved, StreamError
from . import slot as slots
from .entries import Turn
from .pgoutput import Begin, Commit, Event, Insert, Message
from .replication import Stream
from .seal import Sealer
from .slot import Facts, State

__all__ = ["CHANNEL", "Drain", "Superseded"]

CHANNEL: Final = "wardkey_checkpoint"
"""``notify wardkey_checkpoint, 'tenant'`` asks for a checkpoint of what was committed before, at once."""

_PREFIX: Final = "wardkey"
_MOST: Final = 20_000  # entries of a turn; a transaction that has more comes in several
_MUCH: Final = 16 << 20  # bytes taken from the stream at once, and of messages in a turn that wait for others
_LINGER: Final = 0.5  # seconds that entries wait for others, so that there are not too many batches
_LEAP: Final = 16 << 20  # bytes of WAL without an entry after which the position is stored
_LOOK: Final = 2.0  # seconds between looks at the slot, the clock and who asks
_BACKWARDS: Final = 1.0  # seconds by which a clock has to go back to be called set back
_MONTHS: Final = 3600.0  # seconds between looks whether next month's partitions are there

Connection = psycopg.Connection[Any]


class Superseded(StreamError):
    """Somebody else has stored another position: another scribe was at work."""


@dataclass(frozen=True, slots=True)
class _Clocks:
    """The server's clock and ours, seen at a moment (monotonic)."""

    server: float
    scribe: float
    moment: float


class Drain:
    """``connection``: writes, not in autocommit. ``observer``: looks, in autocommit; ``tell`` hears of it."""

    def __init__(
        self,
        connection: Connection,
        observer: Connection,
        stream: Stream,
        sealer: Sealer,
        state: State,
        *,
        tell: Callable[[Facts, Drain], None],
    ) -> None:
        self._connection, self._observer, self._stream, self._sealer = connection, observer, stream, sealer
        self._state, self._tell = state, tell
        self._turn = Turn()
        self._months: set[tuple[str, str]] = set()
        self._position = stream.reached  # everything up to here is in the turn, or stored
        self._within = False
        self._since = 0.0  # when the turn got its first entry
        self._looked = self._made_months = -_MONTHS
        self._clocks: _Clocks | None = None
        self._promises: list[tuple[int, str]] = []  # (position, what is settled once that is reached)
        self._asked: dict[str, int] = {}  # tenant → position up to which it wants a checkpoint
        self.entries = 0
        self._asking: set[str] = set()
        observer.add_notify_handler(lambda notice: self._asking.add(notice.payload))
        observer.execute(f"listen {CHANNEL}")

    def work(self, stopped: Callable[[], bool]) -> None:
        """Drain until ``stopped``, then have signed what is sealed.

        A stream of ids is drained until a transaction is stored that wrote rows.
        """
        while not stopped():
            self._look()
            self._take(self._stream.receive(_MOST, self._patience(), _MUCH))
            if not self._within and self._is_due():
                self._store()
            if self._inserts and not self._within and not len(self._turn):
                return
        if not self._within:
            self._store(last=True)
            if self._sealer.unsaved:
                self._store(last=True)
        else:
            self._connection.rollback()

    @property
    def reached(self) -> int:
        """Everything up to this position was taken."""
        return self._position

    @property
    def observer(self) -> Connection:
        return self._observer

    @property
    def lsn(self) -> int:
        """The position that is stored."""
        return self._state.lsn

    def _patience(self) -> float:
        return (
            max(0.0, min(_LINGER, self._since + _LINGER - time.monotonic())) if len(self._turn) else _LINGER
        )

    def _take(self, events: list[Event]) -> None:
        """Put events into the turn, and store it where a transaction ends if it is time to."""
        ends = [place for place, event in enumerate(events, 1) if self._ends(event)]
        split = ends[-1] if ends else 0
        for event in events[:split]:
            self._feed(event)
        if split:
            self._within = False
            self._position = _end(events[split - 1])
            if split < len(events) and self._is_due():
                self._store()
        for event in events[split:]:
            self._within = True
            self._feed(event)
        if not self._within and not events:
            self._position = self._stream.reached

    def _ends(self, event: Event) -> bool:
        """Say whether nothing is open behind this event."""
        if isinstance(event, Begin):
            self._open = True
        elif isinstance(event, Commit):
            self._open = False
            return True
        return isinstance(event, Message) and not self._open

    def _feed(self, event: Event) -> None:
        if isinstance(event, Message):
            if event.prefix != _PREFIX:
                return
            self._turn.message(event)
        elif isinstance(event, Begin):
            self._begin = event
            return
        elif isinstance(event, Insert) and (event.relation.schema, event.relation.name) == (
            "ward_internal",
            "audit_log",
        ):
            if len(event.relation.columns) == 2:
                self._turn.looked_up(self._connection, event.new, self._begin, self._sealer.promised)
                self._inserts = True
            else:
                self._turn.inserted(event.new, self._begin, self._sealer.promised)
        else:
            return
        if len(self._turn) == 1:
            self._since = time.monotonic()
        elif len(self._turn) >= _MOST:
            self._write()

    def _is_due(self) -> bool:
        full = len(self._turn) >= _MOST // 2 or self._turn.size >= _MUCH
        ripe = full or (bool(len(self._turn)) and time.monotonic() - self._since >= _LINGER)
        asked = any(position <= self._position for position in self._asked.values())
        return ripe or asked or self._pieces or self._sealer.unsaved or self._position - self.lsn >= _LEAP

    def _write(self) -> None:
        """Write and seal the turn; the transaction stays open."""
        if leaves := self._turn.write(self._connection, self._months):
            self._sealer.seal(leaves, self._position)
            self._pieces = True
            self._count += sum(len(of_tenant.ids) for of_tenant in leaves.values())

    def _store(self, *, last: bool = False) -> None:
        """Make what was taken last, let the server forget it, and have checkpoints signed."""
        self._write()
        while self._promises and self._promises[0][0] <= self._position:
            self._sealer.settled = self._promises.pop(0)[1]
        asked = [tenant for tenant, position in self._asked.items() if position <= self._position]
        self._sealer.save(all_now=last, asked=asked)
        moved = State(self._state.system, self._state.slot, self._position)
        if not self._state.replace(self._connection, moved):
            raise Superseded("another scribe was at work meanwhile", "one is enough: end the other one")
        self._connection.commit()
        self._state, self._pieces = moved, False
        self.entries += self._count
        self._count = 0
        for tenant in asked:
            del self._asked[tenant]
        self._stream.confirm(self._position)
        self._sealer.ask()

    _begin: Begin | None = None  # of the transaction that is being fed
    _inserts = False  # rows came as ids
    _open = False  # the events received end inside a transaction
    _pieces = False  # something is written in the transaction under way
    _count = 0  # entries written in it

    def _look(self) -> None:
        """See to what has to be seen to now and then."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        self._sealer.ask()  # what could not be signed before, or was stored by one that was killed
        self._look_at_clock()
        if not slots.is_published(self._observer):
            raise SlotMoved("the publication was changed")
        if self._asking:
            end = self._wal_end()
            self._asked |= dict.fromkeys(self._asking, end)
            self._asking.clear()
        if now - self._made_months >= _MONTHS:
            self._made_months = now
            self._observer.execute("select ward_internal.make_audit_partitions()")
        self._tell(slots.facts(self._observer, self._state.slot), self)

    def _look_at_clock(self) -> None:
        """Learn what is settled, and whether a clock was set back.

        A transaction that is under way may still bring entries of its time. One that began just now may not
        be seen yet: so some seconds are taken off.
        """
        row = self._observer.execute(
            "select date_part('epoch', clock_timestamp()), to_char((least(clock_timestamp(), oldest)"
            " - interval '5 seconds') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), has_prepared"
            " from ward_internal.open_transactions()"
        ).fetchone()
        if row is None:
            return
        clocks = _Clocks(row[0], time.time(), time.monotonic())
        if (before := self._clocks) is not None:
            for whose in ("server", "scribe"):
                gone = getattr(clocks, whose) - getattr(before, whose)
                back = (clocks.moment - before.moment) - gone
                if back > _BACKWARDS:
                    self._turn.event("clock_set_back", {"of": whose, "seconds": round(back, 3)})
        self._clocks = clocks
        if not row[2]:
            self._promises.append((self._wal_end(), row[1]))

    def _wal_end(self) -> int:
        row = self._observer.execute(
            "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint"
        ).fetchone()
        return int(row[0]) if row else 0


def _end(event: Event) -> int:
    return event.end_lsn if isinstance(event, Commit) else event.lsn  # type: ignore[union-attr]
