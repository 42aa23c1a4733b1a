"""PostgreSQL, what runs beside it, and the extension of one home as one thing: start, stop, status, DSN.

The supervisor starts keeper, scribe, publisher and invalidator again when they end; PostgreSQL looks after
its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..daemon.supervision import Supervision
from ..errors import NotRunning, ServerError
from ..install.software import Software
from .home import Config, Home, free_port
from .parts import InvalidatorProcess, KeeperProcess, MetricsProcess, PublisherProcess, ScribeProcess
from .postgres import Postgres

__all__ = ["Cluster", "Status"]

_BY_OS_USER = ("postgres", "ward_scribe", "ward_publisher", "ward_invalidator", "ward_metrics")


@dataclass(frozen=True, slots=True)
class Status:
    """What runs. Seconds since start; pids and the rest are None where nothing runs.

    ``restarts``: by name what the supervisor has seen: restarts, last_exit, ended_at.
    """

    home: Path
    made: bool
    port: int | None
    socket_directory: Path
    postgres_pid: int | None
    postgres_seconds: float | None
    keeper_pid: int | None
    keeper_seconds: float | None
    keeper: dict[str, Any] | None
    scribe_pid: int | None
    scribe_seconds: float | None
    scribe: dict[str, Any] | None
    publishes: bool
    publisher_pid: int | None
    publisher_seconds: float | None
    publisher: dict[str, Any] | None
    caches: bool
    invalidator_pid: int | None
    invalidator_seconds: float | None
    invalidator: dict[str, Any] | None
    metrics_port: int | None
    metrics_pid: int | None
    metrics_seconds: float | None
    supervisor_pid: int | None
    supervisor_seconds: float | None
    restarts: Mapping[str, Mapping[str, Any]]
    dsn: str | None

    @property
    def running(self) -> bool:
        """``publishes``: Kafka is configured, so that a publisher should run; the others likewise."""
        pids = (self.postgres_pid, self.keeper_pid, self.scribe_pid, self.supervisor_pid)
        lacking = (
            (self.publishes and self.publisher_pid is None)
            or (self.caches and self.invalidator_pid is None)
            or (self.metrics_port is not None and self.metrics_pid is None)
        )
        return None not in pids and not lacking


class Cluster:
    """``settings``: settings of PostgreSQL for this start only. ``say`` is told each step that takes time.

    ``regions``: that the keeper serves from the next start on; the first is that of new tenants.
    ``is_restoring``: this is what completes the home.
    """

    def __init__(
        self,
        home: Home,
        *,
        settings: Mapping[str, str] | None = None,
        regions: Sequence[str] = (),
        say: Callable[[str], None] | None = None,
        is_restoring: bool = False,
    ) -> None:
        self.home = home
        self.keeper = KeeperProcess(home)
        self.postgres = Postgres(home, settings or {})
        self.scribe = ScribeProcess(home)
        self.publisher = PublisherProcess(home)
        self.invalidator = InvalidatorProcess(home)
        self.metrics = MetricsProcess(home)
        self.supervision = Supervision(home.supervisor, home.supervisor_log)
        self.regions = tuple(regions)
        self._is_restoring = is_restoring
        self._say = say or (lambda text: None)

    def init(self) -> Config:
        """Make or complete the home; nothing is started. Returns its configuration."""
        with self.home.locked():
            return self._init()[0]

    def start(self) -> Status:
        """Make what is missing, repair what a crash left, start what does not run. Raises ServerError."""
        from . import database, kms_choice  # which most commands do without

        with self.home.locked():
            config, software = self._init()
            if self.regions:
                kms_choice.serve(self.home, self.regions)
            if self.keeper.start():
                self._say("keeper started")
            if self.postgres.postmaster is None:
                config = self.postgres.start(software, config)
                self._say(f"PostgreSQL {software.major} started on 127.0.0.1:{config.port}")
            database.prepare(self, self._say)
            if self.scribe.start(self.dsn(user="ward_scribe")):
                self._say("scribe started")
            if not self.publisher.configured:
                self.publisher.stop()
            elif self.publisher.start(self.dsn(user="ward_publisher")):
                self._say("publisher started")
            if not self.invalidator.configured:
                self.invalidator.stop()
            elif self.invalidator.start(self.dsn(user="ward_invalidator")):
                self._say("invalidator started")
            if config.metrics_port is not None:
                self._start_metrics(config.metrics_port)
        return self.status()

    def stop(self) -> bool:
        """Stop all that runs, the supervisor last, and what it left; True when something ran."""
        if not self.home.exists:
            return False
        with self.home.locked():
            parts = (self.postgres.postmaster, self.keeper.process, self.scribe.process)
            watching = (
                self.publisher.process,
                self.invalidator.process,
                self.metrics.process,
                self.supervision.supervisor,
            )
            ran = any(part is not None for part in (*parts, *watching))
            self.metrics.stop()
            self.invalidator.stop()
            self.publisher.stop()
            self.scribe.stop()
            self.postgres.stop()
            self.keeper.stop()
            self.supervision.stop()
        return ran

    def restart_keeper(self) -> bool:
        """Start the keeper again if it runs; True when it did."""
        with self.home.locked():
            if self.keeper.process is None:
                return False
            self.keeper.stop()
            return self.keeper.start()

    def restart_publisher(self) -> bool:
        """Have a publisher run as Kafka is configured now, if PostgreSQL runs; True when one was started."""
        with self.home.locked():
            self.publisher.stop()
            if self.postgres.postmaster is None or not self.publisher.configured:
                return False
            return self.publisher.start(self.dsn(user="ward_publisher"))

    def restart_invalidator(self) -> bool:
        """Have an invalidator run as Redis is configured now, as ``restart_publisher`` does."""
        with self.home.locked():
            self.invalidator.stop()
            if self.postgres.postmaster is None or not self.invalidator.configured:
                return False
            return self.invalidator.start(self.dsn(user="ward_invalidator"))

    def serve_metrics(self) -> int:
        """Have metrics served from now on, and return at which port of 127.0.0.1. Raises NotRunning."""
        with self.home.locked():
            config = self.home.config()
            if config is None or self.postgres.postmaster is None:
                raise NotRunning
            if config.metrics_port is None:
                config = replace(config, metrics_port=free_port())
                self.home.remember(config)
            self._start_metrics(config.metrics_port or 0)
        return config.metrics_port or 0

    def _start_metrics(self, port: int) -> None:
        if self.metrics.start(self.dsn(user="ward_metrics"), port):
            self._say(f"metrics are served at 127.0.0.1:{port}")

    def status(self) -> Status:
        """Say what runs, by the processes themselves."""
        config = self.home.config()
        postmaster = self.postgres.postmaster if config else None
        keeper = self.keeper.process if config else None
        scribe = self.scribe.process if config else None
        publisher = self.publisher.process if config else None
        invalidator = self.invalidator.process if config else None
        metrics = self.metrics.process if config else None
        supervisor = self.supervision.supervisor if config else None
        return Status(
            home=self.home.path,
            made=config is not None,
            port=config.port if config else None,
            socket_directory=self.home.run,
            postgres_pid=postmaster.pid if postmaster else None,
            postgres_seconds=postmaster.seconds_up if postmaster else None,
            keeper_pid=keeper.pid if keeper else None,
            keeper_seconds=keeper.seconds_up if keeper else None,
            keeper=self.keeper.ask_status() if keeper else None,
            scribe_pid=scribe.pid if scribe else None,
            scribe_seconds=scribe.seconds_up if scribe else None,
            scribe=self.scribe.status() if scribe else None,
            publishes=config is not None and self.publisher.configured,
            publisher_pid=publisher.pid if publisher else None,
            publisher_seconds=publisher.seconds_up if publisher else None,
            publisher=self.publisher.status() if publisher else None,
            caches=config is not None and self.invalidator.configured,
            invalidator_pid=invalidator.pid if invalidator else None,
            invalidator_seconds=invalidator.seconds_up if invalidator else None,
            invalidator=self.invalidator.status() if invalidator else None,
            metrics_port=config.metrics_port if config else None,
            metrics_pid=metrics.pid if metrics else None,
            metrics_seconds=metrics.seconds_up if metrics else None,
            supervisor_pid=supervisor.pid if supervisor else None,
            supervisor_seconds=supervisor.seconds_up if supervisor else None,
            restarts=self.supervision.status(),
            dsn=self.dsn() if postmaster else None,
        )

    def require_running(self) -> Cluster:
        """Return this cluster. Raises NotRunning when PostgreSQL does not run."""
        if not self.home.exists or self.postgres.postmaster is None:
            raise NotRunning
        return self

    def dsn(self, dbname: str = "wardkey", user: str = "postgres") -> str:
        """Return a connection string through the socket. For a tenant's role, ``pgpass`` has the password."""
        config = self.home.config()
        if config is None:
            raise NotRunning
        parts = {"host": self.home.run, "port": config.port, "dbname": dbname, "user": user}
        if user not in _BY_OS_USER:  # who come by their OS user
            parts["passfile"] = self.home.pgpass
        return " ".join(f"{name}={_quoted(str(value))}" for name, value in parts.items())

    @property
    def software(self) -> Software:
        """The installation this home was made with, else the newest one."""
        config = self.home.config()
        if config is None:
            return Software.newest()
        if software := Software.at(Path(config.bindir)):
            return software
        raise ServerError(
            f"the PostgreSQL programs of this home are gone from {config.bindir}",
            "install that version again; with both versions here, wardkey upgrade moves the data",
        )

    def use(self, software: Software) -> None:
        """Remember other programs for this home. Its data has to be of their version."""
        if config := self.home.config():
            self.home.remember(replace(config, bindir=str(software.bindir)))

    def make(self) -> tuple[Config, Software]:
        """Make or complete the home, which the caller has locked."""
        return self._init()

    def _init(self) -> tuple[Config, Software]:
        from ..install import pythonpath

        os.umask(0o022)
        if self.home.restoring.exists() and not self._is_restoring:
            raise ServerError(f"a restore into {self.home.path} was cut off", "run it again: wardkey restore")
        home, software = self.home, self.software
        home.make_directories()
        if software.install_extension():
            self._say(f"extension files installed into {software.sharedir}/extension")
        if not (home.python / pythonpath.STAMP).exists():
            self._say(f"installing {pythonpath.REQUIREMENT} for the server's Python")
        pythonpath.fill(home.python, software.interpreter)
        if self.postgres.initialise(software):
            self._say(f"data directory made in {home.data}")
        self.postgres.check_version(software)
        config = home.config()
        if config is None:
            config = home.new_config(software.bindir)
            home.remember(config)
        return config, software


def _quoted(value: str) -> str:
    if value and all(character.isalnum() or character in "/._-" for character in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
