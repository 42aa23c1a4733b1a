"""What a backend counts for metrics: integers, which it says in one message now and then.

On the hot path that is an addition. What was counted is said at the end of a transaction, 15 s after the last
time at the earliest, and when the backend ends: the counts of a session that idles come late, and those of
one that is killed not at all. All else that is counted, the scribe takes from entries.
"""

from __future__ import annotations

from wardkey_core.identity import bytes_of
from wardkey_core.journal import LOGIN_SECONDS, counts

__all__ = ["Counts"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY = 15.0  # seconds


class Counts:
    """``write`` is given the message.

    ``due``: when, by ``time.monotonic``, what was counted is to be said.
    """

    __slots__ = ("_logins", "_seconds", "_tenant", "_write", "due", "hits", "sealed", "transactions")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._tenant = ""
        self.due = 0.0
        self._begin()

    def login(self, tenant: str, began: float, now: float) -> None:
        """Count a login, and all that follows, for ``tenant``."""
        if tenant != self._tenant:
            self.say(now)
            self._tenant = tenant
        seconds = now - began
        self._seconds += seconds
        place = 0
        for most in LOGIN_SECONDS:
            if seconds <= most:
                break
            place += 1
        self._logins[place] += 1

    def say(self, now: float) -> None:
        """Write what was counted, unless that is nothing."""
        self.due = now + _EVERY
        if self._tenant and (self.transactions or self.sealed or self.hits or self._seconds):
            self._write(
                counts(
                    bytes_of(self._tenant),
                    self.transactions,
                    self.sealed,
                    round(self._seconds * 1e6),
                    self._logins,
                    self.hits,
                )
            )
            self._begin()

    def _begin(self) -> None:
        self.transactions = self.sealed = self.hits = 0
        self._seconds = 0.0
        self._logins = [0] * (len(LOGIN_SECONDS) + 1)
