"""A real PgBouncer in transaction mode before the test cluster. It refuses to run as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.database import Database

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")

_CONFIGURATION = """\
[databases]
{name} = host={host} port={port} dbname={name}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = transaction
ignore_startup_parameters = extra_float_digits
default_pool_size = {pool_size}
max_client_conn = 200
pidfile = {directory}/pid
logfile = {directory}/log
log_connections = 0
log_disconnections = 0
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pooled(dict[str, str]):
    """A DSN for each tenant. ``restart()``: end PgBouncer and start it again."""

    restart: Callable[[], None]


@contextmanager
def pgbouncer(database: Database, slugs: Sequence[str], pool_size: int) -> Iterator[Pooled]:
    """Yield a DSN per tenant. Each has a pool of its own, as each has a login role of its own."""
    user = database.cluster.home.server_user()
    assert PROGRAM, "apt-get install pgbouncer"
    directory = Path(tempfile.mkdtemp(prefix="wardkey-bouncer-"))
    listen, roles = _free_port(), [f"tenant_{slug}" for slug in slugs]
    with database.admin() as connection:
        port = connection.info.port
        query = "select rolname, rolpassword from pg_authid where rolname = any(%s)"
        verifiers = connection.execute(query, [roles]).fetchall()
    # with SCRAM verifiers PgBouncer logs in to the server with what it learnt from the client
    (directory / "users").write_text("".join(f'"{role}" "{verifier}"\n' for role, verifier in verifiers))
    text = _CONFIGURATION.format(
        name=database.name,
        host=database.cluster.home.run,
        port=port,
        listen=listen,
        directory=directory,
        pool_size=pool_size,
    )
    (directory / "ini").write_text(text)
    command = [PROGRAM, str(directory / "ini")]
    if os.geteuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user.uid, user.gid)
        command = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--", *command]
    process = _start(command)

    def restart() -> None:
        nonlocal process
        _end(process)
        process = _start(command)
        _wait(next(iter(pooled.values())))

    try:
        known = dict(passwords(database.cluster.home.pgpass))
        pooled = Pooled(
            (
                slug,
                _wait(
                    f"host=127.0.0.1 port={listen} dbname={database.name} user={role} password={known[role]}"
                ),
            )
            for slug, role in zip(slugs, roles, strict=True)
        )
        pooled.restart = restart
        yield pooled
    finally:
        _end(process)
        shutil.rmtree(directory)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(10)


def passwords(pgpass: Path) -> Iterator[tuple[str, str]]:
    for line in pgpass.read_text().splitlines():
        *_, role, password = line.split(":")
        yield role, password


def _wait(dsn: str) -> str:
    for _ in range(100):
        try:
            psycopg.connect(dsn, prepare_threshold=None).close()
            return dsn
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError("PgBouncer does not let the tenant in")
