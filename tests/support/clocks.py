"""Clocks that jump: libfaketime in a process, told by a file."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["Clock"]

_LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class Clock:
    """``environment`` is for processes that are to have this clock. ``directory``: they can read it."""

    def __init__(self, directory: Path) -> None:
        if _LIBRARY is None:
            pytest.skip("needs libfaketime: apt-get install libfaketime")
        self._file = directory / "clock"
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Have the clock be off by this."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+d}s\n")
        draft.chmod(0o644)
        draft.replace(self._file)
