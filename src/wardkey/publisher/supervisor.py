"""The publisher as a whole: starts, goes on after any trouble, and says how it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from wardkey_core.log.source import DamagedLog

from ..audit.source import open_log
from ..daemon.lines import Line
from ..daemon.service import Backoff, Stop
from ..daemon.sessions import connect
from ..daemon.status import StatusFile
from ..errors import PublisherError, WardError, from_psycopg
from . import topics
from .broker import Broker, Delivery
from .config import Configuration
from .messages import MISSING, Mark, messages
from .topics import Topic

__all__ = ["LOCK", "Publisher", "is_at_work"]

LOCK: Final = 0x7761_7264_6B61_666B  # "wardkafk"
"""Of two publishers of a database the one with this advisory lock works, the other waits."""

_ROUND: Final = 5_000  # entries published between two looks at who has more
_LEAST: Final = 50  # of a tenant in a round; as many tenants as there is room for, who waited longest first
_LOOK: Final = 0.5  # seconds between looks when there was nothing to do
_LONGEST: Final = 5.0  # seconds between tries
_SILENCE: Final = 2.0  # seconds without an acknowledgement that are worth a word
_SETTINGS: Final = {"search_path": "pg_catalog", "synchronous_commit": "on", "lock_timeout": "15s"}
_UNKNOWN: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})

Connection = psycopg.Connection[Any]


def is_at_work(connection: Connection) -> bool:
    """Say whether a publisher works for this database."""
    query = (
        "select from pg_catalog.pg_locks where locktype = 'advisory' and granted and objsubid = 1"
        " and classid = %s and objid = %s"
        " and database = (select oid from pg_catalog.pg_database where datname = current_database())"
    )
    return connection.execute(query, [LOCK >> 32, LOCK & 0xFFFF_FFFF]).fetchone() is not None


@dataclass(slots=True)
class _Setback:
    """What keeps one tenant's log from being published, while the others' goes on."""

    text: str
    wait: float
    until: float


@dataclass(slots=True)
class _Flight:
    """What of a topic is on its way: ``marks[n]`` is how far it has come with n messages acknowledged.

    ``begins``: the log's first position; a topic that is older than its last pruning has more.
    """

    topic: Topic
    delivery: Delivery
    marks: list[Mark]
    missing: list[int]
    alone: bool = False
    begins: int = 0

    @property
    def mark(self) -> Mark:
        return self.marks[self.delivery.acknowledged]

    @property
    def trouble(self) -> str | None:
        """The error's name: of what failed, or of what comes next and is not taken."""
        whole = self.delivery.acknowledged == len(self.marks) - 1
        return self.delivery.failed or (self.delivery.refused if whole else None)


class Publisher:
    """``dsn``: as ward_publisher, or a superuser. ``status``: a file to tell in how things are.

    ``patience``: seconds that a broker which can be reached may take to acknowledge.
    """

    def __init__(
        self,
        dsn: str,
        configuration: Configuration,
        *,
        report: Callable[[str], None],
        stop: Stop,
        status: Path | None = None,
        patience: float = 60,
    ) -> None:
        self._dsn = dsn
        self._configuration, self._report, self._status = configuration, report, StatusFile(status, report)
        self._patience = patience
        self._stop = stop
        self._trouble: str | None = None
        self._setbacks: dict[UUID, _Setback] = {}
        self._alone: dict[UUID, int] = {}  # up to which position entries go one by one: one is too large
        self._large: dict[UUID, int] = {}  # position of an entry the broker does not take
        self._published = 0

    def run(self) -> None:
        """Work until ``stop`` is set, then hear of what is on its way and store it."""
        backoff = Backoff(0.5, _LONGEST)
        while not self._stop:
            published, trouble = self._published, None
            try:
                self._session()
            except WardError as error:
                trouble = error.message
            except psycopg.Error as error:
                trouble = from_psycopg(error).message
            if trouble:
                self._say(trouble, state="waiting")
            if published != self._published:
                backoff.reset()
            self._stop.wait(backoff.next())
        self._say(None, state="stopped", pid=None)

    def _session(self) -> None:
        """Work over one connection and one producer, until either is of no more use."""
        broker = Broker(self._configuration)
        try:
            with self._connect() as connection:
                if not self._alone_at_work(connection):
                    return
                cluster = broker.cluster()
                self._report(
                    Line(
                        "at_work",
                        f"at work in database {connection.info.dbname}, for Kafka cluster {cluster}",
                    )
                )
                while not (self._stop or broker.broken):
                    if not self._round(connection, broker, cluster):
                        self._stop.wait(_LOOK)
        finally:
            broker.close()

    def _alone_at_work(self, connection: Connection) -> bool:
        """Wait until no other publisher works for this database; False when stopped meanwhile."""
        while not self._stop:
            row = connection.execute("select pg_try_advisory_lock(%s)", [LOCK]).fetchone()
            if row == (True,):
                return True
            self._say("another publisher is at work for this database", state="waiting")
            self._stop.wait(1)
        return False

    def _round(self, connection: Connection, broker: Broker, cluster: str) -> bool:
        """Publish a part of what every tenant lacks; False when nothing could be done."""
        done = self._claim(connection, broker, cluster)
        lacking = topics.every(connection, cluster, behind=True)
        due = [topic for topic in lacking if self._may(topic.tenant)][: _ROUND // _LEAST]
        flights = []
        for topic in due:
            flights.append(self._launch(connection, broker, topic, max(_LEAST, _ROUND // len(due))))
            if self._stop:
                break
        settled = self._settle(broker)
        for flight in flights:
            done = self._land(connection, broker, flight) or done
        behind = sum(topic.behind for topic in lacking) - sum(
            flight.mark.position - flight.topic.mark.position for flight in flights
        )
        setbacks = [setback.text for setback in self._setbacks.values()]
        trouble = "; ".join(dict.fromkeys(setbacks[:3])) or None
        self._say(trouble, state="running", behind=behind, tenants_in_trouble=len(setbacks))
        return done and settled

    def _claim(self, connection: Connection, broker: Broker, cluster: str) -> bool:
        """Make the topics that are missing."""
        made = False
        for tenant in topics.unclaimed(connection, cluster):
            if self._stop or not self._may(tenant):
                continue
            try:
                name, new = topics.claim(connection, cluster, tenant, broker.make)
            except PublisherError as error:
                self._set_back(tenant, error.message)
                if broker.trouble:  # nor will it make the others'
                    break
            else:
                made = True
                self._setbacks.pop(tenant, None)
                if new:
                    self._report(Line("topic_made", f"topic {name} made for tenant {tenant}"))
        return made

    def _launch(self, connection: Connection, broker: Broker, topic: Topic, share: int) -> _Flight:
        """Put messages for a topic into the queue."""
        tenant, key = topic.tenant, str(topic.tenant).encode()
        flight = _Flight(topic, Delivery(self._configuration.hide), [topic.mark], [])
        flight.alone = self._alone.get(tenant, -1) > topic.mark.position
        large = [self._large[tenant]] if tenant in self._large else []
        try:
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                log = open_log(connection, tenant)
                flight.begins = log.begins()
                start = max(topic.mark.position, flight.begins)
                end = min(topic.size, start + (1 if flight.alone else share))
                for message in messages(log, tenant, topic.mark, end, large):
                    if not broker.send(topic.name, key, message, flight.delivery):
                        break
                    flight.marks.append(message.after)
                    if message.kind == MISSING:
                        flight.missing.append(message.after.position - 1)
        except DamagedLog as error:
            flight.delivery.refused, flight.delivery.text = "damaged", str(error)
        return flight

    def _settle(self, broker: Broker) -> bool:
        """Wait until all is settled; False when stopped, or broken, meanwhile."""
        left, silent, stopped_at = broker.serve(0), time.monotonic(), None
        while left and not broker.broken:
            now = time.monotonic()
            if self._stop:
                stopped_at = stopped_at or now
                if now - stopped_at > _SILENCE:
                    return False
            before, left = left, broker.serve(0.2)
            if left < before:
                silent, broker.trouble = now, None
            elif now - silent > self._patience and broker.is_there():
                self._report(
                    Line("kafka_failed", "Kafka is there, and acknowledges nothing: another producer tries")
                )
                broker.broken = True
            elif now - silent > _SILENCE:
                self._say(f"Kafka does not answer: {broker.trouble or 'nothing is known'}", state="waiting")
        return not broker.broken

    def _land(self, connection: Connection, broker: Broker, flight: _Flight) -> bool:
        """Store how far a topic has come, and see to what went wrong; False when nothing was acknowledged."""
        topic, mark, trouble = flight.topic, flight.mark, flight.trouble
        # each entry below has an offset of its own
        if 0 <= flight.delivery.offset < mark.position - 1 - flight.begins:
            topics.save(connection, topic, Mark())
            self._report(
                Line("topic_refilled", f"warning: {topic.name} has lost what was in it; it is filled again")
            )
            return True
        missing = [position for position in flight.missing if position < mark.position]
        if mark != topic.mark:
            with connection.transaction():
                topics.save(connection, topic, mark)
                if missing:
                    _tell_passed_over(connection, topic, missing)
            self._published += mark.position - topic.mark.position
            self._setbacks.pop(topic.tenant, None)
        for position in missing:
            self._report(
                Line(
                    "entry_without_content",
                    f"warning: {topic.name} has no content of the entry at position {position}",
                )
            )
        if trouble in _UNKNOWN and topics.renew(connection, replace(topic, mark=mark), broker.make):
            self._report(
                Line("topic_refilled", f"warning: topic {topic.name} was gone; it is made again and filled")
            )
            broker.broken = True  # its numbers are those of the topic that was
        elif trouble == "MSG_SIZE_TOO_LARGE":
            if flight.alone or flight.delivery.failed is None:
                self._large[topic.tenant] = mark.position
            else:
                self._alone[topic.tenant] = flight.marks[-1].position
        elif trouble and not (broker.broken and trouble.startswith("_")):
            self._set_back(topic.tenant, f"{topic.name}: {flight.delivery.text}")
            topics.tell_failing(connection, topic.tenant, flight.delivery.text)
        return mark != topic.mark

    def _may(self, tenant: UUID) -> bool:
        setback = self._setbacks.get(tenant)
        return setback is None or setback.until <= time.monotonic()

    def _set_back(self, tenant: UUID, text: str) -> None:
        before = self._setbacks.get(tenant)
        wait = min(2 * before.wait, 30.0) if before else 1.0
        if before is None or before.text != text:
            self._report(Line("kafka_failed", text))
        self._setbacks[tenant] = _Setback(text, wait, time.monotonic() + wait)

    def _connect(self) -> Connection:
        return connect(
            self._dsn, "wardkey publisher", autocommit=True, settings=_SETTINGS, keepalives_idle=30
        )

    def _say(self, trouble: str | None, **facts: Any) -> None:
        """Write down how things are; say on stderr what troubles, once."""
        if trouble and trouble != self._trouble and trouble not in {s.text for s in self._setbacks.values()}:
            self._report(Line("kafka_failed", trouble))
        self._trouble = trouble
        self._status.say(**facts, trouble=trouble, published=self._published)


def _tell_passed_over(connection: Connection, topic: Topic, positions: list[int]) -> None:
    """Have the tenant's log say which entries its topic has no content of."""
    detail = {"topic": topic.name, "positions": positions[:20], "count": len(positions)}
    connection.execute("select ward_internal.report_unpublished(%s, %s)", [topic.tenant, Jsonb(detail)])
