"""The invalidator: decodes the WAL, marks in Redis which tables were written, and says until when.

A mark is a number of a sequence that grows with each round of marking; within a run of this process, a
*generation*. A table is marked when the commit that wrote it is visible to new snapshots: decoding may be
ahead of that, as a commit is flushed, and perhaps waits for a standby, before others see it. What waits is
marked later, and holds up nobody else.

``at`` in the marks of all tenants is a moment up to which all that was committed is marked: the database's
clock, read together with the end of the WAL, once that was decoded. If this process is behind, hangs or is
cut off, it grows no more, and clients go to the database. A commit that does not wait for its WAL
(synchronous_commit off) is seen when that is written, after 0.6 s at most by default.

Nothing is kept: the slot is temporary, so that WAL never waits for a process that is not there, and what was
cached under another generation opens for nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import redis
from redis.exceptions import RedisError
from wardkey_core.ciphers import hkdf
from wardkey_pg.cached import password

from ..daemon.lines import Line
from ..daemon.service import Backoff, Stop
from ..daemon.sessions import connect
from ..daemon.status import StatusFile
from ..errors import CacheError, WardError, from_psycopg
from ..scribe.pgoutput import Begin, Commit, Event, Insert
from ..scribe.replication import Stream
from . import users
from .config import Configuration
from .lock import LOCK
from .sealed import Marks, marks_name

__all__ = ["Invalidator", "owner_of"]

_PUBLICATION: Final = "wardkey_cache"
_BEAT: Final = 0.5  # seconds between moments that are told
_POLL: Final = 0.002  # seconds between looks whether what was decoded is visible
_MARKS_LAST: Final = 30_000  # milliseconds, after this process ended
_LONGEST: Final = 5.0
_SETTINGS: Final = {"search_path": "pg_catalog", "synchronous_commit": "on", "lock_timeout": "15s"}
_TENANTS: Final = "select id::text, key_epoch from ward_internal.tenants where status = 'active'"
_CLOCK: Final = """
    select date_part('epoch', clock_timestamp()), (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint"""
_OWNER: Final = """
    select concat_ws(' ', system_identifier, current_database()) from pg_control_system()"""

Connection = psycopg.Connection[Any]
Written = dict[str, set[str]]  # models by tenant


@dataclass(slots=True)
class _Tenant:
    key: bytes = field(repr=False)
    epoch: int = 0
    tables: dict[str, int] = field(default_factory=dict)


def owner_of(connection: Connection) -> str:
    """Return what tells this database from others."""
    row = connection.execute(_OWNER).fetchone()
    return str(row and row[0])


class Invalidator:
    """``dsn``: as ward_invalidator, or a superuser. ``status``: a file to tell in how things are."""

    def __init__(
        self,
        dsn: str,
        configuration: Configuration,
        *,
        report: Callable[[str], None],
        stop: Stop,
        status: Path | None = None,
    ) -> None:
        self._dsn, self._configuration, self._report, self._stop = dsn, configuration, report, stop
        self._status = StatusFile(status, report)
        self._marked = 0

    def run(self) -> None:
        """Work until ``stop`` is set; begin again after any trouble, with another generation."""
        backoff, last = Backoff(0.2, _LONGEST), None
        while not self._stop:
            marked, trouble = self._marked, None
            try:
                self._session()
            except WardError as error:
                trouble = error.message
            except psycopg.Error as error:
                trouble = from_psycopg(error).message
            if trouble and trouble != last:
                self._report(Line("invalidation_failed", trouble))
            last = trouble
            if trouble:
                self._status.say(state="waiting", trouble=trouble)
            if marked != self._marked:
                backoff.reset()
            self._stop.wait(backoff.next())
        self._status.say(state="stopped", pid=None, trouble=None)

    def _session(self) -> None:
        with connect(self._dsn, "wardkey invalidator", autocommit=True, settings=_SETTINGS) as connection:
            while connection.execute("select pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
                self._status.say(state="waiting", trouble="another invalidator is at work for this database")
                if self._stop.wait(1):
                    return
            owner = owner_of(connection)
            generation, secret = str(uuid4()), token_bytes(32)
            began = "select ward_internal.begin_invalidation(%s, %s)"
            if connection.execute(began, [generation, secret]).fetchone() != (True,):
                raise CacheError("the database has no cache", "wardkey cache use redis://HOST:PORT")
            slot = f"wardkey_cache_{generation.replace('-', '')}"
            with Stream(
                *(self._dsn, slot, _PUBLICATION),
                is_temporary=True,
                messages=False,
                name="wardkey invalidator",
            ) as stream:
                self._report(Line("at_work", f"at work in database {connection.info.dbname}"))
                _Run(connection, stream, generation, secret, self, owner).work()

    # What a run needs of the process.

    def stopped(self) -> bool:
        return bool(self._stop)

    def join(self, owner: str) -> redis.Redis:
        return users.join(self._configuration, owner)

    def say(self, trouble: str | None, *, marked: int, tenants: int) -> None:
        self._marked += marked
        if trouble and trouble != self._status.facts.get("trouble"):
            self._report(Line("invalidation_failed", trouble))
        self._status.say(state="running", trouble=trouble, marked=self._marked, tenants=tenants)


class _Run:
    """One generation: from a slot's making to whatever ends it. Redis may come and go meanwhile."""

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        generation: str,
        secret: bytes,
        process: Invalidator,
        owner: str,
    ) -> None:
        self._connection, self._stream, self._process = connection, stream, process
        self._generation, self._secret, self._owner = generation, secret, owner
        self._tenants: dict[str, _Tenant] = {}
        self._sequence, self._marked = 1, 0
        self._at = 0.0
        self._redis: redis.Redis | None = None
        self._redis_run = ""
        self._users: dict[str, int] = {}  # epochs of the passwords that Redis has, by tenant
        self._xid, self._written, self._looks = 0, Written(), False  # of the transaction that is decoded
        self._waiting: dict[int, Written] = {}  # decoded, and perhaps not visible yet
        self._moments: list[tuple[int, float]] = []  # (end of the WAL, clock), not reached yet

    def work(self) -> None:
        beat = 0.0
        while not self._process.stopped():
            if time.monotonic() >= beat:
                beat = time.monotonic() + _BEAT
                (clock, end) = self._connection.execute(_CLOCK).fetchone() or (0.0, 0)
                self._moments.append((end, clock))
                self._looks = True
            wait = _POLL if self._waiting else max(0.0, beat - time.monotonic())
            self._take(self._stream.receive(wait=wait))
            self._stream.confirm(self._stream.reached)
            is_new = self._looks and self._look()
            changed = self._mark()
            reached = [moment for moment in self._moments if moment[0] <= self._stream.reached]
            if reached and not self._waiting:
                self._moments = self._moments[len(reached) :]
                self._at, is_new = reached[-1][1], True
            if changed or is_new:
                self._tell(set(self._tenants) if is_new else changed, everything=is_new)

    def _take(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Begin):
                self._xid, self._written = event.xid, {}
            elif isinstance(event, Insert):
                tenant, model = event.new["tenant_id"], event.new["model_id"]
                if event.new["kind"] == "w" and tenant and model:
                    self._written.setdefault(tenant, set()).add(model)
                else:
                    self._looks = True  # an operator did something: perhaps with keys or rights
            elif isinstance(event, Commit) and self._written:
                self._waiting[self._xid] = self._written

    def _mark(self) -> set[str]:
        """Mark what was written by transactions that are visible now; return whose that was."""
        if not self._waiting:
            return set()
        snapshot = self._connection.execute("select pg_current_snapshot()::text").fetchone()
        _, most, running = str(snapshot and snapshot[0]).split(":")
        still = {int(xid) & 0xFFFF_FFFF for xid in running.split(",") if xid}
        visible = [
            xid
            for xid in self._waiting
            if xid not in still and 0 < ((int(most) - xid) & 0xFFFF_FFFF) < 1 << 31
        ]
        changed: set[str] = set()
        if visible:
            self._sequence += 1
        for xid in visible:
            for tenant, models in self._waiting.pop(xid).items():
                if tenant in self._tenants:
                    self._tenants[tenant].tables |= dict.fromkeys(models, self._sequence)
                    changed.add(tenant)
        return changed

    def _look(self) -> bool:
        """Learn which tenants there are, and their key epochs; True when that is not as it was."""
        self._looks = False
        before = {tenant: known.epoch for tenant, known in self._tenants.items()}
        epochs = dict(self._connection.execute(_TENANTS).fetchall())
        for tenant in self._tenants.keys() - epochs.keys():
            del self._tenants[tenant]
        for tenant, epoch in epochs.items():
            if tenant not in self._tenants:
                key = hkdf(self._secret, UUID(tenant).bytes, b"wardkey/1 cache marks")
                self._tenants[tenant] = _Tenant(key)
            self._tenants[tenant].epoch = epoch
        return epochs != before

    def _tell(self, tenants: set[str], *, everything: bool) -> None:
        """Write marks of these tenants; ``everything``: also see to Redis's users."""
        trouble = None
        try:
            if self._redis is None:
                self._redis, self._users, everything = self._process.join(self._owner), {}, True
                self._redis_run = self._redis_is()
                tenants = set(self._tenants)
            if everything and self._redis_is() != self._redis_run:
                raise RedisError  # it was restarted: begin again
            if everything or any(self._users.get(each) != self._tenants[each].epoch for each in tenants):
                self._see_to_users(self._redis)
            with self._redis.pipeline(transaction=False) as pipeline:
                for tenant in tenants:
                    known = self._tenants[tenant]
                    marks = Marks(
                        self._generation, tenant, known.epoch, self._sequence, self._at, known.tables
                    )
                    pipeline.set(marks_name(tenant), marks.encode(known.key), px=_MARKS_LAST)
                pipeline.execute()
        except (CacheError, RedisError, OSError) as error:
            failure = error if isinstance(error, CacheError) else users.translated(error)
            trouble = failure.message
            if self._redis is not None:
                self._redis.close()
            self._redis = None
        self._marked += len(tenants)
        if everything or trouble:
            self._process.say(trouble, marked=self._marked, tenants=len(self._tenants))
            self._marked = 0

    def _see_to_users(self, connection: redis.Redis) -> None:
        if not self._users:
            self._users = dict.fromkeys(users.tenants_in(connection), -1)
        for tenant in self._users.keys() - self._tenants.keys():
            users.drop(connection, tenant)
            del self._users[tenant]
        for tenant, known in self._tenants.items():
            if self._users.get(tenant) != known.epoch:
                users.set_up(connection, tenant, password(self._secret, UUID(tenant).bytes, known.epoch))
                self._users[tenant] = known.epoch

    def _redis_is(self) -> str:
        """Return what tells this run of the server from others."""
        return str(self._redis and self._redis.info("server").get("run_id"))
