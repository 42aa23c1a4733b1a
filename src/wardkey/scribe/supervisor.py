"""The scribe as a whole: starts, begins what was lost again, goes on after any trouble, says how it is."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psycopg

from ..daemon.lines import Line
from ..daemon.service import Backoff, Stop
from ..daemon.sessions import connect
from ..daemon.status import StatusFile
from ..errors import (
    SlotInUse,
    SlotMissing,
    SlotMoved,
    StreamDamaged,
    StreamError,
    StreamLost,
    WardError,
    from_psycopg,
)
from . import slot as slots
from .drain import Drain, Superseded
from .entries import Turn
from .replication import Stream, lsn_text
from .seal import Sealer
from .slot import PUBLICATION, PUBLICATION_OF_IDS, Facts, State

__all__ = ["Scribe"]

_PIECE: Final = 10_000  # unsealed rows that are sealed at a time
_MANY: Final = 3  # failures behind one position
_LONGEST: Final = 10.0  # seconds between tries
_SETTINGS: Final = {"search_path": "pg_catalog", "synchronous_commit": "on"}

Connection = psycopg.Connection[Any]


class Scribe:
    """``dsn``: as ward_scribe, or a superuser. ``status``: a file to tell in how things are.

    ``disk``: where the WAL lies. ``patience``: seconds that a slot which another scribe reads is waited for.
    ``memory``: bytes that this whole process may use; None: no bound.
    """

    def __init__(
        self,
        dsn: str,
        keeper: Path,
        *,
        slot: str = slots.SLOT,
        report: Callable[[str], None],
        stop: Stop,
        status: Path | None = None,
        disk: Path | None = None,
        patience: float = 10.0,
        memory: int | None = None,
    ) -> None:
        self._dsn = dsn
        self._keeper, self._slot, self._report, self._stop = keeper, slot, report, stop
        self._status, self._disk, self._patience = StatusFile(status, report), disk, patience
        self._lost: str | None = None  # why the slot has to be made again
        self._sealer: Sealer | None = None
        self._entries = 0
        self._warned: list[str] = []
        self._failed_at: int | None = None
        self._failures = 0
        self._by_ids = False
        self._memory = memory

    def run(self) -> None:
        """Work until ``stop`` is set, then store what there is and have it signed.

        Raises SlotInUse when another scribe does, StreamError for a wrong slot.
        """
        backoff, refused_since = Backoff(0.5, _LONGEST), time.monotonic()
        while not self._stop:
            entries = self._entries
            try:
                self._session()
                continue
            except (SlotMissing, SlotMoved) as error:
                trouble = self._lost = error.message
            except SlotInUse as error:
                if time.monotonic() - refused_since > self._patience:
                    raise
                trouble = error.message
            except StreamLost as error:  # also what libpq says of a message that it cannot take
                trouble = error.message
                self._failed(trouble)
            except Superseded as error:
                trouble = error.message
            except StreamDamaged as error:
                trouble = error.message
                self._failed(trouble, at_once=True)
            except StreamError:
                raise
            except WardError as error:
                trouble = error.message
                self._failed(trouble)
            except MemoryError:
                trouble = f"what comes next takes more than {(self._memory or 0) >> 20} MB of memory"
                self._failed(trouble)
            except psycopg.errors.DiskFull as error:
                trouble = f"the server's disk is full: {from_psycopg(error).message}"
            except psycopg.Error as error:
                trouble = from_psycopg(error).message
                self._failed(trouble)
            if self._status.facts.get("trouble") != trouble:
                self._report(Line("sealing_failed", trouble))
            self._say(state="waiting", trouble=trouble)
            if entries != self._entries:
                backoff.reset()
                refused_since = time.monotonic()
            wait = backoff.next()
            self._stop.wait(0.2 if self._lost else wait)
        self._say(state="stopped", pid=None)

    def _session(self) -> None:
        """Work over one set of connections."""
        if self._memory is not None:
            _bound_memory(self._memory if self._failures < 2 * _MANY else None)
        with self._connect() as connection, self._connect(autocommit=True) as observer:
            state, system = State.read(observer), _system(observer)
            if lost := self._lost or _reason_to_remake(observer, state, system, self._slot):
                state = self._begin(connection, observer, state, system, lost)
                self._lost = None
            if state is None:
                raise Superseded("the position of the scribe is gone")
            if not State.is_of_timeline(observer, timeline := _timeline(observer)):
                self._note_promotion(connection, state, system)
            State.store_timeline(observer, timeline)
            publication = PUBLICATION_OF_IDS if self._by_ids else PUBLICATION
            with Stream(self._dsn, self._slot, publication, after=state.lsn) as stream:
                sealer = self._sealer = self._new_sealer(connection, system)
                self._report(
                    Line(
                        "at_work", f"at work in database {connection.info.dbname}, from {lsn_text(state.lsn)}"
                    )
                )
                drain = Drain(connection, observer, stream, sealer, state, tell=self._look)
                try:
                    drain.work(self._stop.__bool__)
                    self._by_ids = False
                finally:
                    self._entries += drain.entries

    def _failed(self, trouble: str, *, at_once: bool = False) -> None:
        """Count how often nothing could be stored behind the same position, and store that.

        What the server cannot send, or this scribe not take, is then looked up row by row.
        """
        try:
            with self._connect(autocommit=True) as connection:
                state = State.read(connection)
                lsn = state.lsn if state else None
                self._failures = self._failures + 1 if lsn == self._failed_at else 1
                self._failed_at = lsn
                slots.tell_failing(connection, self._failures, trouble)
        except (WardError, psycopg.Error):
            return  # the server is away
        self._by_ids = at_once or self._failures >= _MANY

    def _begin(
        self, connection: Connection, observer: Connection, state: State | None, system: str, why: str
    ) -> State:
        """Make the slot again, seal what came before it, and say in the log that something may be missing."""
        if state != State.read(observer):
            raise Superseded("another scribe was at work meanwhile")
        self._say(state="beginning", trouble=why)
        since = State.stored_at(observer)
        slots.publish(observer)
        with slots.remade_slot(self._dsn, self._slot) as (lsn, snapshot):
            connection.execute("set transaction isolation level repeatable read")
            connection.execute(f"set transaction snapshot '{snapshot}'")
            moved = State(system, self._slot, lsn)
            if not (state.replace(connection, moved) if state else moved.insert(connection)):
                raise Superseded("another scribe was at work meanwhile")
            sealer, turn, count = self._new_sealer(connection, system), Turn(), 0
            months: set[tuple[str, str]] = set()
            for row in slots.unsealed(connection):
                turn.stored(row)
                count += 1
                if len(turn) >= _PIECE:
                    sealer.seal(turn.write(connection, months), lsn)
            detail: dict[str, Any] = {"why": why, "to": lsn_text(lsn), "sealed": count}
            if state:
                detail["from"] = lsn_text(state.lsn)
                _tell_gap(connection, turn, since, why, detail)
            else:
                turn.event("journal_begins", detail)
            sealer.seal(turn.write(connection, months), lsn)
            sealer.save()
            connection.commit()
        try:  # from now on nobody reads without this slot
            observer.execute("select ward_internal.set_audit_slot(%s)", [self._slot])
        except psycopg.Error as error:
            self._report(
                Line(
                    "sealing_failed",
                    f"audit_slot is not set, reads go on without the slot: {from_psycopg(error).message}",
                )
            )
        self._report(
            Line("slot_made", f"slot {self._slot} made at {lsn_text(lsn)}, {count} entries sealed: {why}")
        )
        return moved

    def _note_promotion(self, connection: Connection, state: State, system: str) -> None:
        """Say that the end of the former primary's journal may not have come along."""
        sealer, turn = self._new_sealer(connection, system), Turn()
        why = "a standby was promoted, or the server was restored to an earlier time"
        _tell_gap(
            connection, turn, State.stored_at(connection), why, {"from": lsn_text(state.lsn), "why": why}
        )
        sealer.seal(turn.write(connection, set()), state.lsn)
        sealer.save()
        connection.commit()
        self._report(Line("reads_may_be_missing", why))

    def _new_sealer(self, connection: Connection, system: str) -> Sealer:
        return Sealer(connection, self._keeper, f"{system}/{connection.info.dbname}", self._report)

    def _connect(self, *, autocommit: bool = False) -> Connection:
        return connect(
            self._dsn, "wardkey scribe", autocommit=autocommit, settings=_SETTINGS, keepalives_idle=30
        )

    def _look(self, facts: Facts, drain: Drain) -> None:
        """Write down how things are, and warn."""
        warnings = facts.warnings(self._disk)
        for text in warnings:
            if text.split(" ", 1)[1] not in {before.split(" ", 1)[1] for before in self._warned}:
                self._report(Line("disk_filling", f"warning: {text}"))
        self._warned = warnings
        if self._failures and drain.reached > (self._failed_at or 0):
            self._failures = 0
            slots.tell_failing(drain.observer, 0, None)
        sealer = self._sealer
        self._say(
            state="running",
            trouble=sealer.trouble if sealer else None,
            warnings=warnings,
            lsn=lsn_text(drain.lsn),
            bytes_behind=facts.behind,
            bytes_kept=facts.kept,
            entries=self._entries + drain.entries,
            without_checkpoint=sealer.behind if sealer else 0,
            checkpoints_waiting=sealer.waiting if sealer else 0,
        )

    def _say(self, **facts: Any) -> None:
        self._status.say(**facts, slot=self._slot)


def _bound_memory(size: int | None) -> None:
    """Have what takes more bytes fail, in all of this process, so that it is looked up by its id.

    A message of the journal has none: where that did not help, it is taken in, once, and passed over.
    """
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = most if size is None or (most != resource.RLIM_INFINITY and most <= size) else size
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))


def _system(connection: Connection) -> str:
    row = connection.execute("select system_identifier::text from pg_control_system()").fetchone()
    return str(row[0]) if row else ""


def _timeline(connection: Connection) -> int:
    row = connection.execute("select left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)").fetchone()
    return int(row[0], 16) if row else 0


def _tell_gap(
    connection: Connection, turn: Turn, since: str | None, why: str, detail: dict[str, Any]
) -> None:
    """Tell of reads that may be lost in every tenant's log: each is asked who read what."""
    turn.event("journal_gap", detail | {"since": since})
    query = "select id::text from ward_internal.tenants where status not in ('shredding', 'shredded')"
    for (tenant,) in connection.execute(query).fetchall():
        turn.event("journal_gap", {"why": why, "since": since}, tenant)


def _reason_to_remake(connection: Connection, state: State | None, system: str, slot: str) -> str | None:
    """Return why the slot has to be made again, as far as that is known before it is read."""
    if state is None:
        return "the log begins"
    if state.system != system:
        return "the database was restored on another server"
    if state.slot != slot:
        return f"the slot was {state.slot} before"
    if not slots.is_published(connection):
        return "the publication was changed"
    return None
