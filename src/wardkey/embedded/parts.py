"""The processes of one home that the supervisor keeps running: started and waited for, shown, ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from wardkey_core import keeper_client

from ..cache import config as cache_config
from ..daemon.processes import Process, end
from ..daemon.programs import OsUser
from ..daemon.status import StatusFile
from ..daemon.supervision import Supervision, Wanted
from ..errors import ServerError, WardError
from ..publisher import config
from ..publisher.config import Configuration
from .home import Home

__all__ = [
    "InvalidatorProcess",
    "KeeperProcess",
    "MetricsProcess",
    "Part",
    "PublisherProcess",
    "ScribeProcess",
]


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
        log_size = self.log.stat().st_size
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
        raise ServerError(
            f"the {self.name} does not start{self._reason(log_size)}", f"see the end of {self.log}"
        )

    def _run_as(self, user: OsUser) -> list[str]:
        return ["--run-as", f"{user.uid}:{self._home.server_user().gid}"] if os.geteuid() == 0 else []

    def _reason(self, log_size: int) -> str:
        with self.log.open("rb") as log:
            log.seek(log_size)
            lines = log.read().decode(errors="replace").splitlines()
        if not lines:
            return ""
        text = lines[-1].partition(f" {self.name}: ")[2] or lines[-1]
        return f": {text.removeprefix('cannot work: ')}"


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
        options += ["--status-uid", str(home.metrics_user().uid)]
        return self._start("wardkey.keeper", options, home.keeper_user())

    def stop(self) -> None:
        """End the keeper and remove its socket."""
        super().stop()
        self._home.keeper_socket.unlink(missing_ok=True)

    def is_at_work(self, process: Process) -> bool:
        return (self.ask_status() or {}).get("pid") == process.pid

    def ask_status(self) -> dict[str, Any] | None:
        """Return what the keeper says about itself, None when nobody answers."""
        try:
            return keeper_client.status(self._home.keeper_socket, timeout=2)
        except WardError:
            return None


class ScribeProcess(Part):
    """Its user is not the server's: an attacker in the server should not have checkpoints signed.

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
        return StatusFile.read(self._home.scribe_status)


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
        return StatusFile.read(self._home.publisher_status)


class InvalidatorProcess(Part):
    """Its user has the credentials of Redis, and no others."""

    name = "invalidator"

    @property
    def configuration_file(self) -> Path:
        return self._home.invalidator / cache_config.CONFIGURATION_FILE

    @property
    def configured(self) -> bool:
        return self.configuration_file.exists()

    def configuration(self) -> cache_config.Configuration | None:
        """Return where Redis is, None when there is no cache. Raises CacheError."""
        return cache_config.read(self.configuration_file)

    def configure(self, configuration: cache_config.Configuration | None) -> None:
        """Write down where Redis is; None: there is no cache."""
        if configuration is None:
            self.configuration_file.unlink(missing_ok=True)
            return
        owner = self._home.invalidator_user()
        cache_config.write(self.configuration_file, configuration, (owner.uid, owner.gid))

    def start(self, dsn: str) -> bool:
        """Start the invalidator and wait until it is at work; True when it had to be started.

        One that waits for Redis or the database is left to it, and says so in its status.
        """
        home = self._home
        options = ["--dsn", dsn, "--config", str(self.configuration_file)]
        options += ["--status", str(home.invalidator_status)]
        return self._start("wardkey.cache", options, home.invalidator_user())

    def stop(self) -> None:
        super().stop()
        self._home.invalidator_status.unlink(missing_ok=True)

    def is_at_work(self, process: Process) -> bool:
        return (self.status() or {}).get("pid") == process.pid

    def status(self) -> dict[str, Any] | None:
        """Return what the invalidator last wrote about itself."""
        return StatusFile.read(self._home.invalidator_status)


class MetricsProcess(Part):
    """Its user reads counts and dates, and may ask the keeper how it is: nothing else."""

    name = "metrics"
    may_wait = False

    def start(self, dsn: str, port: int) -> bool:
        """Start the service and wait until it takes connections; True when it had to be started."""
        options = ["--dsn", dsn, "--keeper", str(self._home.keeper_socket), "--port", str(port)]
        self._port = port
        return self._start("wardkey.metrics", options, self._home.metrics_user())

    def is_at_work(self, process: Process) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
