"""Run the command as a user does: another process, its output and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Wardkey:
    """The command, for one home."""

    home: Path

    def __call__(self, *arguments: str, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run it and check its exit code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(**extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run it with --json and return what it printed."""
        return json.loads(self("--json", *arguments, code=code).stdout)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wardkey", "--home", str(self.home), *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, **extra}
