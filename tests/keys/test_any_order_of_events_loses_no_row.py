"""The state machine of tests/unit, small, with the real database in place of its model of one.

Tenants write in transactions old and new, operators rotate, pause, restore and destroy, workers are stopped;
after each step every row reads as it was written, but for rows of a retired key that came back from a backup.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.database import Database
from wardkey.errors import KeyInUse, RotationRunning
from wardkey.keys import run
from wardkey.keys.orchestrator import Orchestrator
from wardkey.keys.run import Throttle

from .wards import make_ward

ROWS = 30
_LOGIN = "select ward.login(%s)"


class Wards(RuleBasedStateMachine):
    """``written``: row → name, as committed."""

    database: Database

    def __init__(self) -> None:
        super().__init__()
        self.ward = make_ward(self.database, ROWS)
        self.written = {row[0]: row[1] for row in self.ward.rows}
        self.transaction: psycopg.Connection[Any] | None = None
        self.pending: dict[int, str] = {}
        self.backup: dict[int, tuple[bytes, int]] = {}
        self.restored: set[int] = set()

    @initialize()
    def back_up(self) -> None:
        """Keep some rows as they lie on disk, under version 1."""
        rows = self.ward.query("select id, name from sealed_{slug}.patients where id <= 3")
        self.backup = dict(rows)
        self.names = {row: self.written[row] for row in self.backup}

    # the tenant

    @precondition(lambda self: self.transaction is None)
    @rule()
    def begin(self) -> None:
        self.transaction = self.database.tenant(self.ward.slug)
        self.transaction.execute("begin")
        self.transaction.execute(_LOGIN, [self.database.token(self.ward.slug)])

    @precondition(lambda self: self.transaction is not None)
    @rule(row=st.integers(4, ROWS), name=st.text("abc", min_size=1, max_size=3))
    def write_in_transaction(self, row: int, name: str) -> None:
        assert self.transaction
        self.transaction.execute("update patients set name = %s where id = %s", [name, row])
        self.pending[row] = name

    @precondition(lambda self: self.transaction is not None)
    @rule(commits=st.booleans())
    def end(self, commits: bool) -> None:
        assert self.transaction
        self.transaction.execute("commit" if commits else "rollback")
        self.transaction.close()
        if commits:
            self.written |= self.pending
        self.transaction, self.pending = None, {}

    @rule(row=st.integers(4, ROWS), name=st.text("xyz", min_size=1, max_size=3))
    def write(self, row: int, name: str) -> None:
        if row not in self.pending:
            with self.ward.tenant() as connection:
                connection.execute("update patients set name = %s where id = %s", [name, row])
            self.written[row] = name

    # operators

    @rule(incident=st.booleans())
    def rotate(self, incident: bool) -> None:
        with may_be_refused("WK213"):
            self.ward.rotate(incident=incident)

    @rule(paused=st.booleans())
    def pause_or_resume(self, paused: bool) -> None:
        with may_be_refused("WK204"):
            self.ward.query(f"select ward.pause_rotation('{{slug}}', {paused})")

    @precondition(lambda self: self.ward.states()[1] != "destroyed")
    @rule(row=st.integers(1, 3))
    def restore(self, row: int) -> None:
        self.ward.query(
            "update sealed_{slug}.patients set name = %s where id = %s returning id",
            self.backup[row],
            row,
        )
        self.written[row] = self.names[row]
        if self.ward.states()[1] == "retired":
            self.restored.add(row)

    @precondition(lambda self: self.ward.states()[1] == "retired")
    @rule()
    def readmit(self) -> None:
        self.ward.query("select ward.readmit_key('{slug}', 1, 'rows were restored')")
        self.restored.clear()

    @rule()
    def retire(self) -> None:
        """Without the worker's caution."""
        with may_be_refused("WK214"):
            self.ward.query("select ward.retire_keys('{slug}')")

    @rule(version=st.sampled_from([1, 1, 2, 3]))
    def destroy(self, version: int) -> None:
        home = self.database.cluster.home
        with Orchestrator(self.database.admin, home.orchestrator, threading.Event()) as orchestrator:
            (tenant,) = orchestrator.tenants([self.ward.slug])
            if self.ward.states().get(version) == "retired":
                with suppress(KeyInUse):
                    orchestrator.destroy(tenant, version, now=True)

    # the worker

    @rule(batches=st.integers(1, 3))
    def work(self, batches: int) -> None:
        """Reseal a few batches, then die."""
        seen: list[object] = []
        stop = threading.Event()

        def watch(progress: object) -> None:
            seen.append(progress)
            if len(seen) >= batches:
                stop.set()

        with self.database.admin() as connection, suppress(RotationRunning):
            run.reseal(connection, self.ward.slug, Throttle(share=1.0), stop, patience=0, watch=watch)

    @rule()
    def work_to_the_end(self) -> None:
        self.ward.reseal(patience=0.3)

    # what must hold

    @invariant()
    def every_row_reads_as_it_was_written(self) -> None:
        lost = sorted(self.restored) if self.ward.states()[1] == "retired" else []
        with self.ward.tenant() as connection:
            query = "select id, name from patients where id <> all (%s) order by id"
            rows = dict(connection.execute(query, [lost]).fetchall())
        assert rows == {row: name for row, name in self.written.items() if row not in lost}

    def teardown(self) -> None:
        if self.transaction:
            self.end(False)
        if self.ward.states()[1] == "retired":
            self.readmit()
        with may_be_refused("WK204"):
            self.ward.query("select ward.pause_rotation('{slug}', false)")
        assert self.ward.reseal().state == "finished"
        self.every_row_reads_as_it_was_written()
        (active,) = [version for version, state in self.ward.states().items() if state == "active"]
        assert list(self.ward.counts()) == [active]


@contextmanager
def may_be_refused(sqlstate: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        assert error.sqlstate == sqlstate


def _machine(database: Database) -> type[Wards]:
    return type("Machine", (Wards,), {"database": database})


def test_any_order_of_events_loses_no_row(database: Database) -> None:
    few = settings(
        max_examples=int(os.environ.get("WARDKEY_TEST_EXAMPLES", "8")),
        stateful_step_count=15,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(_machine(database), settings=few)


def test_key_destroyed_without_a_look_at_the_rows_loses_some(database: Database) -> None:
    """The invariant can fail: with this weakened function, and these steps of the machine, it does."""
    with database.admin() as connection:
        connection.execute(
            "create or replace function ward_internal.check_unused"
            " (p_tenant ward_internal.tenants, p_versions integer[]) returns integer[]"
            " language sql as 'select p_versions'"
        )
    machine = _machine(database)()
    machine.back_up()
    machine.rotate(incident=False)
    machine.work_to_the_end()
    machine.restore(row=1)
    machine.destroy(version=1)
    with pytest.raises(psycopg.Error):
        machine.every_row_reads_as_it_was_written()
