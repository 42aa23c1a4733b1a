"""What both kinds of cache share: all but how they wait, as in ``wardkey.client.base``.

Seconds: a ticket is renewed after 10, so somebody whose logins were ended is served for no longer out of
Redis; marks older than 3 serve nobody, so a Redis that withholds them, or an invalidator that hangs, makes a
value no older.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from json import dumps as to_json
from os import getpid
from random import uniform
from threading import Lock
from time import monotonic
from typing import Any, ClassVar

from ..client.base import Steps
from ..client.tokens import Secret
from ..errors import CacheError, MissingSoftware, NotAllowed
from .sealed import Header, Marks, Ticket, marks_name, user_of

__all__ = ["BaseCache"]

_TICKET_SECONDS = 10.0
_RENEWED_AFTER = 0.2  # seconds: a ticket that does not fit the marks is not asked for again before
_FRESH_SECONDS = 3.0
_AWAY_SECONDS = 1.0
_LONGEST = 1 << 20  # bytes of a value
_MOST_TICKETS = 4096
_MOST_CLIENTS = 256
_TICKET = "select ward.request_cache_ticket(%s)"


@dataclass(slots=True)
class _Answer:
    """What Redis has. ``marks`` None: it is not to be used. ``trouble``: what makes an event."""

    ticket: Ticket
    place: str = ""
    marks: Marks | None = None
    header: Header | None = None
    value: bytes = b""
    trouble: str | None = None


@dataclass(slots=True)
class _Flight:
    """One load of a value, for all of this process who want it."""

    lock: Any
    users: int = 0


class BaseCache:
    """See ``Cache`` for the parameters."""

    _lock_class: ClassVar[Any]
    _redis_module: ClassVar[str]
    _execute: Callable[..., Any]
    _read: Callable[..., Any]
    _mget: Callable[..., Any]
    _load: Callable[..., Any]

    def __init__(
        self, wards: Any, timeout: float, dumps: Callable[[Any], str], loads: Callable[[str], Any]
    ) -> None:
        try:
            self._redis, self._errors = import_module(self._redis_module), import_module("redis.exceptions")
            # once more: the invalidator ends connections when it changes a password
            backoff = import_module("redis.backoff").NoBackoff()
            self._retry = import_module(f"{self._redis_module}.retry").Retry(backoff, 1)
        except ImportError:
            raise MissingSoftware("the cache needs redis", "pip install 'wardkey[cache]'") from None
        self._wards, self._timeout, self._dumps, self._loads = wards, timeout, dumps, loads
        self._lock = Lock()
        self._tickets: OrderedDict[bytes, Ticket] = OrderedDict()
        self._clients: OrderedDict[tuple[int, str, str], Any] = OrderedDict()
        self._flights: dict[str, _Flight] = {}
        self._away_until = 0.0
        self.hits = self.misses = 0
        self._unsaid: Counter[str] = Counter()  # hits that the database was not told of, by tenant

    def _get(
        self,
        secret: Secret,
        name: str,
        loader: Callable[[Any], Any],
        tables: Sequence[str],
        *,
        shared: bool,
        ttl: float | None,
    ) -> Steps[Any]:
        answer = yield from self._find(secret, name, shared)
        wanted = _models(answer.ticket, tables)
        if (hit := (yield from self._hit(secret, answer, wanted))) is not None:
            return hit[0]
        self.misses += 1
        if answer.marks is None:
            value, _ = yield lambda: self._load(secret, loader, answer.trouble, fills=bool(answer.trouble))
            return self._loads(self._text(value))
        flight = self._enter(answer.place)
        try:
            yield flight.lock.acquire
            try:
                answer = yield from self._find(secret, name, shared)  # somebody may have stored it meanwhile
                if (hit := (yield from self._hit(secret, answer, wanted))) is not None:
                    return hit[0]
                value, told = yield lambda: self._load(secret, loader, answer.trouble, fills=True)
                text = self._text(value)
                yield from self._store(answer, told, text.encode(), wanted, ttl)
                return self._loads(text)
            finally:
                flight.lock.release()
        finally:
            self._exit(answer.place, flight)

    def _find(self, secret: Secret, name: str, shared: bool) -> Steps[_Answer]:
        """Ask Redis for marks and value, once more with another ticket where this one does not fit."""
        for is_last in (False, True):
            ticket = yield from self._ticket(secret, _RENEWED_AFTER if is_last else _TICKET_SECONDS)
            if not ticket.is_on:
                return _Answer(ticket)
            answer = _Answer(ticket, ticket.place(name, shared=shared))
            asked = marks_name(ticket.facts["tenant"]), answer.place
            reply = yield from self._ask(answer, lambda redis: self._mget(redis, asked))  # noqa: B023 - called at once
            if reply is None:
                if answer.trouble == "refused" and not is_last and ticket.age > _RENEWED_AFTER:
                    continue  # its password was changed
                answer.trouble = "away"
                return answer
            marks = ticket.marks(reply[0])
            if marks is None:
                if reply[0] is not None and not is_last and ticket.age > _RENEWED_AFTER:
                    continue
                answer.trouble = None if reply[0] is None else "stale"
                return answer
            if ticket.now - marks.at > _FRESH_SECONDS:
                answer.trouble = "stale"
                return answer
            answer.marks = marks
            if reply[1] is not None:
                opened = ticket.open(answer.place, reply[1])
                if opened is None:
                    answer.trouble = "altered"
                else:
                    answer.header, answer.value = opened
            return answer
        raise AssertionError

    def _hit(self, secret: Secret, answer: _Answer, wanted: frozenset[str]) -> Steps[tuple[Any] | None]:
        """Return the value if it holds, once that it was read is in the log."""
        header, marks = answer.header, answer.marks
        if header is None or marks is None or not header.holds(marks, answer.ticket.now):
            return None
        if not wanted <= header.tables:
            return None
        if header.reads:
            reads = header.reads
            try:
                yield lambda: self._read(secret, reads)
            except NotAllowed:
                return None
        with self._lock:
            self.hits += 1
            self._unsaid[answer.ticket.facts["tenant"]] += 1
        return (self._loads(answer.value.decode()),)

    def _store(
        self, answer: _Answer, told: dict[str, Any], value: bytes, wanted: frozenset[str], ttl: float | None
    ) -> Steps[None]:
        ticket, marks = answer.ticket, answer.marks
        may_keep = told["may_keep"] and told["epoch"] == ticket.facts["epoch"]
        if not may_keep or marks is None or len(value) > _LONGEST:
            return
        most = float(ticket.facts["ttl"])
        seconds = max(0.001, min(most, ttl if ttl is not None else most) * uniform(0.9, 1.0))  # noqa: S311
        reads = to_json(told["reads"], separators=(",", ":")) if told["reads"] else ""
        header = Header(marks.sequence, wanted | set(told["models"]), ticket.now + seconds, reads)
        sealed = ticket.seal(answer.place, header, value)
        yield from self._ask(
            answer, lambda redis: redis.set(answer.place, sealed, px=int(seconds * 1000) + 1)
        )

    def _ticket(self, secret: Secret, most: float) -> Steps[Ticket]:
        """Return a ticket not older than so many seconds."""
        digest = sha256(secret.token.encode()).digest()
        with self._lock:
            ticket = self._tickets.get(digest)
        if ticket is None or ticket.age > most or ticket.now >= ticket.facts.get("until", float("inf")):
            asked_at = monotonic()
            # of a token that had a ticket; the tenant of one that is new is not known yet
            with self._lock:
                hits = self._unsaid.pop(ticket.facts.get("tenant", ""), 0) if ticket is not None else 0
            row = yield lambda: self._execute(secret, _TICKET, [hits])
            ticket = Ticket(row[0], asked_at)
            with self._lock:
                self._tickets[digest] = ticket
                self._tickets.move_to_end(digest)
                while len(self._tickets) > _MOST_TICKETS:
                    self._tickets.popitem(last=False)
        return ticket

    def _ask(self, answer: _Answer, call: Callable[[Any], Any]) -> Steps[Any]:
        """Return Redis's answer, None where it gives none."""
        if monotonic() < self._away_until:
            answer.trouble = "away"
            return None
        try:
            redis = self._client(answer.ticket)
            return (yield lambda: call(redis))
        except self._errors.AuthenticationError:
            answer.trouble = "refused"
        except self._errors.ResponseError:
            answer.trouble = "away"  # it is full, or not as the invalidator made it
        except (self._errors.RedisError, OSError, ValueError):
            answer.trouble, self._away_until = "away", monotonic() + _AWAY_SECONDS
        return None

    def _client(self, ticket: Ticket) -> Any:
        place = getpid(), ticket.facts["tenant"], ticket.facts["password"]
        with self._lock:
            client = self._clients.get(place)
            if client is None:
                client = self._clients[place] = self._redis.Redis.from_url(
                    ticket.facts["url"],
                    username=user_of(ticket.facts["tenant"]),
                    password=ticket.facts["password"],
                    socket_timeout=self._timeout,
                    socket_connect_timeout=self._timeout,
                    retry=self._retry,
                    protocol=2,
                    driver_info=None,
                )
                if len(self._clients) > _MOST_CLIENTS:
                    self._clients.popitem(last=False)
            self._clients.move_to_end(place)
        return client

    def _forget(self) -> Iterable[Any]:
        with self._lock:
            clients = [*self._clients.values()]
            self._clients.clear()
            self._tickets.clear()
        return clients

    def _enter(self, place: str) -> _Flight:
        with self._lock:
            flight = self._flights.setdefault(place, _Flight(self._lock_class()))
            flight.users += 1
        return flight

    def _exit(self, place: str, flight: _Flight) -> None:
        with self._lock:
            flight.users -= 1
            if not flight.users:
                del self._flights[place]

    def _text(self, value: Any) -> str:
        try:
            return self._dumps(value)
        except (TypeError, ValueError):
            pass
        raise CacheError(
            "what the loader returned cannot be made into text", "give Cache dumps and loads that can do it"
        )


def _models(ticket: Ticket, tables: Sequence[str]) -> frozenset[str]:
    known = ticket.facts.get("models")
    if known is None:
        return frozenset()
    if unknown := [table for table in tables if table not in known]:
        raise CacheError(
            f"there is no model table {unknown[0]!r}",
            "name tables as they are called in a ward, without schema",
        )
    return frozenset(known[table] for table in tables)
