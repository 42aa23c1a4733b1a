"""The keeper of one home as a process. What it does is in ``wardkey.keeper``."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

from ..daemon.processes import OsUser, Process
from .part import Part

__all__ = ["KeeperProcess"]


class KeeperProcess(Part):
    """Backends wait for it, so it has to be at work before anything else starts."""

    name = "keeper"
    start_seconds = 60.0
    stop_seconds = 5.0
    may_wait = False

    def start(self) -> bool:
        """Start the keeper and wait until it answers; True when it had to be started."""
        home = self._home
        options = ["--directory", str(home.keeper), "--socket", str(home.keeper_socket)]
        for uid in sorted({home.server_user().uid, OsUser.current().uid}):
            options += ["--allow-uid", str(uid)]
        options += ["--admin-uid", str(OsUser.current().uid), "--scribe-uid", str(home.scribe_user().uid)]
        return self._start("wardkey.keeper", options, home.keeper_user())

    def stop(self) -> None:
        """End the keeper and remove its socket."""
        super().stop()
        self._home.keeper_socket.unlink(missing_ok=True)

    def is_at_work(self, process: Process) -> bool:
        return (self.ask_status() or {}).get("pid") == process.pid

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
