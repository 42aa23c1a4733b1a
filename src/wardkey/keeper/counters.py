"""What was opened under budgets: counted here, so that no database can set a count back.

A backend *leases* rows before it opens them, some hundred at a time, and they count as opened at once: all
backends together never open more than the budget. What a lease left over is given back when the backend
settles it, at the next lease or when it has been idle; what is never settled stays counted. A lease ends
after ``LEASE_SECONDS`` and with its window.

Of a budget of distinct rows, the backend settles with the digests of the rows that were new to it, and what
was opened in this window before is given back too. They are counted exactly, as a set of 8-byte digests, not
estimated: a budget is refused at a number that people can check, and 100,000 rows take 10 MB at most. Digests
are keyed with a salt of the window, which is random: the keeper learns no row id, and who reads the file
cannot compare two windows.

A *window* is of a subject, with a role, and a table. It begins with the first lease and lasts as long as the
budget said then; then the next lease begins another one. Time does not go back (``SteadyClock``), so that a
clock set back reopens none; and a window keeps its count when its budget changes or is dropped and set again.

``counters.jsonl`` in the keeper's directory is appended to, a line of JSON for each step; a line is in the
kernel before a row is opened, on the disk some milliseconds later, as with the release log. When the keeper
starts, windows that ended are left out, and each other one is one line::

    {"what": "window", "time": Unix seconds, "window": hex, "tenant": uuid, "issuer": text, "subject": text,
     "role": text, "model": uuid, "until": Unix seconds, "salt": base64, "spent": n, "seen": [base64, …],
     "leases": {hex: n, …}, "alerts": ["near", …]}
    {"what": "leased", "time": …, "window": hex, "lease": hex, "rows": n}
    {"what": "settled", "time": …, "window": hex, "lease": hex, "used": n, "seen": [base64, …]}
    {"what": "alerted", "time": …, "window": hex, "alert": "near" or "exhausted"}

With a line that is not as it must be, the keeper does not start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperUnavailable
from wardkey_core.tokens import Claims
from wardkey_core.wire import LEASE_SECONDS, MOST_LEASED, parse_json

from wardkey.daemon.appending import AppendFile
from wardkey.daemon.lines import Line
from wardkey.daemon.service import ServiceError

from .budgets import Budget
from .grants import SteadyClock
from .requests import Settled

__all__ = ["COUNTERS_FILE", "Counters", "Lease"]

COUNTERS_FILE = "counters.jsonl"
SHARE = 16  # a lease is this part of what is left
NEAR = 0.8  # of the budget, from where somebody is told
SALT_LENGTH = 16
MOST_TOLD = 200  # windows in an answer about usage
MOST_LINES = 100_000  # after which the file is written again

_Key = tuple[UUID, str, str, str, UUID]  # tenant, issuer, subject, role, model


@dataclass(frozen=True, slots=True)
class Lease:
    """``rows`` that may be opened for ``seconds``; none: the budget of ``limit`` is used up.

    ``left``: seconds until the window ends. ``salt``: of digests, empty where rows are not distinct.
    ``is_known``: the row that was asked for was opened in this window already. ``alert``: what to tell, once.
    """

    id: str
    rows: int
    seconds: float
    left: float
    limit: int
    salt: bytes = field(default=b"", repr=False)
    is_known: bool = False
    alert: str | None = None


@dataclass(slots=True)
class _Window:
    id: str
    key: _Key
    until: float
    salt: bytes = field(repr=False)
    spent: int = 0
    seen: set[bytes] = field(default_factory=set, repr=False)
    leases: dict[str, int] = field(default_factory=dict, repr=False)
    alerts: set[str] = field(default_factory=set)


class _Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what"):
    time: float
    window: str


class _Begun(_Line, frozen=True, kw_only=True, tag="window"):
    tenant: UUID
    issuer: str
    subject: str
    role: str
    model: UUID
    until: float
    salt: bytes
    spent: int
    seen: list[bytes]
    leases: dict[str, int]
    alerts: list[str]


class _Leased(_Line, frozen=True, kw_only=True, tag="leased"):
    lease: str
    rows: int


class _Settled(_Line, frozen=True, kw_only=True, tag="settled"):
    lease: str
    used: int
    seen: list[bytes]


class _Alerted(_Line, frozen=True, kw_only=True, tag="alerted"):
    alert: str


_AnyLine = _Begun | _Leased | _Settled | _Alerted


class Counters:
    """Reads ``path``, making it when it is missing. Raises ServiceError, OSError.

    Methods are for one thread; they raise KeeperUnavailable when a step cannot be written.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._report = report
        self._windows: dict[_Key, _Window] = {}
        self._by_id: dict[str, _Window] = {}
        self._leases: dict[str, _Window] = {}
        self.now = SteadyClock()
        self._file = AppendFile(path, report, self._take)
        self._lines = 0
        if self._file.count:
            self._rewrite()

    def lease(
        self, budget: Budget, claims: Claims, settled: Settled | None = None, row: bytes | None = None
    ) -> Lease:
        """Count some rows as opened and let the backend open them.

        ``settled``: the backend's lease before. ``row``: digest of a row that may have been opened before.
        """
        key = (budget.tenant, claims.issuer, claims.subject, budget.role, budget.model)
        now = self.now()
        if self._lines >= MOST_LINES:
            self._rewrite()
        if settled is not None:
            self._settle(now, settled)
        window = self._windows.get(key)
        if window is None or now >= window.until:
            window = self._begin(now, key, budget)
        salt = window.salt if budget.distinct else b""
        left, rest = window.until - now, budget.rows - window.spent
        if rest <= 0:
            if budget.distinct and row in window.seen:
                return Lease("", 0, 0, left, budget.rows, salt, is_known=True)
            return Lease("", 0, 0, left, budget.rows, salt, alert=self._alert(now, window, "exhausted"))
        rows, lease = min(MOST_LEASED, max(1, rest // SHARE)), os.urandom(16).hex()
        self._write(_Leased(time=now, window=window.id, lease=lease, rows=rows))
        near = window.spent >= NEAR * budget.rows
        alert = self._alert(now, window, "near") if near else None
        return Lease(lease, rows, min(LEASE_SECONDS, left), left, budget.rows, salt, alert=alert)

    def settle(self, settled: Settled) -> None:
        """Give back what a lease left over: nothing of one that is not known, or whose window ended."""
        self._settle(self.now(), settled)

    def usage(self, tenant: UUID) -> list[dict[str, Any]]:
        """Return what a tenant's people have opened in windows that last, most first."""
        now = self.now()
        windows = [each for each in self._windows.values() if each.key[0] == tenant and now < each.until]
        windows.sort(key=lambda each: each.spent, reverse=True)
        return [
            {
                "subject": each.key[2],
                "role": each.key[3],
                "model": str(each.key[4]),
                "spent": each.spent,
                "until": each.until,
            }
            for each in windows[:MOST_TOLD]
        ]

    def flush(self) -> None:
        """Have what was written put on the disk. Raises OSError; may be called in a thread."""
        self._file.flush()

    def _begin(self, now: float, key: _Key, budget: Budget) -> _Window:
        made = _Window(os.urandom(8).hex(), key, now + budget.window, os.urandom(SALT_LENGTH))
        self._write(_begun(now, made))
        return self._windows[key]

    def _settle(self, now: float, settled: Settled) -> None:
        window = self._leases.get(settled.lease)
        if window is None or now >= window.until:
            return
        if not 0 <= settled.used <= window.leases[settled.lease] or len(settled.seen) > settled.used:
            raise Unsupported("the keeper got a lease settled with more than it was of")
        used, seen, lease = settled.used, settled.seen, settled.lease
        self._write(_Settled(time=now, window=window.id, lease=lease, used=used, seen=seen))

    def _alert(self, now: float, window: _Window, alert: str) -> str | None:
        if alert in window.alerts:
            return None
        self._write(_Alerted(time=now, window=window.id, alert=alert))
        return alert

    def _rewrite(self) -> None:
        now = self.now()
        for window in [each for each in self._windows.values() if now >= each.until]:
            self._forget(window)
        lines: Iterable[_AnyLine] = (_begun(now, each) for each in self._windows.values())
        self._file.replace(_encoded(line) for line in lines)
        self._lines = len(self._windows)

    def _forget(self, window: _Window) -> None:
        del self._windows[window.key], self._by_id[window.id]
        for lease in window.leases:
            del self._leases[lease]

    def _write(self, line: _AnyLine) -> None:
        try:
            self._file.append(_encoded(line), later=True)
        except (OSError, ServiceError) as error:
            self._report(Line("ledger_unwritable", f"the counters of budgets cannot be written: {error}"))
            raise KeeperUnavailable("the keeper cannot count", "see the keeper's log") from None
        self._lines += 1
        self._apply(line)

    def _take(self, data: bytes) -> None:
        line = msgspec.convert(parse_json(data), _AnyLine)
        self._apply(line)
        self.now.show(line.time)

    def _apply(self, line: _AnyLine) -> None:
        if isinstance(line, _Begun):
            key = (line.tenant, line.issuer, line.subject, line.role, line.model)
            made = _Window(line.window, key, line.until, line.salt, line.spent)
            made.seen, made.leases, made.alerts = set(line.seen), dict(line.leases), set(line.alerts)
            if (former := self._windows.get(key)) is not None:
                self._forget(former)
            self._windows[key] = self._by_id[made.id] = made
            self._leases |= dict.fromkeys(made.leases, made)
            return
        window = self._by_id[line.window]
        match line:
            case _Leased():
                window.spent += line.rows
                window.leases[line.lease] = line.rows
                self._leases[line.lease] = window
            case _Settled():
                new = set(line.seen) - window.seen
                window.spent -= window.leases.pop(line.lease) - (line.used - len(line.seen) + len(new))
                window.seen |= new
                del self._leases[line.lease]
            case _Alerted():
                window.alerts.add(line.alert)


def _begun(now: float, window: _Window) -> _Begun:
    tenant, issuer, subject, role, model = window.key
    return _Begun(
        time=now,
        window=window.id,
        tenant=tenant,
        issuer=issuer,
        subject=subject,
        role=role,
        model=model,
        until=window.until,
        salt=window.salt,
        spent=window.spent,
        seen=sorted(window.seen),
        leases=window.leases,
        alerts=sorted(window.alerts),
    )


def _encoded(line: _AnyLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"
