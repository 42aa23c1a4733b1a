"""The PostgreSQL of one home: data directory made whole or not at all, postmaster started and ended."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ..daemon.files import write_atomically
from ..daemon.processes import Process, end, find
from ..daemon.programs import OsUser, clean_environment, run
from ..errors import ServerError
from ..install.software import Software
from . import settings
from .home import Config, Home, port_is_free

__all__ = ["Postgres"]

_CHOSEN = re.compile(r"^dynamic_shared_memory_type = \w+", re.MULTILINE)
_FATAL = re.compile(r"FATAL:  (.*)")
_LOG_LIMIT = 16 * 1024 * 1024


class Postgres:
    """``overrides``: settings for this start only, as ``postgres -c`` takes them."""

    def __init__(self, home: Home, overrides: Mapping[str, str]) -> None:
        self._home = home
        self._overrides = dict(overrides)

    @property
    def postmaster(self) -> Process | None:
        """The running postmaster. Its pid file is not believed: it must work in our data directory."""
        try:
            pid = int((self._home.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        process = Process.of(pid)
        return process if process and self._is_ours(process) else None

    def initialise(self, software: Software) -> bool:
        """Make the data directory if there is none; True when made. Remains of an attempt are removed."""
        if (self._home.data / "PG_VERSION").exists():
            return False
        self.draft(software).rename(self._home.data)
        return True

    def draft(self, software: Software) -> Path:
        """Make a data directory beside ours, which is complete when this returns."""
        draft, user = self._home.path / "postgres.new", self._home.server_user()
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        os.chown(draft, user.uid, user.gid)
        make = [software.program("initdb"), "--pgdata", str(draft), "--username=postgres", "--encoding=UTF8"]
        make += ["--locale=C.UTF-8", "--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256"]
        if self._overrides.get("fsync") == "off":
            make.append("--no-sync")
        run(make, "initdb failed", user=user, environment=clean_environment())
        chosen = _CHOSEN.findall((draft / "postgresql.conf").read_text())
        local = "".join(["# Settings of your own: they win.\n", *(f"{line}\n" for line in chosen)])
        write_atomically(draft / "local.conf", local.encode(), owner=(user.uid, user.gid))
        return draft

    def check_version(self, software: Software) -> None:
        """Raise ServerError when the data directory is of another major version."""
        major = (self._home.data / "PG_VERSION").read_text().strip()
        if major != str(software.major):
            raise ServerError(
                f"the data in {self._home.data} is of PostgreSQL {major}, the programs are {software.major}",
                f"install postgresql-{major} and postgresql-plpython3-{major}, then: wardkey upgrade",
            )

    def start(self, software: Software, config: Config) -> Config:
        """Start the postmaster and wait until it accepts connections; the port moves when it is taken."""
        self._clear_remains()
        for _ in range(5):
            if not port_is_free(config.port):
                config = self._home.move_port(config)
            self._configure(config, software.major)
            try:
                self._launch(software)
                return config
            except ServerError:
                if port_is_free(config.port) or self.postmaster:
                    raise
        raise ServerError("no port to listen on", "others took each port that was tried; try again")

    def stop(self) -> None:
        """End the postmaster: fast, else immediately, else by force; then whatever it left."""
        if postmaster := self.postmaster:
            end([postmaster], [(signal.SIGINT, 60), (signal.SIGQUIT, 10)])
        self._clear_remains()

    def _launch(self, software: Software) -> None:
        home = self._home
        if home.postgres_log.stat().st_size > _LOG_LIMIT:
            write_atomically(home.log / "postgres.log.1", home.postgres_log.read_bytes())
            os.truncate(home.postgres_log, 0)
        options = " ".join(f"-c {name}={value}" for name, value in self._overrides.items())
        launch = [software.program("pg_ctl"), "start", "--pgdata", str(home.data), "--wait", "--timeout=600"]
        launch += ["--log", str(home.postgres_log), "--silent", *(["--options", options] if options else [])]
        environment = clean_environment(
            PYTHONPATH=str(home.python),
            PYTHONNOUSERSITE="1",
            SETUPTOOLS_USE_DISTUTILS="stdlib",  # else Debian's .pth file imports part of it
        )
        before = home.postgres_log.stat().st_size
        try:
            run(launch, "pg_ctl", user=home.server_user(), environment=environment, timeout=660)
        except ServerError as error:
            with home.postgres_log.open("rb") as log:
                log.seek(before)
                reasons = _FATAL.findall(log.read().decode(errors="replace"))
            reason = reasons[-1] if reasons else error.message
            raise ServerError(
                f"PostgreSQL does not start: {reason}", f"see the end of {home.postgres_log}"
            ) from None

    def _configure(self, config: Config, major: int) -> None:
        home, user = self._home, self._home.server_user()
        files = {
            "postgresql.conf": settings.postgresql(config.port, home.run, major),
            "pg_hba.conf": settings.hba(),
            "pg_ident.conf": settings.ident(
                {
                    "postgres": [OsUser.current(), user],
                    "ward_scribe": [home.scribe_user()],
                    "ward_publisher": [home.publisher_user()],
                    "ward_invalidator": [home.invalidator_user()],
                    "ward_metrics": [home.metrics_user()],
                }
            ),
        }
        for name, text in files.items():
            write_atomically(home.data / name, text.encode(), owner=(user.uid, user.gid))

    def _clear_remains(self) -> None:
        """End the processes of a killed postmaster and remove its lock files.

        A lock file names a pid; after a reboot that can be anybody's, and PostgreSQL would refuse to start.
        """
        gentle = [(signal.SIGTERM, 5.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 10.0)]
        if not end(find(self._is_ours), gentle):
            raise ServerError(
                "processes of the last PostgreSQL do not end", f"see: fuser -v {self._home.data}"
            )
        with suppress(FileNotFoundError):
            (self._home.data / "postmaster.pid").unlink()
        for remains in self._home.run.glob(".s.PGSQL.*"):
            remains.unlink(missing_ok=True)

    def _is_ours(self, process: Process) -> bool:
        # Backends rename themselves, but all of them work in the data directory.
        return process.program == "postgres" and process.works_in(self._home.data)
