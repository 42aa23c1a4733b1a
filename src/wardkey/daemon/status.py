"""What a service tells of itself, in a file of JSON that is replaced whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .lines import Line

__all__ = ["StatusFile"]


class StatusFile:
    """``path`` None: nobody is told. A file that cannot be written is reported once and given up."""

    def __init__(self, path: Path | None, report: Callable[[str], None]) -> None:
        self._path, self._report = path, report
        self.facts: dict[str, Any] = {"pid": os.getpid()}

    def say(self, **facts: Any) -> None:
        """Tell these facts in place of what was told under their names."""
        self.facts |= facts | {"at": datetime.now(UTC).isoformat(timespec="seconds")}
        if self._path is None:
            return
        draft = self._path.with_name(f".{self._path.name}")
        try:
            draft.write_text(json.dumps(self.facts, indent=2) + "\n")
            draft.replace(self._path)
        except OSError as error:
            self._report(Line("status_unwritable", f"{self._path} cannot be written: {error.strerror}"))
            self._path = None

    @staticmethod
    def read(path: Path) -> dict[str, Any] | None:
        """Return what was told last, None when there is nothing."""
        with suppress(OSError, ValueError):
            facts = json.loads(path.read_text())
            return facts if isinstance(facts, dict) else None
        return None
