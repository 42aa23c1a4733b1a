"""A process of one home that the supervisor keeps running: started and waited for, shown, ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from ..daemon.processes import OsUser, Process, end
from ..errors import ServerError
from .home import Home
from .supervision import Supervision, Wanted

__all__ = ["Part"]


class Part(ABC):
    """Root starts it as root; it becomes its own user once everything is imported (``--run-as``).

    That user may be unable to read the interpreter and packages of the operator.
    """

    name: ClassVar[str]
    start_seconds: ClassVar[float] = 15.0
    stop_seconds: ClassVar[float] = 15.0
    may_wait: ClassVar[bool] = True  # one that waits for another process is left to it

    def __init__(self, home: Home) -> None:
        self._home = home
        self._supervision = Supervision(home.supervisor, home.supervisor_log)

    @property
    def process(self) -> Process | None:
        """The running process of this home."""
        return self._supervision.process(self.name)

    @property
    def log(self) -> Path:
        return self._home.log / f"{self.name}.log"

    @abstractmethod
    def is_at_work(self, process: Process) -> bool:
        """Whether it does what it is for."""

    def stop(self) -> None:
        """End it, and have it stay so."""
        if not self._home.supervisor.is_dir():
            return
        self._supervision.want(self.name, None)
        process = self.process
        if process and not end([process], [(signal.SIGTERM, self.stop_seconds), (signal.SIGKILL, 5.0)]):
            raise ServerError(
                f"the {self.name} does not end, process {process.pid}", f"see the end of {self.log}"
            )
        self._supervision.pid_file(self.name).unlink(missing_ok=True)

    def _start(self, module: str, options: Sequence[str], user: OsUser) -> bool:
        """Have ``module`` run and wait until it is at work; True when it had to be started."""
        wanted = Wanted([sys.executable, "-I", "-m", module, *options, *self._run_as(user)], str(self.log))
        self._supervision.ensure()
        process = self.process
        is_as_wanted = process is not None and self._supervision.wanted().get(self.name) == wanted
        if process and is_as_wanted and (self.may_wait or self.is_at_work(process)):
            return False
        self.stop()
        said = self.log.stat().st_size
        self._supervision.want(self.name, wanted)
        first, deadline = None, time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            process = self.process
            first = first or process
            if process and self.is_at_work(process):
                return True
            if process != first:  # it has ended, whether or not it was started again
                break
            time.sleep(0.03)
        if process and process == first and self.may_wait:
            return True
        self.stop()
        raise ServerError(f"the {self.name} does not start{self._reason(said)}", f"see the end of {self.log}")

    def _run_as(self, user: OsUser) -> list[str]:
        return ["--run-as", f"{user.uid}:{self._home.server_user().gid}"] if os.geteuid() == 0 else []

    def _reason(self, said: int) -> str:
        with self.log.open("rb") as log:
            log.seek(said)
            lines = log.read().decode(errors="replace").splitlines()
        if not lines:
            return ""
        text = lines[-1].partition(f" {self.name}: ")[2] or lines[-1]
        return f": {text.removeprefix('cannot start: ')}"


def read_status(file: Path) -> dict[str, Any] | None:
    """Return what a process last wrote about itself."""
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else None
    return None
