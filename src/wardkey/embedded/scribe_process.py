"""The scribe of one home as a process. What it does is in ``wardkey.scribe``."""

from __future__ import annotations

from typing import Any

from ..daemon.processes import Process
from .part import Part, read_status

__all__ = ["ScribeProcess"]


class ScribeProcess(Part):
    """Its user is not the server's: whoever has taken over the server should not have checkpoints signed.

    It has the end of the log signed before it goes.
    """

    name = "scribe"

    def start(self, dsn: str) -> bool:
        """Start the scribe and wait until it is at work; True when it had to be started.

        One that waits for the database or for another scribe is left to it, and says so in its status.
        """
        home = self._home
        options = ["--dsn", dsn, "--keeper", str(home.keeper_socket), "--status", str(home.scribe_status)]
        return self._start("wardkey.scribe", [*options, "--disk", str(home.path)], home.scribe_user())

    def stop(self) -> None:
        super().stop()
        self._home.scribe_status.unlink(missing_ok=True)

    def is_at_work(self, process: Process) -> bool:
        status = self.status() or {}
        return status.get("pid") == process.pid and status.get("state") == "running"

    def status(self) -> dict[str, Any] | None:
        """Return what the scribe last wrote about itself."""
        return read_status(self._home.scribe_status)
