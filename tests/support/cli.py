"""Run the command as a user does: another process, its output and its exit code.

The process is forked from one that has read the modules, where the environment allows that. Tests of how a
process behaves, at signals, pipes and terminals, start ``command()`` for real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import Starter

_TIMEOUT = 120
_starter = Starter()


@dataclass(frozen=True)
class Wardkey:
    """The command, for one home."""

    home: Path

    def __call__(self, *arguments: str, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run it and check its exit code."""
        command, environment = self.command(*arguments), self.environment(**extra)
        if _starter.is_alike(environment):
            number, out, err = _starter.run(command[3:], environment, _TIMEOUT)
            done = subprocess.CompletedProcess(command, number, out.decode(), err.decode())
        else:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
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
