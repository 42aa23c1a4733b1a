"""Clocks that are off, or jump: libfaketime in a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Clock", "clock_off"]

_LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class Clock:
    """``environment`` is for processes that are to have this clock. ``directory``: they can read it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)
        self.environment = _environment(FAKETIME_TIMESTAMP_FILE=str(self._file), FAKETIME_CACHE_DURATION="1")

    def set(self, seconds: int) -> None:
        """Have the clock be off by this."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}s\n")
        draft.chmod(0o644)
        draft.replace(self._file)


@contextmanager
def clock_off(seconds: int) -> Iterator[None]:
    """Give processes that are started now a clock that is off."""
    settings = _environment(FAKETIME=f"{seconds:+d}s")
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def _environment(**settings: str) -> dict[str, str]:
    if _LIBRARY is None:
        pytest.skip("needs libfaketime: apt-get install libfaketime")
    return {"LD_PRELOAD": str(_LIBRARY), "FAKETIME_DONT_FAKE_MONOTONIC": "1"} | settings
