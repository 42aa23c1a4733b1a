"""How many connections each tenant's pool may have: so many in all, the least recently used give way.

Pure: no I/O and no waiting. Who calls holds a lock. What is counted is what pools may open, so the bound
holds whatever they have opened by now: the sum over live pools of ``size``, and over retired ones of ``out``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic
from typing import Any

__all__ = ["Ledger", "Share"]


@dataclass(eq=False)
class Share:
    """A tenant's pool, how many connections it may open and how many are out."""

    tenant: str
    pool: Any = None
    size: int = 0
    out: int = 0
    used: float = 0.0
    is_retired: bool = False
    failure: str | None = None  # why its last connection was not made


class Ledger:
    """The shares of all tenants."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._total = 0
        self._shares: OrderedDict[str, Share] = OrderedDict()  # the least recently used first

    def take(self, tenant: str) -> Share | None:
        """Count one more connection of the tenant as out. None: others have all, see ``retire``."""
        share = self._shares.get(tenant)
        if share is None or share.out == share.size:
            if self._total == self._max_size:
                return None
            if share is None:
                share = self._shares[tenant] = Share(tenant)
            share.size += 1
            self._total += 1
        share.out += 1
        self._shares.move_to_end(tenant)
        return share

    def give(self, share: Share) -> None:
        """One connection is back: in the pool, or closed if that is retired."""
        share.out -= 1
        share.used = monotonic()
        if share.is_retired:
            share.size -= 1
            self._total -= 1

    def retire(self, but: str) -> Share | None:
        """Return the pool that has to be closed for tenant ``but``, or None: all connections are out.

        Call ``closed`` with it afterwards.
        """
        for share in self._shares.values():
            if share.tenant != but and share.out < share.size:
                return self.drop(share)
        return None

    def idle(self, since: float) -> Share | None:
        """Return a pool to close that nobody has used since then (of ``time.monotonic``), if there is one."""
        for share in self._shares.values():
            if not share.out and share.used < since:
                return self.drop(share)
            if share.used >= since:
                break
        return None

    def drop(self, share: Share) -> Share:
        """Let the tenant's next request make a new pool; this one takes no more. Then ``closed``."""
        if not share.is_retired:
            share.is_retired = True
            del self._shares[share.tenant]
        return share

    def closed(self, share: Share) -> None:
        """The pool is closed: what was not out is free for others."""
        self._total -= share.size - share.out
        share.size = share.out

    def all(self) -> list[Share]:
        return list(self._shares.values())
