"""The worker of a rotation: asks ``rotation`` what is next, and does it, until it is over or told to stop.

Each batch is a transaction of its own; what is committed is done, whatever ends the worker then. One worker
a tenant: a session's advisory lock, which ends with its connection. Batches are committed without waiting for
the disk: a crash of the server takes the last few back, and the rows are under a key that is still there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from ..errors import KeeperUnavailable, KeyInUse, RotationPaused, RotationRunning, WardError, ward_error
from . import rotation
from .registry import Connection, Ward, read_ward
from .rotation import Batch, Position, next_step

__all__ = ["Outcome", "Progress", "Throttle", "reseal"]

BATCH_SECONDS = 0.03
"""A writer may have to wait for a row as long as a batch takes."""
MOST_BLOCKS = 256  # the next batch may be full of old values, whatever the last one found
FEW_ROWS = 100  # the time of a batch that moved fewer is mostly not theirs
LOCK_SECONDS = 3.0
"""The connection of a worker that was killed may live on for the batch it was in."""

_LOCK = "select pg_try_advisory_lock(hashtext('wardkey reseal'), hashtext(%s))"
_UNLOCK = "select pg_advisory_unlock(hashtext('wardkey reseal'), hashtext(%s))"
_BATCH = "select rows, fields, failed, skipped, next_block from ward_internal.reseal(%s, %s, %s, %s)"
_RETIRE = "select ward.retire_keys(%s)"


@dataclass(frozen=True, slots=True)
class Throttle:
    """How long to rest after a batch: to keep to ``rate`` fields/s, else to work ``share`` of the time.

    ``seconds``: since the last rest, with what is read before a batch.
    """

    rate: float | None = None
    share: float = 0.06

    def rest(self, fields: int, seconds: float) -> float:
        if self.rate is not None:
            return max(fields / self.rate - seconds, 0.0)
        return seconds * (1 - self.share) / self.share


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pass has come. ``rows`` and ``fields`` are those this worker moved in ``seconds``."""

    slug: str
    table: str
    blocks: int
    of_blocks: int
    rows: int
    fields: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended: ``finished``, ``interrupted``, ``paused``, ``waiting`` (too long) or ``failed``.

    ``busy`` are the seconds it did not rest. ``reason``: why it did not finish.
    """

    slug: str
    state: str
    rows: int
    fields: int
    failed: int
    retired: tuple[int, ...]
    seconds: float
    busy: float
    reason: str | None = None


def reseal(
    connection: Connection,
    slug: str,
    throttle: Throttle,
    stop: threading.Event,
    *,
    patience: float = 60.0,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Move every row to the active version and retire the others, or as much of it as can be done now.

    Ends after a batch when ``stop`` is set, and when nothing moved for ``patience`` seconds. ``connection``
    is an autocommitting one. Raises RotationRunning, UnknownTenant, psycopg.Error.
    """
    ward = read_ward(connection, slug)
    with _alone(connection, str(ward.id), stop):
        connection.execute("set synchronous_commit = off")
        try:
            return _Worker(connection, slug, throttle, stop, patience, watch).run()
        finally:
            if not connection.closed:
                connection.execute("reset synchronous_commit")


class _Worker:
    def __init__(
        self,
        connection: Connection,
        slug: str,
        throttle: Throttle,
        stop: threading.Event,
        patience: float,
        watch: Callable[[Progress], None],
    ) -> None:
        self._connection = connection
        self._slug = slug
        self._throttle = throttle
        self._stop = stop
        self._patience = patience
        self._watch = watch
        self._position = Position()
        self._blocks = 16
        self._rows = self._fields = 0
        self._retired: tuple[int, ...] = ()
        self._began = self._moved = time.monotonic()
        self._rested = 0.0
        self._woke = self._began

    def run(self) -> Outcome:
        while not self._stop.is_set():
            ward = read_ward(self._connection, self._slug)
            try:
                outcome = self._do(next_step(ward.facts, self._position), ward)
            except psycopg.Error as error:
                match ward_error(error):
                    case RotationPaused():
                        continue
                    case KeeperUnavailable() | KeyInUse() as trouble:
                        outcome = self._wait(rotation.LONGEST_WAIT / 5, _said(trouble))
                    case _:
                        raise
            if outcome is not None:
                return outcome
        return self._end("interrupted", "told to stop")

    def _do(self, step: rotation.Step, ward: Ward) -> Outcome | None:
        match step:
            case rotation.Fence():
                self._connection.execute(_BATCH, [self._slug, None, 0, 0])
                self._position = self._position.another_pass()
            case rotation.Reseal(table, block):
                self._reseal(ward, table, block)
            case rotation.Wait(reason, seconds):
                self._position = self._position.after_wait()
                return self._wait(seconds, reason)
            case rotation.Retire():
                return self._retire()
            case rotation.Paused():
                return self._end(
                    "paused", f"the rotation is paused; continue with: wardkey keys resume {self._slug}"
                )
            case rotation.Failed(values):
                said = f"{values} values do not open, or are not unique; ward.events names their rows"
                return self._end("failed", said)
            case rotation.Finished():
                return self._end("finished")
        return None

    def _reseal(self, ward: Ward, table: str, block: int) -> None:
        began = time.monotonic()
        row: Any = self._connection.execute(_BATCH, [self._slug, table, block, self._blocks]).fetchone()
        rows, fields, failed, skipped, next_block = row
        seconds = time.monotonic() - began
        self._rows += rows
        self._fields += fields
        if rows:
            self._moved = time.monotonic()
        self._position = self._position.after_batch(table, Batch(fields, failed, skipped, next_block))
        self._watch(self._progress(ward, table))
        self._blocks = _adapted(self._blocks, rows, seconds)
        self._rest(self._throttle.rest(fields, time.monotonic() - self._woke))

    def _progress(self, ward: Ward, table: str) -> Progress:
        position = self._position
        done = sum(blocks for model, (_, blocks) in ward.leaves.items() if model in position.done)
        within = position.block if position.table == table else 0
        of_blocks = sum(blocks for _, blocks in ward.leaves.values())
        seconds = time.monotonic() - self._began
        face = ward.leaves[table][0]
        return Progress(self._slug, face, done + within, of_blocks, self._rows, self._fields, seconds)

    def _retire(self) -> Outcome | None:
        try:
            with self._connection.transaction():
                # The server's disk has this: what comes after, destroying the key, cannot be taken back.
                self._connection.execute("set local synchronous_commit = on")
                row: Any = self._connection.execute(_RETIRE, [self._slug]).fetchone()
        except psycopg.Error as error:
            refusal = ward_error(error)
            if not isinstance(refusal, KeyInUse):
                raise
            waited = self._position.after_wait()
            self._position = waited.another_pass()
            return self._wait(
                min(rotation.FIRST_WAIT * 2**waited.waits, rotation.LONGEST_WAIT), _said(refusal)
            )
        self._retired += tuple(row[0])
        self._position = self._position.another_pass()  # tokens under what is retired go, unless it is over
        return None

    def _wait(self, seconds: float, reason: str) -> Outcome | None:
        if time.monotonic() + seconds - self._moved > self._patience:
            return self._end("waiting", reason)
        self._rest(seconds)
        return None

    def _rest(self, seconds: float) -> None:
        if seconds > 0:
            began = time.monotonic()
            self._stop.wait(seconds)
            self._rested += time.monotonic() - began
        self._woke = time.monotonic()

    def _end(self, state: str, reason: str | None = None) -> Outcome:
        seconds = time.monotonic() - self._began
        return Outcome(
            self._slug,
            state,
            self._rows,
            self._fields,
            self._position.failed,
            self._retired,
            seconds,
            seconds - self._rested,
            reason,
        )


@contextmanager
def _alone(connection: Connection, tenant: str, stop: threading.Event) -> Iterator[None]:
    deadline = time.monotonic() + LOCK_SECONDS
    while connection.execute(_LOCK, [tenant]).fetchone() != (True,):
        if time.monotonic() > deadline or stop.wait(0.05):
            raise RotationRunning(
                "another worker reseals this tenant's rows", "let it; see: wardkey keys status"
            )
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(_UNLOCK, [tenant])


def _adapted(blocks: int, rows: int, seconds: float) -> int:
    """Return how many blocks the next batch takes, so that it lasts as long as it should."""
    least = 1.0 if rows < FEW_ROWS else 0.25  # smaller batches would not be quicker
    factor = min(max(BATCH_SECONDS / max(seconds, 1e-6), least), 4.0)
    return min(max(int(blocks * factor), 1), MOST_BLOCKS)


def _said(error: WardError) -> str:
    return error.message if error.hint is None else f"{error.message} ({error.hint})"
