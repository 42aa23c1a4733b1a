"""A backend's side of budgets: rows that the keeper has leased to it, spent one by one as they are opened.

A ``Purse`` is of a subject with a role, and a model table. It outlives transactions: a ROLLBACK gives nothing
back, and a page does not ask the keeper. Whether there is a budget at all the keeper says when it releases
keys, so that nothing the database holds decides that. Honey rows are the database's, in ``ward_internal``.
"""

from __future__ import annotations

import time

from wardkey_core import wire
from wardkey_core.ciphers import blake2b, sha256
from wardkey_core.errors import BudgetExhausted

__all__ = ["Guard", "Purse"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    # what became of the lease before, digest of the row that is wanted
    Draw = Callable[[Mapping[str, Any] | None, bytes | None], wire.Leased]

_DIGEST_LENGTH = 8
_MOST_SEEN = 100_000
_MOST_KNOWN = 50_000
_LONGEST_SEEN = 40  # bytes of a row id; of longer ones the hash is remembered


class Purse:
    """``take`` is for the hot path, ``ensure`` asks the keeper first where that is needed.

    Of distinct rows (there is a salt then), those that this backend saw opened in the window cost nothing;
    their digests are made when the lease is settled, not row by row.
    """

    __slots__ = (
        "_fresh",
        "_lease",
        "_rest",
        "_rows",
        "_salt",
        "_seen",
        "_until",
        "_window_until",
        "drawn_at",
    )

    def __init__(self) -> None:
        self._lease = ""
        self._rows = self._rest = 0
        self._until = self._window_until = self.drawn_at = float("-inf")
        self._salt = b""
        self._seen: set[bytes] = set()
        self._fresh: list[bytes] = []

    def take(self, row: bytes) -> bool:
        """Spend one for ``row``. False: nothing is left, or what is left may no longer be spent."""
        now = time.monotonic()
        if not self._salt:
            if self._rest <= 0 or now >= self._until:
                return False
        else:
            if len(row) > _LONGEST_SEEN:
                row = _short(row)
            if row in self._seen and now < self._window_until:
                return True
            if self._rest <= 0 or now >= self._until:
                return False
            self._seen.add(row)
            self._fresh.append(row)
        self._rest -= 1
        return True

    def ensure(self, row: bytes, draw: Draw) -> None:
        """Spend one for ``row``, of a new lease if need be. Raises BudgetExhausted, or as ``draw``."""
        if self.take(row):
            return
        wanted = self._digest(row) if self._salt else None
        leased = self._draw(draw, wanted)
        if not leased.rows and leased.salt and self._digest(row) != wanted:  # the keeper may know this row
            leased = self._draw(draw, self._digest(row))
        if leased.is_known and leased.salt:
            self._seen.add(_short(row))
        if not self.take(row):
            raise BudgetExhausted

    def settled(self) -> dict[str, Any] | None:
        """Return what became of the lease, which is over then; None without one."""
        if not self._lease:
            return None
        fresh = [self._digest(row) for row in self._fresh]
        settled = wire.settled(self._lease, self._rows - self._rest, fresh)
        self._lease, self._rest, self._fresh = "", 0, []
        return settled

    def _draw(self, draw: Draw, row: bytes | None) -> wire.Leased:
        leased = draw(self.settled(), row)
        self.drawn_at = time.monotonic()
        if leased.salt != self._salt or len(self._seen) >= _MOST_SEEN:
            self._seen = set()  # of another window
        self._lease, self._rows, self._rest = leased.lease, leased.rows, leased.rows
        self._salt = leased.salt
        self._until = self.drawn_at + leased.seconds
        self._window_until = self.drawn_at + leased.left
        return leased

    def _digest(self, row: bytes) -> bytes:
        return blake2b(_short(row), key=self._salt, digest_size=_DIGEST_LENGTH).digest()


class Guard:
    """What is done before a row of a table leaves that has a budget or honey rows, once a statement.

    ``honey``: row ids, and whether opening one ends logins. ``alarm`` is called with such a row, once.
    ``known``: rows of this statement that may go, beside those that its hot path remembers. ``take`` is the
    purse's.
    """

    __slots__ = ("_alarm", "_draw", "_purse", "honey", "known", "take")

    def __init__(
        self,
        purse: Purse | None,
        draw: Draw,
        honey: Mapping[bytes, bool],
        alarm: Callable[[bytes, bool], None],
    ) -> None:
        self._purse = purse
        self._draw = draw
        self._alarm = alarm
        self.honey = dict(honey)
        self.known: set[bytes] = set()
        self.take: Callable[[bytes], bool] = _take_any if purse is None else purse.take

    def ensure(self, row: bytes) -> None:
        """Let ``row`` go. Raises BudgetExhausted, and what asking the keeper may."""
        if row in self.known:
            return
        if self._purse is not None:
            self._purse.ensure(row, self._draw)
        if (ends := self.honey.pop(row, None)) is not None:
            self._alarm(row, ends)
        self.know((row,))

    def know(self, rows: Collection[bytes]) -> None:
        """Let ``rows`` go again in this statement, as they did before. Forgotten ones count again."""
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        self.known.update(rows)


def _short(row: bytes) -> bytes:
    return row if len(row) <= _LONGEST_SEEN else sha256(row).digest()


def _take_any(row: bytes) -> bool:
    return True
