"""What should run beside the PostgreSQL of one home, and the supervisor that keeps it running.

::

    supervisor/  wanted.json   by name: command and log of each process that should run
                 NAME.pid      pid, start time and boot of that process, and of the supervisor
                 status.json   by name: how often it was restarted, how it ended last

A command changes ``wanted.json`` and wakes the supervisor, which starts what is wanted and does not run, and
nothing else: ending a process is left to the command that no longer wants it. Who changes or obeys
``wanted.json`` holds a lock on the directory meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ServerError
from .files import locked, write_atomically
from .processes import Process, end
from .programs import clean_environment, run

__all__ = ["Supervision", "Wanted"]

_MODULE = "wardkey.daemon.supervisor"
_SUPERVISOR = "supervisor"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A process that should run: its command, and the file that it appends what it says to."""

    command: list[str]
    log: str


@dataclass(frozen=True, slots=True)
class Supervision:
    """The directory, and the supervisor's own log."""

    directory: Path
    log: Path

    @property
    def supervisor(self) -> Process | None:
        """The running supervisor."""
        return self.process(_SUPERVISOR)

    def process(self, name: str) -> Process | None:
        """Return the running process of that name."""
        return Process.recorded(self.pid_file(name))

    def pid_file(self, name: str) -> Path:
        return self.directory / f"{name}.pid"

    def record_supervisor(self) -> None:
        """Write down that this process is the supervisor."""
        if own := Process.of(os.getpid()):
            own.record(self.pid_file(_SUPERVISOR))

    def wanted(self) -> dict[str, Wanted]:
        """Return what should run, by name."""
        return {name: Wanted(**each) for name, each in _read(self.directory / "wanted.json").items()}

    def status(self) -> dict[str, dict[str, Any]]:
        """Return by name what the supervisor has seen: restarts, last_exit, ended_at."""
        return _read(self.directory / "status.json")

    def say(self, status: dict[str, dict[str, Any]]) -> None:
        write_atomically(self.directory / "status.json", json.dumps(status).encode())

    def want(self, name: str, wanted: Wanted | None) -> None:
        """Have a process of that name run from now on; None: have it no more, which does not end it."""
        with self.locked():
            every = self.wanted()
            if wanted is None:
                every.pop(name, None)
            else:
                every[name] = wanted
            self._write(every)
        if supervisor := self.supervisor:
            supervisor.signal(signal.SIGHUP)

    def ensure(self) -> None:
        """Start the supervisor unless it runs; it takes over what one that was killed has left running."""
        if self.supervisor:
            return
        with self.locked():  # what has ended meanwhile is started by who knows in which order
            self._write({name: each for name, each in self.wanted().items() if self.process(name)})
        script = 'log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null'
        command = [
            "setsid",
            "--fork",
            sys.executable,
            "-I",
            "-m",
            _MODULE,
            str(self.directory),
            str(self.log),
        ]
        run(
            ["/bin/sh", "-c", script, "sh", str(self.log), *command],
            "the supervisor does not start",
            environment=clean_environment(),
        )
        deadline = time.monotonic() + _START_SECONDS
        while self.supervisor is None:
            if time.monotonic() > deadline:
                raise ServerError("the supervisor does not start", f"see the end of {self.log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the supervisor; what it watches goes on."""
        supervisor = self.supervisor
        if supervisor and not end([supervisor], [(signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)]):
            raise ServerError("the supervisor does not end", f"its process is {supervisor.pid}")
        for remains in (self.pid_file(_SUPERVISOR), self.directory / "status.json"):
            remains.unlink(missing_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """Let nobody else change what is wanted, or obey it."""
        return locked(self.directory)

    def _write(self, every: dict[str, Wanted]) -> None:
        content = json.dumps({name: asdict(each) for name, each in every.items()}, indent=1)
        write_atomically(self.directory / "wanted.json", content.encode())


def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        facts = json.loads(file.read_text())
        return facts if isinstance(facts, dict) else {}
    return {}
