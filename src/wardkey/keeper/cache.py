"""The DEKs a keeper holds: a bounded number, each for a bounded time, overwritten when it is dropped."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["KeyCache"]


_Identity = TypeVar("_Identity", bound=Hashable)


class KeyCache(Generic[_Identity]):
    """Keys by whatever identifies them, for ``ttl`` seconds each, the least recently used dropped first.

    Not for several threads. What it returns is a copy; Python may keep others, so that overwriting is best
    effort.
    """

    def __init__(self, ttl: float, most: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl = ttl
        self._most = most
        self._clock = clock
        self._entries: OrderedDict[_Identity, tuple[float, bytearray]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<KeyCache of {len(self)}>"

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, identity: _Identity) -> bytes | None:
        """Return the key, or None when it is not here or too old: then it is dropped."""
        entry = self._entries.get(identity)
        if entry is None:
            return None
        if self._clock() >= entry[0]:
            self._drop(identity)
            return None
        self._entries.move_to_end(identity)
        return bytes(entry[1])

    def put(self, identity: _Identity, key: bytes) -> None:
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

    def forget(self, which: Callable[[_Identity], bool] = lambda _: True) -> None:
        """Drop the keys whose identity ``which`` says yes to, without it all."""
        for identity in list(filter(which, self._entries)):
            self._drop(identity)

    def _drop(self, identity: _Identity) -> None:
        _, key = self._entries.pop(identity)
        key[:] = bytes(len(key))
