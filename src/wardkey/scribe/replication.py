"""Reads a logical replication slot over the streaming protocol, with no plugin but PostgreSQL's ``pgoutput``.

    with Stream(conninfo, "wardkey_audit", "wardkey_audit", after=stored_position) as stream:
        while True:
            for event in stream.receive():
                ...
            store(stream.reached)           # durably, in the same transaction as the events
            stream.confirm(stream.reached)  # from here on the server may forget them

Positions are LSNs as integers. The server sends what ends behind ``after``, all of it, in order, whatever it
has sent before; ``confirm`` only lets it forget. It never hears of a position that was not confirmed, not
even while nothing happens: a slot that is ahead of the stored position was moved by somebody else, and what
lies between is lost (SlotMoved). Other status updates leave out the flushed position, as the protocol allows,
and give the written one, by which a server that shuts down knows that everything has arrived.

The publication has to exist before the slot: the plugin looks it up as of the position it decodes.

A message outside a transaction arrives when its WAL is flushed, which is within ``wal_writer_delay`` of its
transaction's COMMIT. After a ROLLBACK nothing flushes it until somebody else's commit or, at the latest, the
background writer's next snapshot (15 s), and a crash before that loses it; so its writer has to call
``XLogSetAsyncXactLSN`` with its position, as a commit does.
"""

from __future__ import annotations

import math
import select
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import pq, sql

from ..daemon.sessions import connect
from ..errors import SlotInUse, SlotMissing, SlotMoved, StreamError, StreamLost, from_psycopg
from .pgoutput import Begin, Commit, Decoder, Event, Message

__all__ = ["Stream", "lsn_text"]

_HEADER: Final = 25  # of XLogData: a tag, then start, end and time of 8 bytes each
_KEEPALIVE: Final = struct.Struct(">cQQ?")  # tag, end of what was sent, time, answer at once
_STATUS: Final = struct.Struct(">cQQQQ?")  # tag, written, flushed, applied, time, answer at once
_EPOCH: Final = 946_684_800  # 2000-01-01 UTC in Unix time
_PING_AFTER: Final = 10.0

# The text form of a value depends on these; settings of role or database are overridden.
_FACTS: Final = """
    select plugin, database, wal_status,
      (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint,
      exists (select from pg_publication where pubname = {publication})
    from pg_replication_slots where slot_name = {slot}"""
_MUCH: Final = 16 << 20
_LONGEST: Final = 16 << 20  # bytes of a message; of what wardkey writes none has a tenth of it
_READER: Final = """
    select pid, concat_ws(' ', application_name, 'from', coalesce(host(client_addr), 'this machine'),
        'since', date_trunc('second', backend_start))
    from pg_replication_slots join pg_stat_replication on pid = active_pid where slot_name = {slot}"""


class Stream:
    """One connection that reads ``slot``; a slot has one reader at a time. Not for several threads at once.

    ``conninfo``: a role with REPLICATION, the slot's database. ``after``: the position the caller has
    stored; None: where the slot was last confirmed. ``patience``: seconds the server has for any answer.
    ``is_temporary``: the slot is made, and goes with the stream. ``messages``: also what stands in the WAL
    outside of transactions.

    Raises SlotMissing, SlotInUse, SlotMoved, StreamError (a slot of another kind), Unreachable, StreamLost,
    DatabaseError (any other refusal of the server).
    """

    def __init__(
        self,
        conninfo: str,
        slot: str,
        publication: str,
        *,
        after: int | None = None,
        patience: float = 60.0,
        is_temporary: bool = False,
        messages: bool = True,
        name: str = "wardkey scribe",
    ) -> None:
        self._patience, self._messages = patience, messages
        self._decoder = Decoder()
        self._within = False  # a transaction of which the end is still to come
        self._heard = self._asked = time.monotonic()
        self._connection = _connect(conninfo, patience, name)
        self._pgconn = self._connection.pgconn
        try:
            with _translated():
                if is_temporary:
                    made = "CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'nothing')"
                    self._connection.execute(sql.SQL(made).format(sql.Identifier(slot)))
                self._confirmed = self._check(slot, publication, after)
                self._reached = self._seen = self._confirmed if after is None else after
                self._start(slot, publication)
        except BaseException:
            self._connection.close()
            raise

    @property
    def reached(self) -> int:
        """``receive`` has returned everything that ends at or before this position."""
        return self._reached

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, most: int = 10_000, wait: float = 1.0, size: int = _MUCH) -> list[Event]:
        """Return what has come, ``most`` at most; waits up to ``wait`` seconds for the first, else [].

        ``size``: bytes after which no more are taken in; one event is returned whatever its size.

        The list can end inside a transaction; ``reached`` is before that transaction then. To be called
        at least every half ``wal_sender_timeout`` (30 s by default), or the server ends the stream.
        When it raises anything, the stream is closed: what this call had received comes again in the next.
        """
        events: list[Event] = []
        taken = 0
        deadline = time.monotonic() + wait
        try:
            with _translated():
                while len(events) < most and taken < size:
                    length, data = self._pgconn.get_copy_data(1)
                    if length > 0:
                        self._take(data, events)
                        taken += length
                    elif length < 0:
                        self._ended()
                    elif not self._read(0 if events else deadline - time.monotonic()):
                        if events or time.monotonic() >= deadline:
                            break
                        self._ping()
        except BaseException:
            self.close()
            raise
        self._reached = self._seen
        return events

    def confirm(self, position: int) -> None:
        """Let the server forget what ends at or before ``position``. Raises ValueError beyond ``reached``."""
        if position > self._reached:
            raise ValueError(
                f"{lsn_text(position)} has not been reached; the stream is at {lsn_text(self._reached)}"
            )
        self._confirmed = max(self._confirmed, position)  # not every server refuses to go back
        with _translated():
            self._send_status(flushed=self._confirmed)

    def close(self) -> None:
        """End the stream. The slot is free when the server has seen that, some milliseconds later."""
        self._connection.close()

    def _check(self, slot: str, publication: str, after: int | None) -> int:
        """Return the position the slot is confirmed to. Raises for what cannot become a stream."""
        facts = self._ask(_FACTS, slot=slot, publication=publication)
        if facts is None:
            raise SlotMissing(
                f"there is no replication slot {slot} on this server",
                "if there was one, the journal has a gap; it is made by: "
                f"select pg_create_logical_replication_slot('{slot}', 'pgoutput')",
            )
        plugin, database, wal_status, confirmed, flushed, published = facts
        here = self._connection.info.dbname
        if plugin != "pgoutput" or database != here:
            kind = f"{plugin} in database {database}" if plugin else "physical replication"
            raise StreamError(
                f"replication slot {slot} is of {kind}, not of pgoutput in database {here}",
                "connect to the slot's database, or name the slot that was made for this",
            )
        if not published:
            raise StreamError(
                f"there is no publication {publication} in database {here}",
                "make it, then make the slot again: a slot sees only publications older than itself",
            )
        if wal_status == "lost":
            raise SlotMoved(
                f"the server has thrown away WAL that replication slot {slot} had not sent yet",
                "the journal has a gap; drop the slot and make it again, and see max_slot_wal_keep_size",
            )
        if after is not None and not confirmed <= after <= flushed:
            raise SlotMoved(
                f"replication slot {slot} is at {lsn_text(confirmed)} and the server's WAL ends at "
                f"{lsn_text(flushed)}, but the slot's reader left off at {lsn_text(after)}",
                "the slot was moved or made again, or this is another server: the journal may have a gap; "
                "to go on, start from the slot's own position",
            )
        return int(confirmed)

    def _ask(self, query: Any, **values: str) -> tuple[Any, ...] | None:
        return self._connection.execute(sql.SQL(query).format(**values)).fetchone()

    def _start(self, slot: str, publication: str) -> None:
        quoted = sql.Identifier(slot).as_string(self._connection)
        names = sql.Literal(sql.Identifier(publication).as_string(self._connection)).as_string(
            self._connection
        )
        self._pgconn.send_query(
            f"START_REPLICATION SLOT {quoted} LOGICAL {lsn_text(self._reached)} "
            f"(proto_version '1', publication_names {names}, messages '{self._messages}')".encode()
        )
        self._flush()
        deadline = time.monotonic() + self._patience
        result = self._result(deadline)
        if result and result.status == pq.ExecStatus.COPY_BOTH:
            return
        while self._result(deadline):  # until the connection can take another query
            pass
        error = psycopg.errors.error_from_result(result) if result else StreamLost()
        if not isinstance(error, psycopg.errors.ObjectInUse):
            raise error
        pid, who = self._ask(_READER, slot=slot) or (None, "gone meanwhile")
        raise SlotInUse(f"replication slot {slot} is being read by server process {pid} ({who})", pid)

    def _take(self, data: memoryview, events: list[Event]) -> None:
        """Add the event in ``data``, or answer it if it is a keepalive."""
        if data[0] == 0x77:  # w: XLogData
            payload = data[_HEADER:]
            if len(payload) > _LONGEST:
                event: Event = self._decoder.decode_long(payload)
            else:
                event = self._decoder.decode(bytes(payload))
            events.append(event)
            if isinstance(event, Message):
                if not self._within:
                    self._seen = max(self._seen, event.lsn)
            elif isinstance(event, Begin):
                self._within = True
            elif isinstance(event, Commit):
                self._within = False
                self._seen = max(self._seen, event.end_lsn)
        elif data[0] == 0x6B:  # k: keepalive
            _, end, _, answer = _KEEPALIVE.unpack(data)
            if not self._within:
                self._seen = max(self._seen, end)
            if answer:
                self._send_status()

    def _send_status(self, *, flushed: int = 0, answer: bool = False) -> None:
        now = int((time.time() - _EPOCH) * 1_000_000)
        self._pgconn.put_copy_data(_STATUS.pack(b"r", self._seen, flushed, 0, now, answer))
        self._flush()

    def _ping(self) -> None:
        """Ask for a sign of life after a silence. Raises StreamLost when none has come."""
        now = time.monotonic()
        if self._asked > self._heard:
            if now - self._asked >= self._patience:
                raise StreamLost(f"the server of the audit stream has not answered for {self._patience:g} s")
        elif now - self._heard >= min(self._patience, _PING_AFTER):
            self._asked = now
            self._send_status(answer=True)

    def _read(self, seconds: float) -> bool:
        """Take in what the socket has; wait for that, but not past the moment to look at the clock again."""
        if not self._poll(select.POLLIN, min(seconds, self._patience / 4, _PING_AFTER / 4)):
            return False
        self._pgconn.consume_input()
        self._heard = time.monotonic()
        return True

    def _flush(self) -> None:
        deadline = time.monotonic() + self._patience
        while self._pgconn.flush():
            if time.monotonic() > deadline:
                raise StreamLost(f"the server of the audit stream takes nothing since {self._patience:g} s")
            self._poll(select.POLLOUT, 1.0)

    def _poll(self, what: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pgconn.socket, what)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def _result(self, deadline: float) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            if not self._read(deadline - time.monotonic()) and time.monotonic() >= deadline:
                raise StreamLost(f"the server of the audit stream has not answered for {self._patience:g} s")
        return self._pgconn.get_result()

    def _ended(self) -> None:
        result = self._result(time.monotonic() + self._patience)
        if result and result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
        raise StreamLost("the server has ended the audit stream; it is being shut down")


def lsn_text(position: int) -> str:
    """Return the position the way PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _connect(conninfo: str, patience: float, name: str) -> psycopg.Connection[tuple[Any, ...]]:
    try:
        return connect(
            conninfo,
            name,
            autocommit=True,
            settings={"search_path": "pg_catalog"},
            replication="database",
            connect_timeout=max(2, math.ceil(patience)),
        )
    except psycopg.Error as error:
        raise from_psycopg(error) from None


@contextmanager
def _translated() -> Iterator[None]:
    """Raise StreamLost for a broken connection, DatabaseError for what the server refuses."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise StreamLost(from_psycopg(error).message) from None
    except psycopg.Error as error:
        raise from_psycopg(error) from None
