"""What the doctor says of scribe, slot and checkpoints, on a home whose scribe is ended and hindered."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from wardkey.doctor import Problem, Server, checks
from wardkey.embedded import Cluster, Home

ALL = {check.name: check for theme in checks().values() for check in theme}
OURS = ("scribe-exists", "scribe-at-work", "scribe-required", "scribe-room", "checkpoints-verify")


def look(cluster: Cluster) -> dict[str, tuple[Problem, ...]]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        server = Server(connection, cluster.home)
        return {name: problems for name in OURS if (problems := ALL[name].run("", server).problems)}


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Cluster:
    cluster = Cluster(new_home(), settings={"fsync": "off"})
    cluster.start()
    return cluster


def test_what_ails_the_scribe_is_named(home: Cluster) -> None:
    assert look(home) == {}
    scribe = home.scribe.process
    assert scribe and home.status().scribe_pid == scribe.pid and home.status().running
    with psycopg.connect(home.dsn(), autocommit=True) as connection:
        deadline = time.monotonic() + 15
        while connection.execute("select from ward_internal.audit_checkpoints").fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        home.scribe.stop()
        while connection.execute(
            "select from pg_replication_slots where slot_name = 'wardkey_audit' and active"
        ).fetchone():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert [problem.detail for problem in look(home)["scribe-at-work"]] == [
            "nobody reads it: nothing is sealed, and WAL is kept"
        ]
        assert not home.status().running
        connection.execute("select pg_drop_replication_slot('wardkey_audit')")
        assert "missing" in look(home)["scribe-at-work"][0].detail
        connection.execute("delete from ward_internal.settings where name = 'audit_slot'")
        (problem,) = look(home)["scribe-required"]
        home.start()
        assert home.status().running and look(home) == {}
        assert problem.fix
        connection.execute(problem.fix)
        connection.execute("alter system set max_slot_wal_keep_size = '64MB'")
        connection.execute("select pg_reload_conf()")
        time.sleep(0.5)
    assert "max_slot_wal_keep_size" in look(home)["scribe-room"][0].object
    with psycopg.connect(home.dsn(), autocommit=True) as connection:
        connection.execute("alter system reset max_slot_wal_keep_size")
        connection.execute("select pg_reload_conf()")
        connection.execute("create temporary table kept as select * from ward_internal.audit_checkpoints")
        connection.execute("delete from ward_internal.audit_checkpoints")
        (problem,) = look(home)["checkpoints-verify"]
        assert "the keeper has signed" in problem.detail and "its end was cut off" in problem.detail
        connection.execute("insert into ward_internal.audit_checkpoints table kept")
        connection.execute("update ward_internal.audit_checkpoints set signature = sha512('')")
    assert "tampered" in look(home)["checkpoints-verify"][0].detail
    home.stop()
    assert home.scribe.process is None
