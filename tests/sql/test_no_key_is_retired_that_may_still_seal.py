"""A transaction from before a rotation may seal under the previous key: it is not retired before its end.

Each guard is also taken away once, and then a row is lost for as long as the key is not readmitted.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.conftest import _FAST
from tests.support.database import Connection, Database, clone, make_template
from tests.support.homes import make_directory, throw_away
from tests.support.rotations import reseal, retire, rotate, states, versions
from tests.support.sqlstate import refused
from wardkey.embedded import Cluster, Home

_WRITE = "insert into patients (name) values ('late')"
_NO_FENCE = """
    create or replace function ward_internal.check_older_transactions(p_tenant uuid) returns void
    language sql as ''"""
_NO_BARRIER = (
    "create or replace function ward_internal.pass_writers(p_leaf text) returns void language sql as ''"
)


def _begin(database: Database, isolation: str = "read committed") -> Connection:
    """Log in for one transaction, which stays open and has not written anything."""
    connection = database.tenant("acme")
    connection.execute(f"begin isolation level {isolation}")
    connection.execute("select ward.login(%s)", [database.token("acme")])
    return connection


def _names(database: Database) -> list[str]:
    with database.tenant("acme", role="ADMIN") as ward:
        return [name for (name,) in ward.execute("select name from patients").fetchall()]


def _ends_well(database: Database, admin: Connection) -> None:
    """What was written late is resealed, and only then is the key retired."""
    with refused("WK214") as because:
        retire(admin)
    assert "sealed under version 1" in str(because.value)
    reseal(admin)
    assert retire(admin) == [1]
    assert _names(database) == ["late"]


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_a_transaction_that_has_not_written_yet(
    database: Database, postgresql: Connection, isolation: str
) -> None:
    with _begin(database, isolation) as late:
        rotate(postgresql)
        reseal(postgresql)
        with refused("WK214") as because:
            retire(postgresql)
        assert str(late.info.backend_pid) in str(because.value)
        late.execute(_WRITE)
        late.execute("commit")
    _ends_well(database, postgresql)


def test_the_same_without_the_guard_loses_the_row(database: Database, postgresql: Connection) -> None:
    postgresql.execute(_NO_FENCE)
    with _begin(database) as late:
        rotate(postgresql)
        reseal(postgresql)
        assert retire(postgresql) == [1]
        late.execute(_WRITE)
        late.execute("commit")
    with refused("WK104"):
        _names(database)
    postgresql.execute("select ward.readmit_key('acme', 1, 'a row came late')")
    assert _names(database) == ["late"]
    reseal(postgresql)
    assert set(versions(postgresql)) == {2}


def test_a_transaction_that_pg_stat_activity_does_not_show(
    database: Database, postgresql: Connection
) -> None:
    postgresql.execute(f"alter role tenant_acme in database {database.name} set track_activities = off")
    try:
        with _begin(database) as late:
            row = postgresql.execute(
                "select xact_start from pg_stat_activity where pid = %s", [late.info.backend_pid]
            ).fetchone()
            assert row == (None,)
            rotate(postgresql)
            reseal(postgresql)
            with refused("WK214"):
                retire(postgresql)
            late.execute(_WRITE)
            late.execute("commit")
        _ends_well(database, postgresql)
    finally:
        postgresql.execute(f"alter role tenant_acme in database {database.name} reset track_activities")


def test_a_superuser_in_the_tenants_shoes(database: Database, postgresql: Connection) -> None:
    with database.admin() as late:
        late.execute("set session authorization tenant_acme; set search_path = tenant_acme, ward")
        late.execute("begin")
        late.execute("select ward.login(%s)", [database.token("acme")])
        rotate(postgresql)
        reseal(postgresql)
        with refused("WK214"):
            retire(postgresql)
        late.execute(_WRITE)
        late.execute("commit")
    _ends_well(database, postgresql)


def test_a_login_undone_by_a_savepoint(database: Database, postgresql: Connection) -> None:
    """Its locks are gone, its context is not."""
    with database.tenant("acme") as late:
        late.execute("begin; savepoint one")
        late.execute("select ward.login(%s)", [database.token("acme")])
        late.execute("rollback to one")
        rotate(postgresql)
        reseal(postgresql)
        with refused("WK214"):
            retire(postgresql)
        late.execute(_WRITE)
        late.execute("commit")
    _ends_well(database, postgresql)


def test_a_lasting_session_seals_under_the_new_key_from_its_next_transaction_on(
    database: Database, postgresql: Connection
) -> None:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute("select count(*) from patients")
        rotate(postgresql)
        reseal(postgresql)
        ward.execute(_WRITE)
        assert set(versions(postgresql)) == {2}
        assert retire(postgresql) == [1]


def test_other_tenants_and_new_transactions_hold_nothing_up(
    database: Database, postgresql: Connection
) -> None:
    with database.tenant("globex") as other:
        other.execute("begin")
        other.execute("select ward.login(%s)", [database.token("globex")])
        rotate(postgresql)
        reseal(postgresql)
        with _begin(database) as new:
            new.execute(_WRITE)
            with refused("WK214") as because:  # it has not ended, and might have restored old rows
                retire(postgresql)
            assert "wrote" in str(because.value)
            new.execute("commit")
        assert retire(postgresql) == [1]


def test_rows_that_are_being_restored(database: Database, postgresql: Connection) -> None:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(_WRITE)
    kept = postgresql.execute("select * from sealed_acme.patients").fetchone()
    assert kept
    rotate(postgresql)
    reseal(postgresql)
    restore = f"insert into sealed_acme.patients values ({', '.join(['%s'] * len(kept))})"
    with database.admin() as loader:
        loader.execute("begin")
        loader.execute("delete from sealed_acme.patients")
        loader.execute(restore, kept)
        with refused("WK214"):
            retire(postgresql)
        loader.execute("rollback; begin")
        postgresql.execute(_NO_BARRIER)
        loader.execute("delete from sealed_acme.patients")
        loader.execute(restore, kept)
        assert retire(postgresql) == [1]
        loader.execute("commit")
    with refused("WK104"):
        _names(database)


def test_a_ward_that_is_away(database: Database, postgresql: Connection) -> None:
    rotate(postgresql)
    reseal(postgresql)
    with database.admin(autocommit=False) as admin:
        admin.execute("drop table sealed_acme.patients cascade")
        with refused("WK214"):
            retire(admin)


def test_nothing_is_retired_in_the_transaction_that_rotates(
    database: Database, postgresql: Connection
) -> None:
    with database.admin(autocommit=False) as admin:
        rotate(admin)
        with refused("WK214"):
            retire(admin)
    with database.admin(autocommit=False) as admin:
        rotate(admin)
        with refused("WK214"):
            reseal(admin)


def test_what_is_counted_is_not_an_old_snapshot(database: Database, postgresql: Connection) -> None:
    rotate(postgresql)
    reseal(postgresql)
    with database.admin() as admin:
        admin.execute("begin isolation level repeatable read")
        with refused("WK209"):
            retire(admin)


def test_a_retired_key_is_kept_for_its_grace_and_for_readers_with_it(
    database: Database, postgresql: Connection
) -> None:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(_WRITE)
    rotate(postgresql)
    postgresql.execute("select ward_internal.reseal('acme', null, 0, 0)")
    with database.tenant("acme") as reader:
        reader.execute("begin isolation level repeatable read; select 1")  # sees the row as it was
        reseal(postgresql)
        assert retire(postgresql) == [1]
        with refused("WK214"):
            postgresql.execute("select ward.destroy_key('acme', 1)")
        with refused("WK214") as because:
            postgresql.execute("select ward.destroy_key('acme', 1, p_now => true)")
        assert str(reader.info.backend_pid) in str(because.value)
        reader.execute("select ward.login(%s)", [database.token("acme")])
        assert reader.execute("select name from patients").fetchall() == [("late",)]
        reader.execute("commit")
    postgresql.execute("select ward.destroy_key('acme', 1, p_now => true)")
    assert states(postgresql) == {1: "destroyed", 2: "active"}
    row = postgresql.execute(
        "select wrapped is null, commitment is not null from ward_internal.tenant_keys"
        " where state = 'destroyed'"
    ).fetchone()
    assert row == (True, True)
    with refused("WK214"):
        postgresql.execute("select ward.destroy_key('acme', 2, p_now => true)")
    with refused("WK204"):
        postgresql.execute("select ward.readmit_key('acme', 1, 'too late')")


@pytest.fixture(scope="module")
def preparing(cluster: Cluster) -> Iterator[Database]:
    """A server of this file's own, which takes prepared transactions and may crash."""
    directory = make_directory(cluster.home.python)
    own = Cluster(Home(directory / "home"), settings={**_FAST, "max_prepared_transactions": "5"})
    own.start()
    with clone(own, make_template(own)) as database:
        with database.admin() as admin:
            # PostgreSQL 15 sets a sequence back whose page CREATE DATABASE copied, when it crashes before one
            admin.execute("checkpoint")
        yield database
    throw_away(directory)


def _late_rows(database: Database) -> int:
    return _names(database).count("late")


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_prepared_transaction(preparing: Database, when: str) -> None:
    """Prepared before resealing begins, or after it noted who runs."""
    had = _late_rows(preparing)
    with preparing.admin() as admin, _begin(preparing) as late:
        late.execute(_WRITE)
        if when == "before":
            late.execute("prepare transaction 'mine'")
        rotate(admin)
        reseal(admin)
        if when == "after":
            late.execute("prepare transaction 'mine'")
        with refused("WK214") as because:
            retire(admin)
        assert "'mine'" in str(because.value)
        late.execute("commit prepared 'mine'")
        with refused("WK214"):
            retire(admin)
        reseal(admin)
        assert retire(admin) != []
    assert _late_rows(preparing) == had + 1


def test_a_prepared_transaction_would_be_lost_without_the_guards(preparing: Database) -> None:
    with preparing.admin() as admin, _begin(preparing) as late:
        old = [version for version, state in states(admin).items() if state == "active"]
        late.execute(_WRITE)
        late.execute("prepare transaction 'mine'")
        with preparing.admin(autocommit=False) as weak:
            rotate(admin)
            reseal(admin)
            weak.execute(_NO_FENCE)
            weak.execute(_NO_BARRIER)
            assert retire(weak) == old
            weak.rollback()
        late.execute("commit prepared 'mine'")
        assert versions(admin)[old[0]] > 0  # what would have been lost
        reseal(admin)
        assert retire(admin) == old


def test_a_backend_killed_in_the_middle(preparing: Database) -> None:
    """Cancelled, then killed, while its batch waits for the keeper: of that batch nothing is there."""
    with preparing.tenant("acme", role="ADMIN") as ward:
        ward.execute(
            "insert into patients (name, ssn) select 'n' || n, 's' || n from generate_series(1, 2000) as n"
        )
        before = ward.execute("select * from patients order by id").fetchall()
    with preparing.admin() as admin:
        rotate(admin)
        row = admin.execute("select id from ward.models").fetchone()
        assert row
        moved = admin.execute("select fields from ward_internal.reseal('acme', %s, 0, 4)", row).fetchone()
        counted = versions(admin)
    keeper, watcher = preparing.cluster.keeper.process, preparing.admin()
    assert keeper and moved and moved[0] > 0
    for number in (signal.SIGINT, signal.SIGKILL):
        os.kill(keeper.pid, signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.Error) as failed, preparing.admin() as worker:
                pid = worker.info.backend_pid
                timer = threading.Timer(0.3, os.kill, [pid, number])
                timer.start()
                began = time.monotonic()
                reseal(worker)
            assert time.monotonic() - began < 10
            assert (failed.value.sqlstate == "57014") == (number == signal.SIGINT)
        finally:
            os.kill(keeper.pid, signal.SIGCONT)
    with pytest.raises(psycopg.OperationalError):
        while True:  # the server ends all connections, and recovers
            watcher.execute("select pg_sleep(0.05)")
    for _ in range(600):
        try:
            preparing.admin().close()
            break
        except psycopg.OperationalError:
            time.sleep(0.1)
    with preparing.admin() as admin, preparing.tenant("acme", role="ADMIN") as ward:
        assert versions(admin) == counted
        assert ward.execute("select * from patients order by id").fetchall() == before
        reseal(admin)
        assert len(versions(admin)) == 1
        retire(admin)
        assert ward.execute("select * from patients order by id").fetchall() == before
