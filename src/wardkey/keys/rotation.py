"""What the worker of a rotation does next. Pure: facts in, a step out.

``ward.rotate_key`` has made the new version already; what is left is to move every row to it and to retire
the old ones::

    fence ──▶ pass over all tables, batch by batch ──▶ no older transaction left? ──▶ retire ──▶ finished
                   ▲                                        │ wait                       │ refused: rows
                   └────────────────────────────────────────┴────────────────────────────┘ refer to it

The registry holds all that must not be lost. A ``Position`` is only the worker's memory: one that starts
again, after a crash say, passes over all tables again, and rows that were resealed cost it a look each.

A transaction that ran when the new version came (an *older* one) may still write under an old version, behind
the worker's back. The fence notes which these are. A version is retired only when none of them is left, and
only if no row refers to it then: ``ward.retire_keys`` looks for itself and refuses otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = [
    "Batch",
    "Facts",
    "Failed",
    "Fence",
    "Finished",
    "Paused",
    "Position",
    "Reseal",
    "Retire",
    "Step",
    "Wait",
    "next_step",
    "wait",
]

FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
"""Seconds before looking again; doubled from wait to wait."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says of one tenant, read again before each step.

    ``states``: version → active, decrypt-only, retired or destroyed. ``tables``: model tables with sealed
    columns. ``fenced``: it is noted which transactions ran when each decrypt-only version ceased to be
    active; ``older``: how many of these are left. ``begun``: a rotation is under way, if not of the key then
    because a column got another class.
    """

    states: Mapping[int, str]
    tables: tuple[str, ...]
    fenced: bool = True
    paused: bool = False
    older: int = 0
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """Note which transactions run, then pass over all tables."""


@dataclass(frozen=True, slots=True)
class Reseal:
    """Reseal a batch of ``table`` from ``block`` on."""

    table: str
    block: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after ``seconds``."""

    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Retire:
    """Retire all decrypt-only versions."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Stop: an operator paused the rotation."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Stop: ``values`` do not open, so their version cannot be retired."""

    values: int


@dataclass(frozen=True, slots=True)
class Finished:
    """Every row is under the active version, and no other can be asked for."""


Step = Fence | Reseal | Wait | Retire | Paused | Failed | Finished


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of a Reseal, in values. ``held``: rows that somebody else had locked.

    ``next_block``: None at the end of the table.
    """

    moved: int = 0
    failed: int = 0
    held: int = 0
    next_block: int | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where the worker is in its pass, what it met there, and its waits since it last moved a value."""

    done: frozenset[str] = frozenset()
    table: str | None = None
    block: int = 0
    moved: int = 0
    failed: int = 0
    held: int = 0
    waits: int = 0

    def after_batch(self, table: str, batch: Batch) -> Position:
        met = replace(
            self,
            moved=self.moved + batch.moved,
            failed=self.failed + batch.failed,
            held=self.held + batch.held,
            waits=0 if batch.moved else self.waits,
        )
        if batch.next_block is None:
            return replace(met, done=self.done | {table}, table=None, block=0)
        return replace(met, table=table, block=batch.next_block)

    def after_wait(self) -> Position:
        """Go on after a Wait: where rows were held, with another pass."""
        waited = replace(self, waits=self.waits + 1)
        return waited.another_pass() if self.held else waited

    def another_pass(self) -> Position:
        """Begin again: there are, or may be, rows under an old version in tables that were passed."""
        return Position(waits=self.waits)


def next_step(facts: Facts, position: Position) -> Step:
    """Return what to do. After a Fence and a refused Retire: ``position.another_pass()``."""
    if "decrypt-only" not in facts.states.values() and not facts.begun:
        return Finished()
    if facts.paused:
        return Paused()
    if not facts.fenced:
        return Fence()
    left = [table for table in facts.tables if table not in position.done]
    if left:
        return Reseal(left[0], position.block if position.table == left[0] else 0)
    if position.held:
        return wait("other transactions hold rows", position)
    if facts.older:
        return wait("transactions from before the rotation are still running", position)
    if position.failed:
        # A row of which other values were moved went to another place, where it failed again: count again.
        return Fence() if position.moved else Failed(position.failed)
    return Retire()


def wait(reason: str, position: Position) -> Wait:
    """Return a wait, longer from time to time."""
    return Wait(reason, min(FIRST_WAIT * 2**position.waits, LONGEST_WAIT))
