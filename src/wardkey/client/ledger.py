"""How many connections each tenant's pool may have: so many in all, and the least recently used give way.

Pure: no I/O and no waiting. Who calls holds a lock. What is counted is what pools may open, so the bound
holds whatever they have opened by now: the sum over pools of ``size``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import Any

__all__ = ["Ledger", "Place", "Share"]


@dataclass(eq=False, slots=True)
class Share:
    """A tenant's pool: how many connections it may open, and how many of them are out."""

    tenant: str
    pool: Any = None
    size: int = 0
    out: int = 0
    used: float = 0.0  # when a connection last came back, by time.monotonic
    is_live: bool = True  # takes requests; else its pool is closed, or is being closed
    failure: str | None = None  # why its last connection was not made


@dataclass(eq=False, slots=True)
class Place:
    """A tenant's seats, a semaphore, kept while somebody waits for one or has one."""

    seats: Any
    users: int = 0


class Ledger:
    """The shares of all tenants."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._total = 0
        self._live: OrderedDict[str, Share] = OrderedDict()  # the least recently used first

    def take(self, tenant: str) -> Share | None:
        """Count one more connection of the tenant as out. None: other pools have all, see ``retire``."""
        share = self._live.get(tenant)
        if share is None or share.out == share.size:
            if self._total == self._max_size:
                return None
            if share is None:
                share = self._live[tenant] = Share(tenant)
            share.size += 1
            self._total += 1
        share.out += 1
        self._live.move_to_end(tenant)
        return share

    def give(self, share: Share) -> None:
        """One connection is back: in its pool, or closed with that."""
        share.out -= 1
        share.used = monotonic()
        if not share.is_live:
            share.size -= 1
            self._total -= 1

    def retire(self) -> Share | None:
        """Drop a pool that has a connection which is not out, if one is live, and return it."""
        for share in self._live.values():
            if share.out < share.size:
                return self.drop(share)
        return None

    def idle(self, since: float) -> Share | None:
        """Drop a pool that nobody has used since then, if there is one, and return it."""
        for share in self._live.values():
            if not share.out and share.used < since:
                return self.drop(share)
        return None

    def drop(self, share: Share) -> Share:
        """Let the tenant's next request make a new pool. Close this one, then call ``closed``."""
        if share.is_live:
            share.is_live = False
            del self._live[share.tenant]
        return share

    def closed(self, share: Share) -> int:
        """The pool is closed: others may have what was not out. Return how many that are."""
        free = share.size - share.out
        share.size = share.out
        self._total -= free
        return free

    def live(self) -> list[Share]:
        """Return the shares whose pools take requests."""
        return list(self._live.values())
