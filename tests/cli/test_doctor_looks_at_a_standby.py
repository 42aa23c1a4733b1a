"""On a hot standby the doctor reads, finds what is wrong, and says what only the primary shows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.support.homes import make_directory, throw_away
from wardkey.daemon.programs import clean_environment, run
from wardkey.embedded import Cluster


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        yield database


@pytest.fixture(scope="module")
def standby(database: Database) -> Iterator[Path]:
    """The socket directory of a standby of the whole cluster, made after the database."""
    home, bindir = database.cluster.home, Path(database.cluster.software.bindir)
    config, user, directory = home.config(), home.server_user(), make_directory()
    assert config is not None
    data = directory / "data"
    data.mkdir(mode=0o700)
    os.chown(data, user.uid, user.gid)
    environment = clean_environment(PYTHONPATH=str(home.python), PYTHONNOUSERSITE="1")

    def call(*arguments: str) -> None:
        run(arguments, arguments[0], user=user, environment=environment)

    source = ("--host", str(home.run), "--port", str(config.port), "--username", "postgres")
    backup = ("--pgdata", str(data), "--write-recovery-conf", "--checkpoint", "fast")
    call(str(bindir / "pg_basebackup"), *backup, *source)
    options = f"-c listen_addresses= -c unix_socket_directories={data} -c port={config.port}"
    pg_ctl = (str(bindir / "pg_ctl"), "--pgdata", str(data))
    call(*pg_ctl, "start", "--wait", "--options", options, "--log", str(data / "log"))
    yield data
    call(*pg_ctl, "stop", "--wait", "--mode", "fast")
    throw_away(directory)


@pytest.fixture
def dsn(database: Database, standby: Path) -> str:
    config = database.cluster.home.config()
    assert config is not None
    return f"host={standby} port={config.port} dbname={database.name} user=postgres"


def test_doctor_only_reads_on_a_standby(database: Database, dsn: str) -> None:
    wardkey = Wardkey(database.cluster.home.path)
    done = wardkey("--json", "doctor", "--dsn", dsn)
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert {finding["outcome"] for finding in findings.values()} <= {"ok", "info"}
    assert findings["functions-unchanged"]["outcome"] == findings["requirements"]["outcome"] == "ok"
    (problem,) = findings["wards-unchanged"]["problems"]
    assert problem["object"] == "this standby"


def test_what_is_wrong_is_found_on_a_standby(database: Database, dsn: str) -> None:
    with database.admin() as primary:
        primary.execute("alter function ward.logout() stable")
        row = primary.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    wardkey = Wardkey(database.cluster.home.path)
    with psycopg.connect(dsn, autocommit=True) as replica:
        waiting = "select pg_last_wal_replay_lsn() < %s::text::pg_lsn"
        while replica.execute(waiting, row).fetchone() == (True,):
            time.sleep(0.1)
    done = wardkey("--json", "doctor", "--dsn", dsn, code=4)
    (failed,) = [finding["check"] for finding in json.loads(done.stdout) if finding["outcome"] == "fail"]
    assert failed == "functions-unchanged"
