"""Run the command as a user does: another process, its output and its exit code.

The process is forked from one that has read the modules, where the environment allows that. Tests of how a
process behaves, at signals, pipes and terminals, start ``command()`` for real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.forked import Starter

_TIMEOUT = 120
_starter = Starter()


def run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that begins with ``python -m wardkey``."""
    if _starter.is_alike(environment):
        code, out, err = _starter.run(command[3:], environment, _TIMEOUT)
        return subprocess.CompletedProcess(command, code, out.decode(), err.decode())
    return subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )


@dataclass(frozen=True)
class Wardkey:
    """The command, for one home."""

    home: Path

    def __call__(self, *arguments: str, code: int = 0, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run it and check its exit code."""
        done = self.try_out(*arguments, **extra)
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def try_out(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever its exit code."""
        return run(self.command(*arguments), self.environment(**extra))

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run it with --json and return what it printed."""
        return json.loads(self("--json", *arguments, code=code).stdout)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "wardkey", "--home", str(self.home), *arguments]

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, **extra}
