"""The scribe of one home as a process: started, shown, ended. What it does is in ``wardkey.scribe``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

from ..errors import ServerError
from .home import Home
from .processes import Process, clean_environment, end, find, run

__all__ = ["ScribeProcess"]

_MODULE = "wardkey.scribe"
_START_SECONDS = 15.0
_MISSES = 5  # looks in a row: a process in the middle of an exec has no arguments to be known by


class ScribeProcess:
    """Root starts it as root; it becomes its own user once everything is imported (``--run-as``).

    Not the server's user: whoever has taken over the server should not have checkpoints signed.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def process(self) -> Process | None:
        """The running scribe of this home."""
        return next(iter(find(self._is_ours)), None)

    def start(self, dsn: str) -> bool:
        """Start the scribe and wait until it is at work; True when it had to be started.

        One that waits for the database or for another scribe is left to it, and says so in its status.
        """
        running = find(self._is_ours)
        if len(running) == 1 and dsn in running[0].arguments:
            return False
        self.stop()
        said = self._home.scribe_log.stat().st_size
        self._launch(dsn)
        deadline, missed = time.monotonic() + _START_SECONDS, 0
        while time.monotonic() < deadline and missed < _MISSES:
            process = self.process
            missed = 0 if process else missed + 1
            status = self.status()
            if process and status and status.get("pid") == process.pid and status.get("state") == "running":
                return True
            time.sleep(0.03)
        if self.process:
            return True
        with self._home.scribe_log.open("rb") as log:
            log.seek(said)
            lines = log.read().decode(errors="replace").splitlines()
        reason = f": {lines[-1].partition('scribe: ')[2] or lines[-1]}" if lines else ""
        raise ServerError(f"the scribe does not start{reason}", f"see the end of {self._home.scribe_log}")

    def stop(self) -> None:
        """End every scribe of this home; it has the end of the log signed before it goes."""
        if not end(find(self._is_ours), [(signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)]):
            raise ServerError("the scribe does not end", f"see the end of {self._home.scribe_log}")
        self._home.scribe_status.unlink(missing_ok=True)

    def status(self) -> dict[str, Any] | None:
        """Return what the scribe last wrote about itself."""
        with suppress(OSError, ValueError):
            found = json.loads(self._home.scribe_status.read_text())
            return found if isinstance(found, dict) else None
        return None

    def _launch(self, dsn: str) -> None:
        home, scribe, server = self._home, self._home.scribe_user(), self._home.server_user()
        command = ["setsid", "--fork", sys.executable, "-I", "-m", _MODULE, "--dsn", dsn]
        command += ["--keeper", str(home.keeper_socket), "--status", str(home.scribe_status)]
        command += ["--disk", str(home.path)]
        if os.geteuid() == 0:
            command += ["--run-as", f"{scribe.uid}:{server.gid}"]
        # The shell only opens the log: the scribe outlives us, and nothing of ours may stay open in it.
        script = 'log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null'
        run(
            ["/bin/sh", "-c", script, "sh", str(home.scribe_log), *command],
            "the scribe does not start",
            environment=clean_environment(),
        )

    def _is_ours(self, process: Process) -> bool:
        words = process.arguments
        status = str(self._home.scribe_status)
        return _MODULE in words and any(pair == ("--status", status) for pair in pairwise(words))
