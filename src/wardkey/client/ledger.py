"""Who may have a connection, and how many each tenant's pool may open: the least recently used give way.

Pure: no I/O and no waiting. Who calls holds a lock. A request first takes a seat, of which there are as many
as connections, in all and for each tenant; who finds none is in a queue. Seats go to tenants in turn, so that
the many requests of one do not keep others waiting. What is counted of pools is what they may open, so the
bound holds whatever they have opened by now: the sum over pools of ``size``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from time import monotonic
from typing import Any

__all__ = ["Ledger", "Share", "Waiter"]


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
class Waiter:
    """A request that waits for a seat of its tenant: ``bell``, a semaphore, is for its waiting."""

    tenant: str
    bell: Any
    has_seat: bool = False


class Ledger:
    """The seats and shares of all tenants."""

    def __init__(self, max_size: int, max_per_tenant: int) -> None:
        self._max_size, self._max_per_tenant = max_size, max_per_tenant
        self._total = 0
        self._live: OrderedDict[str, Share] = OrderedDict()  # the least recently used first
        self._seats: dict[str, int] = {}  # that are taken
        self._taken = 0  # their sum
        self._queues: OrderedDict[str, deque[Waiter]] = OrderedDict()  # of tenants, whose turn it is first

    def sit(self, tenant: str) -> bool:
        """Take a seat for a request of the tenant; False: there is none."""
        if self._taken == self._max_size or self.is_full(tenant):
            return False
        self._seats[tenant] = self._seats.get(tenant, 0) + 1
        self._taken += 1
        return True

    def is_full(self, tenant: str) -> bool:
        """Tell whether the tenant has all the seats it may have."""
        return self._seats.get(tenant, 0) == self._max_per_tenant

    def queue(self, waiter: Waiter) -> None:
        """Let somebody who found no seat wait for one."""
        self._queues.setdefault(waiter.tenant, deque()).append(waiter)

    def unqueue(self, waiter: Waiter) -> None:
        """Let somebody wait no longer who has no seat."""
        queue = self._queues[waiter.tenant]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.tenant]

    def rise(self, tenant: str) -> Waiter | None:
        """Give a seat of the tenant back. Return who has one for that, if somebody waited who may."""
        self._taken -= 1
        self._seats[tenant] -= 1
        if not self._seats[tenant]:
            del self._seats[tenant]
        for name, queue in self._queues.items():
            if self.sit(name):
                waiter = queue[0]
                self.unqueue(waiter)
                if queue:
                    self._queues.move_to_end(name)
                waiter.has_seat = True
                return waiter
        return None

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
