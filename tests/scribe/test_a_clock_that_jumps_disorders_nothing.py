"""A clock is set back by an hour while all are at work: it is told, and the log stays one in its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.scribe.scribes import PLATFORM, Scribe, new_tenant, sealed_ids, verified, wait_signed, write
from tests.support.clocks import Clock
from tests.support.database import Connection, Database
from wardkey.embedded import Cluster, Home, postgres

HOUR = 3600


def told(connection: Connection) -> list[dict[str, Any]]:
    """Wait for the event, and return what was told."""
    deadline = time.monotonic() + 30
    query = (
        "select detail from ward_internal.audit_log where tenant_id = %s and operation = 'clock_set_back'"
        " and id = any (%s)"
    )
    while not (rows := connection.execute(query, [PLATFORM, sealed_ids(connection, PLATFORM)]).fetchall()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [detail for (detail,) in rows]


def jump(connection: Connection, clock: Clock, tenant: UUID, whose: str) -> int:
    """Write and seal, set the clock back, write and seal again; return how many checkpoints there are."""
    size = seal(connection, tenant, 1, 0)
    deadline = time.monotonic() + 30
    query = "select from ward_internal.audit_checkpoints where tenant_id = %s and checkpoint ~ 'settled'"
    while connection.execute(query, [tenant]).fetchone() is None:  # the scribe looks every other second
        assert time.monotonic() < deadline
        time.sleep(0.3)
        size = seal(connection, tenant, 1, size)
    clock.set(-HOUR)
    (detail,) = told(connection)
    assert detail["of"] == whose and abs(detail["seconds"] - HOUR) < 60
    deadline = time.monotonic() + 30
    late = "select clock_timestamp() > to_timestamp(%s)"  # our backend looks at its clock's file by itself
    while whose == "server" and connection.execute(late, [time.time() - HOUR / 2]).fetchone() == (True,):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return seal(connection, tenant, 2, size) - 1


def seal(connection: Connection, tenant: UUID, count: int, size: int) -> int:
    """Write entries, have them signed at once, and return how many there are."""
    write(connection, tenant, count)
    connection.execute("select pg_notify('wardkey_checkpoint', %s)", [str(tenant)])
    wait_signed(connection, tenant, size + count)
    return size + count


def test_the_scribes(scribe: Scribe, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(scribe.keeper.base)
    with monkeypatch.context() as patched:
        for name, value in clock.environment.items():
            patched.setenv(name, value)
        scribe.start()
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        checkpoints = jump(connection, clock, tenant, "scribe")
        assert scribe.stop() == 0
    report = verified(scribe.database, tenant)
    assert report.ok and report.checkpoints == checkpoints and report.ahead == report.backdated == 0, report


def test_the_servers(new_home: Callable[[], Home], monkeypatch: pytest.MonkeyPatch) -> None:
    home = new_home()
    clock = Clock(home.path.parent)
    run = postgres.run

    def run_with_clock(arguments: Sequence[str], what: str, **options: Any) -> str:
        if what == "pg_ctl":  # as its own user: the library shares memory with the processes it starts
            arguments = ["env", *(f"{name}={value}" for name, value in clock.environment.items()), *arguments]
        return run(arguments, what, **options)

    monkeypatch.setattr(postgres, "run", run_with_clock)
    cluster = Cluster(home, settings={"fsync": "off"})
    cluster.start()
    try:
        with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
            tenant = new_tenant(connection)
            checkpoints = jump(connection, clock, tenant, "server")
            name = connection.info.dbname
        report = verified(Database(cluster, name), tenant)
        assert report.ok and report.checkpoints == checkpoints and report.ahead == 0, report
        assert report.backdated == 2, "who reads the log sees that those tell of an earlier time"
    finally:
        cluster.stop()
