"""Whatever happens in whatever order, every row stays readable and no destroyed key is needed.

``World`` is what the database promises (what the functions in SQL do, in a few lines each);
hypothesis lets tenants write, operators rotate, pause, restore and destroy, and processes die, and lets the
worker do what ``next_step`` says. A world that keeps one promise less must lose a row: that is tested too.
"""

from __future__ import annotations

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

from wardkey.keys import rotation
from wardkey.keys.rotation import Batch, Facts, Position

TABLES = ("patients", "visits")
ROWS = 6
BATCH = 2


class Transaction:
    """Of the tenant: it seals under the version that was active when it began."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.rows: dict[tuple[str, int], int] = {}


class World:
    """``rows``: (table, row) → version it is sealed under, as committed. A row's number is its block, too."""

    waits_for_older = True
    counts_before_retiring = True
    counts_before_destroying = True

    def __init__(self) -> None:
        self.states = {1: "active"}
        self.rows: dict[tuple[str, int], int] = {}
        self.fences: dict[int, list[Transaction]] = {}
        self.paused = False
        self.transactions: list[Transaction] = []

    @property
    def active(self) -> int:
        return next(version for version, state in self.states.items() if state == "active")

    def facts(self) -> Facts:
        return Facts(dict(self.states), TABLES, self.is_fenced, self.paused, len(self.older()))

    @property
    def is_fenced(self) -> bool:
        return all(version in self.fences for version in self.versions("decrypt-only"))

    def versions(self, state: str) -> list[int]:
        return [version for version, current in self.states.items() if current == state]

    def older(self) -> list[Transaction]:
        if not self.waits_for_older:
            return []
        noted = [noted for version in self.versions("decrypt-only") for noted in self.fences.get(version, ())]
        return [transaction for transaction in self.transactions if transaction in noted]

    def rotate(self) -> None:
        self.states[self.active] = "decrypt-only"
        self.states[max(self.states) + 1] = "active"

    def fence(self) -> None:
        for version in self.versions("decrypt-only"):
            self.fences.setdefault(version, list(self.transactions))

    def reseal(self, table: str, block: int) -> Batch:
        held = moved = 0
        for row in range(block, block + BATCH):
            if self.rows.get((table, row), self.active) == self.active:
                continue
            if any((table, row) in transaction.rows for transaction in self.transactions):
                held += 1
            else:
                self.rows[table, row] = self.active
                moved += 1
        return Batch(moved, held=held, next_block=block + BATCH if block + BATCH < ROWS else None)

    def retire(self) -> bool:
        """Retire what can be; False when something cannot."""
        if not self.is_fenced or self.older():
            return False
        for version in self.versions("decrypt-only"):
            if not self.is_needed(version, self.counts_before_retiring):
                self.states[version] = "retired"
        return "decrypt-only" not in self.states.values()

    def readmit(self, version: int) -> None:
        self.states[version] = "decrypt-only"
        self.fences.pop(version, None)

    def destroy(self, version: int) -> bool:
        if self.states[version] == "retired" and not self.is_needed(version, self.counts_before_destroying):
            self.states[version] = "destroyed"
        return self.states[version] == "destroyed"

    def is_needed(self, version: int, looked: bool = True) -> bool:
        return looked and version in self.rows.values()


class Rotations(RuleBasedStateMachine):
    """Tenants, operators and the worker, in any order; ``World`` is the database."""

    world_class: type[World] = World

    def __init__(self) -> None:
        super().__init__()
        self.world = self.world_class()
        self.position = Position()
        self.restored: dict[tuple[str, int], int] = {}
        self.backups: list[dict[tuple[str, int], int]] = []

    @initialize()
    def fill(self) -> None:
        self.world.rows = {(table, row): 1 for table in TABLES for row in range(ROWS)}

    # the tenant

    @precondition(lambda self: len(self.world.transactions) < 3)
    @rule()
    def begin(self) -> None:
        self.world.transactions.append(Transaction(self.world.active))

    @precondition(lambda self: self.world.transactions)
    @rule(data=st.data(), table=st.sampled_from(TABLES), row=st.integers(0, ROWS - 1))
    def write(self, data: st.DataObject, table: str, row: int) -> None:
        transaction = data.draw(st.sampled_from(self.world.transactions))
        if not any((table, row) in other.rows for other in self.world.transactions):  # a row lock
            transaction.rows[table, row] = transaction.version

    @precondition(lambda self: self.world.transactions)
    @rule(data=st.data(), commits=st.booleans())
    def end(self, data: st.DataObject, commits: bool) -> None:
        transaction = data.draw(st.sampled_from(self.world.transactions))
        self.world.transactions.remove(transaction)
        if commits:
            self.world.rows |= transaction.rows

    @precondition(lambda self: self.world.transactions)
    @rule(data=st.data(), table=st.sampled_from(TABLES), row=st.integers(0, ROWS - 1))
    def write_and_commit(self, data: st.DataObject, table: str, row: int) -> None:
        self.write(data, table, row)
        self.end(data, True)

    # operators

    @precondition(lambda self: "decrypt-only" not in self.world.states.values())
    @rule()
    def rotate(self) -> None:
        self.world.rotate()

    @precondition(lambda self: len(self.world.states) < 8)
    @rule()
    def rotate_for_an_incident(self) -> None:
        self.world.rotate()

    @rule(paused=st.sampled_from([False, False, True]))
    def pause_or_resume(self, paused: bool) -> None:
        self.world.paused = paused

    @precondition(lambda self: len(self.backups) < 2)
    @rule()
    def back_up(self) -> None:
        self.backups.append(dict(self.world.rows))

    @precondition(lambda self: self.backups)
    @rule(data=st.data())
    def restore_one_row(self, data: st.DataObject) -> None:
        """A DBA puts an old row back; not under a destroyed key, which is what destroying is for."""
        backup = data.draw(st.sampled_from(self.backups))
        place = data.draw(st.sampled_from(sorted(backup)))
        if self.world.states[backup[place]] != "destroyed":
            self.world.rows[place] = backup[place]
            self.restored[place] = backup[place]

    @precondition(lambda self: "retired" in self.world.states.values())
    @rule(data=st.data())
    def readmit(self, data: st.DataObject) -> None:
        self.world.readmit(data.draw(st.sampled_from(self.world.versions("retired"))))

    @precondition(lambda self: "retired" in self.world.states.values())
    @rule(data=st.data())
    def destroy(self, data: st.DataObject) -> None:
        self.world.destroy(data.draw(st.sampled_from(self.world.versions("retired"))))

    # the worker

    @rule(steps=st.sampled_from([1, 2, 5, 20]))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    @rule()
    def crash(self) -> None:
        self.position = Position()

    def step(self) -> rotation.Step:
        step = rotation.next_step(self.world.facts(), self.position)
        match step:
            case rotation.Fence():
                self.world.fence()
                self.position = self.position.another_pass()
            case rotation.Reseal(table, block):
                self.position = self.position.after_batch(table, self.world.reseal(table, block))
            case rotation.Wait():
                self.position = self.position.after_wait()
            case rotation.Retire():
                if not self.world.retire():
                    self.position = self.position.after_wait().another_pass()
            case rotation.Finished():
                self.position = Position()
        return step

    # what must hold

    @invariant()
    def every_row_is_readable(self) -> None:
        for place, version in self.world.rows.items():
            state = self.world.states[version]
            waits_to_be_readmitted = state == "retired" and self.restored.get(place) == version
            assert state in ("active", "decrypt-only") or waits_to_be_readmitted, (
                f"a row is under version {version}, which is {state}"
            )

    def teardown(self) -> None:
        """When the tenant's transactions end and nobody pauses it, the worker comes to an end."""
        self.world.transactions.clear()
        self.world.paused = False
        for version in self.world.versions("retired"):
            if self.world.is_needed(version):
                self.world.readmit(version)
        for _ in range(100):
            if isinstance(self.step(), rotation.Finished):
                break
        else:
            raise AssertionError("the worker comes to no end")
        self.every_row_is_readable()
        old = set(self.world.rows.values()) - {self.world.active}
        assert not old, f"a row is under version {old} when the rotation is over"


def _run(world: type[World], examples: int) -> None:
    machine = type("Machine", (Rotations,), {"world_class": world})
    quick = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
        phases=[Phase.generate],
    )
    run_state_machine_as_test(machine, settings=quick)


def test_every_row_stays_readable_in_any_order_of_events():
    _run(World, 400)


@pytest.mark.parametrize("promise", ["waits_for_older", "counts_before_retiring", "counts_before_destroying"])
def test_a_world_that_keeps_one_promise_less_loses_rows(promise):
    with pytest.raises(AssertionError, match="a row is under version"):
        _run(type("WeakWorld", (World,), {promise: False}), 2000)
