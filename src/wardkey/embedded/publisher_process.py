"""The publisher of one home as a process. What it does is in ``wardkey.publisher``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..daemon.processes import Process
from ..publisher import config
from ..publisher.config import Configuration
from .part import Part, read_status

__all__ = ["PublisherProcess"]


class PublisherProcess(Part):
    """The one process that speaks to the network: its user has Kafka's credentials, and no others.

    It hears of what is on its way to Kafka before it goes.
    """

    name = "publisher"

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

    def start(self, dsn: str) -> bool:
        """Start the publisher and wait until it is at work; True when it had to be started.

        One that waits for Kafka, the database or another publisher is left to it, and says so in its status.
        """
        home = self._home
        options = ["--dsn", dsn, "--config", str(self.configuration_file)]
        return self._start(
            "wardkey.publisher", [*options, "--status", str(home.publisher_status)], home.publisher_user()
        )

    def stop(self) -> None:
        super().stop()
        self._home.publisher_status.unlink(missing_ok=True)

    def is_at_work(self, process: Process) -> bool:
        return (self.status() or {}).get("pid") == process.pid

    def status(self) -> dict[str, Any] | None:
        """Return what the publisher last wrote about itself."""
        return read_status(self._home.publisher_status)
