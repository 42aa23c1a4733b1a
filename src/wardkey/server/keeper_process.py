"""The keeper of one home as a process: started, asked, ended. What it does is in ``wardkey.keeper``."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from itertools import pairwise
from typing import Any

from .._files import write_atomically
from ..errors import ServerError
from .home import Home
from .processes import OsUser, Process, clean_environment, end, find, run

__all__ = ["KeeperProcess"]

_MODULE = "wardkey.keeper"
_START_SECONDS = 15.0
_MISSES = 5  # looks in a row: a process in the middle of an exec has no arguments to be known by


class KeeperProcess:
    """Root starts it as root; it drops to its own user once everything is imported (``--run-as``).

    That user may be unable to read the interpreter and packages of the operator.
    """

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def process(self) -> Process | None:
        """The running keeper by its pid file, believed only if the process is a keeper of this home."""
        try:
            process = Process.of(int(self._home.keeper_pid.read_text()))
        except (FileNotFoundError, ValueError):
            return None
        return process if process and self._is_ours(process) else None

    def start(self) -> bool:
        """Start the keeper and wait until it answers; True when it had to be started."""
        running = find(self._is_ours)
        if len(running) == 1 and self.ask_status():
            self._remember(running[0])
            return False
        self.stop()
        said = self._home.keeper_log.stat().st_size
        self._launch()
        deadline, missed = time.monotonic() + _START_SECONDS, 0
        while time.monotonic() < deadline and missed < _MISSES:
            running = find(self._is_ours)
            if running and self.ask_status():
                self._remember(running[0])
                return True
            missed = 0 if running else missed + 1
            time.sleep(0.03)
        with self._home.keeper_log.open("rb") as log:
            log.seek(said)
            lines = log.read().decode(errors="replace").split("keeper: cannot start: ")[-1].splitlines()
        reason = f": {lines[-1]}" if lines else ""
        raise ServerError(f"the keeper does not start{reason}", f"see the end of {self._home.keeper_log}")

    def stop(self) -> None:
        """End every keeper of this home and remove its socket."""
        if not end(find(self._is_ours), [(signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)]):
            raise ServerError("the keeper does not end", f"its pid is in {self._home.keeper_pid}")
        for remains in (self._home.keeper_pid, self._home.keeper_socket):
            remains.unlink(missing_ok=True)

    def ask_status(self) -> dict[str, Any] | None:
        """Return what the keeper says about itself, None when nobody answers."""
        request = json.dumps({"op": "status"}).encode()
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError, ValueError):
            connection.settimeout(2)
            connection.connect(str(self._home.keeper_socket))
            connection.sendall(len(request).to_bytes(4, "big") + request)
            with connection.makefile("rb") as stream:
                length = int.from_bytes(stream.read(4), "big")
                reply = json.loads(stream.read(length))
            return reply if isinstance(reply, dict) and reply.get("ok") else None
        return None

    def _launch(self) -> None:
        home, keeper, server = self._home, self._home.keeper_user(), self._home.server_user()
        command = ["setsid", "--fork", sys.executable, "-I", "-m", _MODULE, "--directory", str(home.keeper)]
        command += ["--socket", str(home.keeper_socket)]
        for uid in sorted({server.uid, OsUser.current().uid}):
            command += ["--allow-uid", str(uid)]
        command += ["--admin-uid", str(OsUser.current().uid), "--scribe-uid", str(home.scribe_user().uid)]
        if os.geteuid() == 0:
            command += ["--run-as", f"{keeper.uid}:{server.gid}"]
        # The shell only opens the log: the keeper outlives us, and nothing of ours may stay open in it.
        script = 'log=$1; shift; exec "$@" >>"$log" 2>&1 </dev/null'
        run(
            ["/bin/sh", "-c", script, "sh", str(home.keeper_log), *command],
            "the keeper does not start",
            environment=clean_environment(),
        )

    def _remember(self, process: Process) -> None:
        write_atomically(self._home.keeper_pid, f"{process.pid}\n".encode())

    def _is_ours(self, process: Process) -> bool:
        words = process.arguments
        directory = str(self._home.keeper)
        return _MODULE in words and any(pair == ("--directory", directory) for pair in pairwise(words))
