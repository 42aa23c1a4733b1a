"""What is reported again and again, counted: the first ones of a window are events, the others are one event.

Anybody who has a password may be refused thousands of times a second; the journal and the log are not to grow
with that. A window begins with the first report of its kind. What was counted in it is written by the first
report after it, at the end of a transaction, or when the backend ends.
"""

from __future__ import annotations

import time

__all__ = ["Tally"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_WINDOW = 60.0  # seconds
_MOST_KINDS = 64


class _Window:
    __slots__ = ("count", "left", "until", "write")

    def __init__(self, until: float, most: int, write: Callable[[int], None]) -> None:
        self.until = until
        self.left = most
        self.count = 0
        self.write = write


class Tally:
    """``due`` is when the first window ends that has something to write, infinity without any."""

    __slots__ = ("_windows", "due")

    def __init__(self) -> None:
        self._windows: dict[Hashable, _Window] = {}
        self.due = float("inf")

    def counts(self, kind: Hashable) -> bool:
        """Count a report of ``kind``. False: it is one of the first, which are to be written."""
        now = time.monotonic()
        if now >= self.due:
            self.write(now)
        window = self._windows.get(kind)
        if window is None or now >= window.until:
            return False
        if window.left > 0:
            window.left -= 1
            return False
        window.count += 1
        self.due = min(self.due, window.until)
        return True

    def begin(self, kind: Hashable, most: int, write: Callable[[int], None]) -> None:
        """Begin a window after its first report, unless there is one. ``write`` gets the count at its end."""
        now = time.monotonic()
        window = self._windows.get(kind)
        if window is not None and now < window.until:
            return
        if len(self._windows) >= _MOST_KINDS:
            self.write(float("inf"))
        self._windows[kind] = _Window(now + _WINDOW, most - 1, write)

    def write(self, now: float) -> None:
        """Write what was counted in windows that have ended by ``now``: infinity ends all."""
        for kind, window in list(self._windows.items()):
            if window.until <= now:
                del self._windows[kind]
                if window.count:
                    window.write(window.count)
        self.due = min(
            (window.until for window in self._windows.values() if window.count), default=float("inf")
        )
