"""The state directory of an embedded server: where everything lies, who owns it, and what is remembered.

::

    config.json   id, port, programs        run/        .s.PGSQL.PORT, keeper.sock, scribe.json
    log/          of each process           postgres/   data; 0700, OS user of the server
    python/       PYTHONPATH of the server  keeper/     0700, OS user of the keeper
    issuer/       0700, operator: key.pem   pgpass      0600, operator: a line per tenant login role
    orchestrator/ 0700, operator: kms.json and the credentials that manage KEKs, out of the keeper's reach
    publisher/    0700, OS user of the publisher: kafka.json
    invalidator/  0700, OS user of the invalidator: cache.json
    restoring     while `wardkey restore` is not complete
    supervisor/   0700, operator: what should run, the pids of what does, how often it was restarted

Root runs the server as OS user ``postgres``, the keeper as ``wardkey``, scribe, publisher, invalidator and
metrics service as ``wardkey-scribe``, ``wardkey-publisher`` and so on: none can read another's directory.
Anybody else runs all as itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

from ..daemon.files import locked, write_atomically
from ..daemon.programs import OsUser, run
from ..errors import MissingSoftware, ServerError

__all__ = ["Config", "Home", "free_port", "port_is_free"]

_SOCKET_PATH_MAX = 107


@dataclass(frozen=True, slots=True)
class Config:
    """What ``config.json`` remembers. It is written when the data directory is complete, not before."""

    id: str
    port: int
    bindir: str
    metrics_port: int | None = None  # where metrics are served, once somebody has a token for them

    def __post_init__(self) -> None:
        UUID(self.id)
        if not 0 < self.port < 65536:
            raise ValueError("port")


@dataclass(frozen=True, slots=True)
class Home:
    """The paths below one state directory."""

    path: Path

    @classmethod
    def locate(cls, given: str | Path | None = None) -> Home:
        """Return the home that is ``given``, else of WARDKEY_HOME, else of the platform's default."""
        chosen = given or os.environ.get("WARDKEY_HOME")
        if chosen:
            return cls(Path(chosen).expanduser().resolve())
        if os.geteuid() == 0:
            return cls(Path("/var/lib/wardkey"))
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        return cls((Path(base).expanduser() / "wardkey").resolve())

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def restoring(self) -> Path:
        """It is there while a restore is not complete."""
        return self.path / "restoring"

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def data(self) -> Path:
        return self.path / "postgres"

    @property
    def python(self) -> Path:
        return self.path / "python"

    @property
    def keeper(self) -> Path:
        return self.path / "keeper"

    @property
    def orchestrator(self) -> Path:
        return self.path / "orchestrator"

    @property
    def issuer(self) -> Path:
        return self.path / "issuer"

    @property
    def pgpass(self) -> Path:
        return self.path / "pgpass"

    @property
    def keeper_socket(self) -> Path:
        return self.run / "keeper.sock"

    @property
    def supervisor(self) -> Path:
        return self.path / "supervisor"

    @property
    def supervisor_log(self) -> Path:
        return self.log / "supervisor.log"

    @property
    def postgres_log(self) -> Path:
        return self.log / "postgres.log"

    @property
    def keeper_log(self) -> Path:
        return self.log / "keeper.log"

    @property
    def scribe_log(self) -> Path:
        return self.log / "scribe.log"

    @property
    def scribe_status(self) -> Path:
        return self.run / "scribe.json"

    @property
    def publisher(self) -> Path:
        return self.path / "publisher"

    @property
    def publisher_log(self) -> Path:
        return self.log / "publisher.log"

    @property
    def publisher_status(self) -> Path:
        return self.run / "publisher.json"

    @property
    def invalidator(self) -> Path:
        return self.path / "invalidator"

    @property
    def invalidator_log(self) -> Path:
        return self.log / "invalidator.log"

    @property
    def invalidator_status(self) -> Path:
        return self.run / "invalidator.json"

    @property
    def metrics_log(self) -> Path:
        return self.log / "metrics.log"

    @property
    def exists(self) -> bool:
        return self.config_file.exists()

    def config(self) -> Config | None:
        """Return what is remembered, None when there is no complete home yet."""
        try:
            return Config(**json.loads(self.config_file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise ServerError(
                f"{self.config_file} is damaged", "restore it from a backup; it names id, port and bindir"
            ) from None

    def remember(self, config: Config) -> None:
        write_atomically(self.config_file, json.dumps(asdict(config), indent=2).encode())

    def new_config(self, bindir: Path) -> Config:
        return Config(str(uuid4()), free_port(), str(bindir))

    def move_port(self, config: Config) -> Config:
        """Choose another port, because somebody else listens on the remembered one."""
        moved = replace(config, port=free_port())
        self.remember(moved)
        return moved

    def server_user(self) -> OsUser:
        """The OS user PostgreSQL runs as."""
        return _service_user("postgres")

    def keeper_user(self) -> OsUser:
        """The OS user the keeper runs as; made when missing."""
        return _own_user("wardkey")

    def scribe_user(self) -> OsUser:
        """The OS user the scribe runs as; made when missing."""
        return _own_user("wardkey-scribe")

    def publisher_user(self) -> OsUser:
        """The OS user the publisher runs as; made when missing."""
        return _own_user("wardkey-publisher")

    def invalidator_user(self) -> OsUser:
        """The OS user the invalidator runs as; made when missing."""
        return _own_user("wardkey-invalidator")

    def metrics_user(self) -> OsUser:
        """The OS user the metrics service runs as; made when missing."""
        return _own_user("wardkey-metrics")

    def make_directories(self) -> None:
        """Make what is missing, and set owners and modes of all of it."""
        server, keeper, operator = self.server_user(), self.keeper_user(), OsUser.current()
        self._check_path()
        shared = 0o755 if operator.uid == 0 else 0o700
        for directory in (self.path, self.log):
            _directory(directory, operator.uid, operator.gid, shared)
        if not server.may_enter(self.path):
            raise ServerError(
                f"OS user {server.name} cannot enter {self.path}",
                "choose a --home whose parent directories everybody may enter, such as /var/lib/wardkey",
            )
        # Sticky and of the server's group: server and keeper both put sockets here, and neither can take away
        # the other's. The keeper runs with this group, so that its socket (0660) lets the server in.
        _directory(self.run, operator.uid, server.gid, 0o1775 if operator.uid == 0 else 0o700)
        _directory(self.keeper, keeper.uid, keeper.gid, 0o700)
        for directory, user in (
            (self.publisher, self.publisher_user()),
            (self.invalidator, self.invalidator_user()),
        ):
            _directory(directory, user.uid, user.gid, 0o700)
        for directory in (self.issuer, self.orchestrator, self.supervisor):
            _directory(directory, operator.uid, operator.gid, 0o700)
        for file, owner in (
            (self.postgres_log, server),
            (self.keeper_log, operator),
            (self.scribe_log, operator),
            (self.publisher_log, operator),
            (self.invalidator_log, operator),
            (self.metrics_log, operator),
            (self.supervisor_log, operator),
        ):
            file.touch(0o640)
            os.chown(file, owner.uid, owner.gid)

    def _check_path(self) -> None:
        # pg_ctl hands paths to a shell, libpq takes a comma, and PYTHONPATH a colon, as the end of one
        if bad := sorted(set(str(self.path)) & set('"\\$`,:\n')):
            raise ServerError(
                f"the path of the home has a character that is not allowed: {bad[0]!r}",
                "choose another --home",
            )
        longest = max(len(os.fsencode(self.run / name)) for name in (".s.PGSQL.65535", "keeper.sock"))
        if longest > _SOCKET_PATH_MAX:
            raise ServerError(
                f"the path of the home is too long for a unix socket: {self.path}", "choose a shorter --home"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from starting or stopping this home meanwhile; waits for those under way."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _own_user(name: str) -> OsUser:
    if os.geteuid() == 0 and OsUser.named(name) is None:
        with locked(Path("/etc")):  # another home may be made at the same moment
            if OsUser.named(name) is None:
                create = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
                run([*create, "--shell", "/usr/sbin/nologin", name], f"cannot make OS user {name}")
    return _service_user(name)


def _service_user(name: str) -> OsUser:
    if os.geteuid() != 0:
        return OsUser.current()
    if user := OsUser.named(name):
        return user
    raise MissingSoftware(f"there is no OS user {name}", "install PostgreSQL: apt-get install postgresql")


def _directory(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    status = path.stat()
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
    path.chmod(mode)


def free_port() -> int:
    """Return a free port of 127.0.0.1, below the range the kernel gives to outgoing connections."""
    for _ in range(200):
        port = 20000 + int.from_bytes(os.urandom(4), "big") % 10000
        if port_is_free(port):
            return port
    raise ServerError("no free port between 20000 and 29999 on 127.0.0.1")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
