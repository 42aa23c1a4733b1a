"""The publisher of one home as a process: started, shown, ended. What it does is in ``wardkey.publisher``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ServerError
from ..publisher import config
from ..publisher.config import Configuration
from .home import Home
from .processes import Process, clean_environment, end, find, run

__all__ = ["PublisherProcess"]

_MODULE = "wardkey.publisher"
_START_SECONDS = 15.0
_MISSES = 5  # looks in a row: a process in the middle of an exec has no arguments to be known by


class PublisherProcess:
    """Root starts it as root; it becomes its own user once everything is imported (``--run-as``).

    It is the one process that speaks to the network: its user has Kafka's credentials, and no others.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def configuration_file(self) -> Path:
        return self._home.publisher / config.CONFIGURATION_FILE

    @property
    def configured(self) -> bool:
        return self.configuration_file.exists()

    def configuration(self) -> Configuration | None:
        """Return how Kafka is configured, None when it is not. Raises PublisherError."""
        return config.read(self.configuration_file)

    def configure(self, configuration: Configuration | None) -> None:
        """Write down how Kafka is configured; None: not at all."""
        if configuration is None:
            self.configuration_file.unlink(missing_ok=True)
            return
        owner = self._home.publisher_user()
        config.write(self.configuration_file, configuration, (owner.uid, owner.gid))

    @property
    def process(self) -> Process | None:
        """The running publisher of this home."""
        return next(iter(find(self._is_ours)), None)

    def start(self, dsn: str) -> bool:
        """Start the publisher and wait until it is at work; True when it had to be started.

        One that waits for Kafka, the database or another publisher is left to it, and says so in its status.
        """
        running = find(self._is_ours)
        if len(running) == 1 and dsn in running[0].arguments:
            return False
        self.stop()
        said = self._home.publisher_log.stat().st_size
        self._launch(dsn)
        deadline, missed = time.monotonic() + _START_SECONDS, 0
        while time.monotonic() < deadline and missed < _MISSES:
            process = self.process
            missed = 0 if process else missed + 1
            status = self.status()
            if process and status and status.get("pid") == process.pid:
                return True
            time.sleep(0.03)
        if self.process:
            return True
        with self._home.publisher_log.open("rb") as log:
            log.seek(said)
            lines = log.read().decode(errors="replace").splitlines()
        reason = f": {lines[-1].partition('publisher: ')[2] or lines[-1]}" if lines else ""
        raise ServerError(
            f"the publisher does not start{reason}", f"see the end of {self._home.publisher_log}"
        )

    def stop(self) -> None:
        """End every publisher of this home; it hears of what is on its way to Kafka before it goes."""
        if not end(find(self._is_ours), [(signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)]):
            raise ServerError("the publisher does not end", f"see the end of {self._home.publisher_log}")
        self._home.publisher_status.unlink(missing_ok=True)

    def status(self) -> dict[str, Any] | None:
        """Return what the publisher last wrote about itself."""
        with suppress(OSError, ValueError):
            found = json.loads(self._home.publisher_status.read_text())
            return found if isinstance(found, dict) else None
        return None

    def _launch(self, dsn: str) -> None:
        home, user, server = self._home, self._home.publisher_user(), self._home.server_user()
        command = ["setsid", "--fork", sys.executable, "-I", "-m", _MODULE, "--dsn", dsn]
        command += ["--config", str(self.configuration_file), "--status", str(home.publisher_status)]
        if os.geteuid() == 0:
            command += ["--run-as", f"{user.uid}:{server.gid}"]
        # The shell only opens the log: the publisher outlives us, and nothing of ours may stay open in it.
        script = 'log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null'
        run(
            ["/bin/sh", "-c", script, "sh", str(home.publisher_log), *command],
            "the publisher does not start",
            environment=clean_environment(),
        )

    def _is_ours(self, process: Process) -> bool:
        words = process.arguments
        status = str(self._home.publisher_status)
        return _MODULE in words and any(pair == ("--status", status) for pair in pairwise(words))
