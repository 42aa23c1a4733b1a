"""The DEKs a keeper holds: a bounded number, each for a bounded time, overwritten when it is dropped."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["KeyCache"]


class KeyCache:
    """Keys by whatever identifies them, for ``ttl`` seconds each, the least recently used dropped first.

    Not for several threads. What it returns is a copy; Python may keep others, so that overwriting is best
    effort.
    """

    def __init__(self, ttl: float, most: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._most = most
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, bytearray]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KeyCache of {len(self)}>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, identity: Hashable) -> bytes | None:
        """Return the key, or None when it is not here or too old: then it is dropped."""
        entry = self._entries.get(identity)
        if entry is None:
            return None
        if self._clock() >= entry[0]:
            self._drop(identity)
            return None
        self._entries.move_to_end(identity)
        return bytes(entry[1])

    def put(self, identity: Hashable, key: bytes) -> None:
        if identity in self._entries:
            self._drop(identity)
        self._entries[identity] = (self._clock() + self._ttl, bytearray(key))
        while len(self._entries) > self._most:
            self._drop(next(iter(self._entries)))

    def sweep(self) -> None:
        """Drop what is too old, so that a key nobody asks for any more does not stay in memory."""
        now = self._clock()
        for identity in [identity for identity, (until, _) in self._entries.items() if now >= until]:
            self._drop(identity)

    def clear(self) -> None:
        for identity in list(self._entries):
            self._drop(identity)

    def _drop(self, identity: Hashable) -> None:
        _, key = self._entries.pop(identity)
        key[:] = bytes(len(key))
