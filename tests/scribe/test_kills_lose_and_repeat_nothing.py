"""kill -9 of scribe, keeper and PostgreSQL under load: each entry is sealed once, in the order of the WAL."""

from __future__ import annotations

import random
import threading
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.scribe.scribes import (
    Scribe,
    emit,
    flush,
    kill_server,
    new_tenant,
    read,
    sealed_ids,
    verified,
    wait_for,
    wait_sealed,
    wait_signed,
    write,
)
from wardkey.embedded import Cluster

_KEPT = {"fsync": "off", "autovacuum": "off"}  # of a kill, not of a power cut; commits are not lost


class Load(threading.Thread):
    """Journals reads and writes entries, of some of which the transaction is rolled back.

    ``reads`` and ``writes`` are to be in the log; ``unsure``: what a kill came between.
    """

    def __init__(self, scribe: Scribe, tenant: UUID, first: int) -> None:
        super().__init__(daemon=True)
        self._scribe, self._tenant, self._number = scribe, tenant, first
        self.reads: list[int] = []
        self.unsure: set[int] = set()
        self.writes: list[int] = []
        self.running = True

    def run(self) -> None:
        while self.running:
            try:
                with self._scribe.database.admin() as connection:
                    connection.execute("set synchronous_commit = on")
                    while self.running:
                        self._work(connection)
            except psycopg.Error:
                time.sleep(0.05)

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        numbers = range(self._number, self._number + random.randrange(1, 30))
        self._number = numbers.stop
        self.unsure.update(numbers)
        emit(connection, *(read(self._tenant, number) for number in numbers))
        self.unsure.difference_update(numbers)
        self.reads += numbers
        self.writes += write(connection, self._tenant, random.randrange(1, 20))
        with connection.transaction(force_rollback=True):
            number = self._number
            self._number += 1
            self.unsure.add(number)
            write(connection, self._tenant, 3)
            emit_open(connection, read(self._tenant, number))
        flush(connection)
        self.unsure.discard(number)
        self.reads.append(number)


def emit_open(connection: psycopg.Connection[Any], message: bytes) -> None:
    connection.execute("select pg_logical_emit_message(false, 'wardkey', %s)", [message])


def journalled(connection: psycopg.Connection[Any], tenant: UUID) -> dict[int, int]:
    """Return the row that was read, by the entry's id."""
    rows = connection.execute(
        "select id, row_id::bigint from ward_internal.audit_log where tenant_id = %s and journalled", [tenant]
    ).fetchall()
    return dict(rows)


def check(scribe: Scribe, tenant: UUID, load: Load) -> None:
    """Compare log and load."""
    with scribe.database.admin() as connection:
        stored = connection.execute(
            "select id from ward_internal.audit_log where tenant_id = %s and not journalled", [tenant]
        ).fetchall()
        rows = {id_ for (id_,) in stored}
        assert rows >= set(load.writes)
        order, read_of = sealed_ids(connection, tenant), journalled(connection, tenant)
        assert len(order) == len(set(order)), "an entry has two places"
        assert set(order) == rows | set(read_of)
        read_order = [read_of[id_] for id_ in order if id_ in read_of]
        assert read_order == sorted(set(read_order)), "a read twice, or out of order"
        assert set(load.reads) <= set(read_order) <= set(load.reads) | load.unsure
        written_order = [id_ for id_ in order if id_ not in read_of]
        assert written_order == sorted(written_order), "writes of one session out of order"
    report = verified(scribe.database, tenant)
    assert report.ok, report
    assert report.unsealed == 0 and report.entries == len(order)


def begin(scribe: Scribe) -> None:
    """Start the scribe, and wait until it has a slot: it keeps what is journalled from then on."""
    scribe.start()
    with scribe.database.admin() as connection:
        wait_for(connection, 1, "select count(*) from ward_internal.scribe_state", seconds=60)


def settle(scribe: Scribe, tenant: UUID) -> None:
    """Wait until all that is in the WAL now is sealed, then stop."""
    with scribe.database.admin() as connection:
        flush(connection)
        end = connection.execute("select pg_current_wal_flush_lsn()").fetchone()
        marker = read(tenant, 10**15)
        emit(connection, marker)
        deadline = time.monotonic() + 90
        query = (
            "select exists (select from ward_internal.audit_log where tenant_id = %s and row_id = %s),"
            " (select lsn from ward_internal.scribe_state)"
        )
        while not (row := connection.execute(query, [tenant, str(10**15)]).fetchone())[0]:
            assert time.monotonic() < deadline, (row, end)
            time.sleep(0.1)
    assert scribe.stop() == 0


@pytest.mark.parametrize("what", ["scribe", "keeper"])
def test_processes_are_killed_at_any_point(scribe: Scribe, what: str) -> None:
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
    load = Load(scribe, tenant, 1)
    begin(scribe)
    load.start()
    for _ in range(12):
        time.sleep(random.uniform(0.05, 1.5))
        if what == "scribe":
            scribe.kill()
            scribe.start()
        else:
            scribe.keeper.process.kill()  # type: ignore[union-attr]
            scribe.keeper.process.wait()  # type: ignore[union-attr]
            time.sleep(random.uniform(0, 0.5))
            scribe.keeper.start()
    load.running = False
    load.join()
    load.reads.append(10**15)
    settle(scribe, tenant)
    check(scribe, tenant, load)


def test_postgresql_is_killed_at_any_point(scribe: Scribe) -> None:
    cluster = Cluster(scribe.database.cluster.home, settings=_KEPT)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        flush(connection)
        connection.execute("checkpoint")
    load = Load(scribe, tenant, 1)
    begin(scribe)
    load.start()
    for _ in range(4):
        time.sleep(random.uniform(0.3, 1.5))
        kill_server(scribe.database)
        cluster.start()
    load.running = False
    load.join()
    load.reads.append(10**15)
    settle(scribe, tenant)
    check(scribe, tenant, load)


def test_a_checkpoint_that_was_asked_for_before_the_kill_is_the_one_that_is_stored(scribe: Scribe) -> None:
    """The keeper signs and the scribe dies before it has stored that: the next asks for the same again."""
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        scribe.keeper.stop()
        scribe.start()
        write(connection, tenant, 3)
        wait_sealed(connection, tenant, 3)
        for size in range(4, 8):
            scribe.keeper.start()
            time.sleep(random.uniform(0.0, 2.2))
            scribe.kill()
            scribe.keeper.stop()
            scribe.start()
            write(connection, tenant)
            wait_sealed(connection, tenant, size)
        scribe.keeper.start()
        time.sleep(3)
        assert scribe.stop() == 0
        wait_signed(connection, tenant, 7)
    assert verified(scribe.database, tenant).ok
