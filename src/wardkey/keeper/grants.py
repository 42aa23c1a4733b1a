"""Break-glass grants: who sees more than his role does for a while, and on whose word.

The database is told what was decided and decides nothing: a grant is active when this ledger says so.
``grants.jsonl`` in the keeper's directory is only ever appended to, a line of JSON for each step::

    {"what": "requested", "time": Unix seconds, "issuer": text, "subject": text, "grant": uuid,
     "tenant": uuid, "role": text, "classes": [text, …], "minutes": n, "reason": SHA-256, "emergency": bool}
    {"what": "started", "time": …, "issuer": …, "subject": …, "grant": uuid, "token": SHA-256}
    {"what": "denied" or "ended", "time": …, "issuer": …, "subject": …, "grant": uuid}
    {"what": "allowed" or "forbidden", "time": …, "issuer": …, "subject": …, "tenant": uuid}

``started`` is an approval; of a request in an emergency, where the tenant allows that, it is the requester's
own. With a line that is not as it must be, the keeper does not start.

A step may be repeated by who took it, while it holds. Time does not go back here: a clock that does is taken
to stand where it stood, and to go on from there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from uuid import UUID

import msgspec
from msgspec import Struct
from wardkey_core.errors import GrantRefused, KeeperUnavailable
from wardkey_core.tokens import Claims
from wardkey_core.wire import parse_json

from wardkey.daemon.appending import AppendFile
from wardkey.daemon.lines import Line
from wardkey.daemon.service import ServiceError

__all__ = ["GRANTS_FILE", "LONGEST_MINUTES", "Grant", "Grants", "SteadyClock"]

GRANTS_FILE = "grants.jsonl"
LONGEST_MINUTES = 60
REQUEST_SECONDS = 900.0  # in which a request is to be decided
MOST_PENDING = 32  # requests of a tenant that wait


class SteadyClock:
    """The wall clock, which does not go back: behind what it showed once, it goes on as time passes."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._last = 0.0, time.monotonic()  # what it showed, and when

    def show(self, seen: float) -> None:
        """Stand at ``seen`` at least: a clock before it has shown that."""
        self._last = max(seen, self._last[0]), time.monotonic()

    def __call__(self) -> float:
        """Return Unix seconds."""
        (shown, then), at = self._last, time.monotonic()
        now = max(self._wall(), shown + at - then)
        self._last = now, at
        return now


@dataclass(frozen=True, slots=True)
class Grant:
    """A request and what became of it: ``state`` is requested, started, denied or ended."""

    id: UUID
    tenant: UUID
    issuer: str
    subject: str
    role: str
    classes: tuple[str, ...]
    minutes: int
    reason: str
    emergency: bool
    requested_at: float
    state: str = "requested"
    approver: tuple[str, str] | None = None
    started_at: float = 0.0

    @property
    def until(self) -> float:
        return self.started_at + 60 * self.minutes

    def is_active(self, now: float) -> bool:
        return self.state == "started" and now < self.until

    def is_pending(self, now: float) -> bool:
        return self.state == "requested" and now < self.requested_at + REQUEST_SECONDS

    def is_of(self, claims: Claims) -> bool:
        return (self.issuer, self.subject) == (claims.issuer, claims.subject)


def _tag(name: str) -> str:
    return name.strip("_").lower()


class _Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what", tag=_tag):
    time: float
    issuer: str
    subject: str


class _Requested(_Step, frozen=True, kw_only=True):
    grant: UUID
    tenant: UUID
    role: str
    classes: list[str]
    minutes: int
    reason: str
    emergency: bool


class _Started(_Step, frozen=True, kw_only=True):
    grant: UUID
    token: str


class _Denied(_Step, frozen=True, kw_only=True):
    grant: UUID


class _Ended(_Step, frozen=True, kw_only=True):
    grant: UUID


class _Allowed(_Step, frozen=True, kw_only=True):
    tenant: UUID


class _Forbidden(_Step, frozen=True, kw_only=True):
    tenant: UUID


_Line = _Requested | _Started | _Denied | _Ended | _Allowed | _Forbidden


class Grants:
    """Reads ``path``, making it when it is missing. Raises ServiceError, OSError.

    Methods take verified claims of a token of the tenant, may be called in threads, and raise GrantRefused,
    or KeeperUnavailable when a step is not safely on the disk.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._report = report
        self._taking_a_step = Lock()
        self._grants: dict[UUID, Grant] = {}
        self._of_subject: dict[tuple[UUID, str, str], set[UUID]] = {}  # those that were started
        self._allowed: set[UUID] = set()
        self._tokens: dict[str, UUID] = {}  # which grant was approved with it
        self.now = SteadyClock()
        self._file = AppendFile(path, report, self._take)

    def active(self, tenant: UUID, claims: Claims) -> Grant | None:
        """Return the grant that holds for this subject now, the widest if there are several."""
        known = self._of_subject.get((tenant, claims.issuer, claims.subject))
        if not known:
            return None
        now = self.now()
        holding = [grant for grant in map(self._grants.__getitem__, tuple(known)) if grant.is_active(now)]
        return max(holding, key=lambda grant: (len(grant.classes), grant.until), default=None)

    def request(
        self,
        id_: UUID,
        tenant: UUID,
        claims: Claims,
        classes: Sequence[str],
        minutes: int,
        reason: str,
        *,
        emergency: bool,
    ) -> Grant:
        """Note a request; in an emergency, where its tenant allows that, it is granted at once."""
        who = (claims.issuer, claims.subject, claims.role)
        with self._taking_a_step:
            now, known = self.now(), self._grants.get(id_)
            asked = Grant(id_, tenant, *who, tuple(classes), minutes, reason, emergency, now)
            if known is None:
                self._check_request(asked, now)
                self._write(
                    _Requested(
                        time=now,
                        issuer=asked.issuer,
                        subject=asked.subject,
                        grant=id_,
                        tenant=tenant,
                        role=asked.role,
                        classes=list(classes),
                        minutes=minutes,
                        reason=reason,
                        emergency=emergency,
                    )
                )
            elif not _is_same(known, asked):
                raise GrantRefused("there is a request of that id already", "ask again")
            if emergency and self._grants[id_].state == "requested":
                self._start(now, id_, claims)
            return self._grants[id_]

    def approve(self, id_: UUID, tenant: UUID, claims: Claims, reason: str) -> Grant:
        """Start a grant on the word of a second subject, an ADMIN of its tenant."""
        with self._taking_a_step:
            now, grant = self.now(), self._known(id_, tenant)
            _check_admin(claims)
            if grant.is_of(claims):
                raise GrantRefused("nobody approves his own request", "another ADMIN of the tenant has to")
            if grant.reason != reason:
                raise GrantRefused("it was asked for with another reason", "the database was altered")
            if grant.is_active(now) and grant.approver == (claims.issuer, claims.subject):
                return grant
            if not grant.is_pending(now):
                raise GrantRefused(f"the request {_fate(grant, now)}", "make it again")
            if self._tokens.get(_digest(claims), id_) != id_:
                raise GrantRefused("the token has approved another request", "each wants a token of its own")
            self._start(now, id_, claims)
            return self._grants[id_]

    def deny(self, id_: UUID, tenant: UUID, claims: Claims) -> Grant:
        """Refuse a request for good."""
        with self._taking_a_step:
            now, grant = self.now(), self._known(id_, tenant)
            _check_admin(claims)
            if grant.state == "started":
                raise GrantRefused(f"the request {_fate(grant, now)}", "end it, if it still holds")
            if grant.state == "requested":
                self._write(_Denied(time=now, issuer=claims.issuer, subject=claims.subject, grant=id_))
            return self._grants[id_]

    def end(self, id_: UUID, tenant: UUID, claims: Claims) -> Grant:
        """End a grant before its time, or take a request back: its subject, or any ADMIN of the tenant."""
        with self._taking_a_step:
            now, grant = self.now(), self._known(id_, tenant)
            if not grant.is_of(claims):
                _check_admin(claims)
            if grant.state in ("requested", "started"):
                self._write(_Ended(time=now, issuer=claims.issuer, subject=claims.subject, grant=id_))
            return self._grants[id_]

    def allow(self, tenant: UUID, claims: Claims, *, allowed: bool) -> None:
        """Let requests in an emergency be granted without an approver, or no more: an ADMIN's decision."""
        with self._taking_a_step:
            _check_admin(claims)
            if allowed != (tenant in self._allowed):
                kind = _Allowed if allowed else _Forbidden
                now, issuer, subject = self.now(), claims.issuer, claims.subject
                self._write(kind(time=now, issuer=issuer, subject=subject, tenant=tenant))

    def _start(self, now: float, id_: UUID, claims: Claims) -> None:
        issuer, subject = claims.issuer, claims.subject
        self._write(_Started(time=now, issuer=issuer, subject=subject, grant=id_, token=_digest(claims)))

    def _check_request(self, asked: Grant, now: float) -> None:
        if asked.role == "ADMIN":
            raise GrantRefused("an ADMIN approves, and asks for nothing", "use a token of another role")
        if asked.emergency and asked.tenant not in self._allowed:
            raise GrantRefused(
                "the tenant's policy wants an approver",
                "ask without emergency, or have it changed",
            )
        if asked.emergency and asked.role == "SUPER_ADMIN":
            raise GrantRefused("a SUPER_ADMIN gets nothing without an approver", "ask without emergency")
        pending = (each.tenant for each in self._grants.values() if each.is_pending(now))
        if sum(tenant == asked.tenant for tenant in pending) >= MOST_PENDING:
            raise GrantRefused("too many requests of the tenant wait", "decide them; they expire in time")

    def _known(self, id_: UUID, tenant: UUID) -> Grant:
        grant = self._grants.get(id_)
        if grant is None or grant.tenant != tenant:
            raise GrantRefused("the keeper knows no such request of the tenant", "make it again")
        return grant

    def _write(self, line: _Line) -> None:
        try:
            self._file.append(msgspec.json.encode(line) + b"\n")
        except (OSError, ServiceError) as error:
            self._report(Line("ledger_unwritable", f"the ledger of grants cannot be written: {error}"))
            raise KeeperUnavailable("the keeper cannot write its ledger", "see the keeper's log") from None
        self._apply(line)

    def _take(self, data: bytes) -> None:
        line = msgspec.convert(parse_json(data), _Line)
        self._apply(line)
        self.now.show(line.time)

    def _apply(self, line: _Line) -> None:
        match line:
            case _Allowed():
                self._allowed.add(line.tenant)
            case _Forbidden():
                self._allowed.discard(line.tenant)
            case _Requested():
                if line.grant in self._grants:
                    raise ValueError("twice")
                self._grants[line.grant] = Grant(
                    id=line.grant,
                    tenant=line.tenant,
                    issuer=line.issuer,
                    subject=line.subject,
                    role=line.role,
                    classes=tuple(line.classes),
                    minutes=line.minutes,
                    reason=line.reason,
                    emergency=line.emergency,
                    requested_at=line.time,
                )
            case _Started():
                grant = self._change(line, "started", "requested")
                by = (line.issuer, line.subject)
                self._grants[grant.id] = replace(grant, approver=by, started_at=line.time)
                self._tokens[line.token] = grant.id
                self._of_subject.setdefault((grant.tenant, grant.issuer, grant.subject), set()).add(grant.id)
            case _Denied():
                self._change(line, "denied", "requested")
            case _Ended():
                grant = self._change(line, "ended", "requested", "started")
                self._of_subject.get((grant.tenant, grant.issuer, grant.subject), set()).discard(grant.id)

    def _change(self, line: _Started | _Denied | _Ended, state: str, *former: str) -> Grant:
        grant = self._grants[line.grant]
        if grant.state not in former:
            raise ValueError("not in that order")
        self._grants[line.grant] = changed = replace(grant, state=state)
        return changed


def _is_same(known: Grant, asked: Grant) -> bool:
    """Whether ``asked`` is the request that led to ``known``, repeated."""
    undone = replace(known, state="requested", approver=None, started_at=0.0)
    return undone == replace(asked, requested_at=known.requested_at)


def _check_admin(claims: Claims) -> None:
    if claims.role != "ADMIN":
        raise GrantRefused("that is for an ADMIN of the tenant", "use a token of that role")


def _fate(grant: Grant, now: float) -> str:
    if grant.state == "requested":
        return "has expired"
    if grant.state == "started":
        return "was granted, and holds" if grant.is_active(now) else "was granted, and its time is over"
    return f"was {grant.state}"


def _digest(claims: Claims) -> str:
    return hashlib.sha256(f"{claims.issuer}\n{claims.token_id}".encode()).hexdigest()
