"""What ``verify`` finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from wardkey_core.log.checkpoint import Checkpoint
from wardkey_core.log.exportfile import Header

__all__ = ["Defect", "Gap", "Pruned", "Report"]


@dataclass(frozen=True, slots=True)
class Defect:
    """What is wrong. ``position``: of the entry in the tenant's log, from 0; ``entry``: its
    id.

    ``kind``, of entries: edited · deleted · inserted · reordered · duplicate · malformed (sealed, but not of
    the form) · foreign (of another tenant) · altered (some between two checkpoints: which, the file cannot
    tell); of checkpoints: missing · swapped · forged · wrong key · broken chain · fork (not what was known);
    of the file: not an export · truncated · trailing · cut tail · damaged (a line that is no entry);
    of the log in the database: cut head.
    """

    kind: str
    message: str
    line: int
    position: int | None = None
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class Pruned:
    """What the log itself says of its beginning, which is not there any more. ``at``, ``until``: text."""

    entries: int  # all there ever were below the checkpoint it goes on from
    until: str  # when that checkpoint was made
    at: str  # when the last of them were pruned


@dataclass(frozen=True, slots=True)
class Gap:
    """What the log itself says of reads that it may lack: those of ``since`` to ``until``, text."""

    since: str
    until: str
    why: str


@dataclass(slots=True)
class Report:
    """What was found. ``defect`` alone says that a file is bad; what else is here may be worth a look.

    ``defect``: the first thing after which nothing that follows can be told, else the first of ``unfit``.
    ``unfit``: entries that are malformed or foreign, the first ``NAMED``; they are passed over.
    """

    NAMED: ClassVar = 20
    defect: Defect | None = None
    unfit: list[Defect] = field(default_factory=list)
    unfit_count: int = 0
    header: Header | None = None
    entries: int = 0
    unsealed: int = 0  # entries that no checkpoint covers yet
    checkpoints: int = 0
    newest: Checkpoint | None = None  # the file shows the log as of this one
    signers: set[bytes] = field(default_factory=set)  # fingerprints of the keys
    trusted: bool = False  # the reader named the keys
    known: bool | None = None  # the log continues the known checkpoint; None: the file cannot tell
    known_is_older: bool = False  # than the first entry here: there is nothing to compare it with
    pruned: Pruned | None = None  # the log begins later than at its first entry, and says so
    gaps: list[Gap] = field(default_factory=list)
    remembered: bool = False  # it has the checkpoint that the keeper remembers
    unlike: str | None = None  # in what the keeper's memory is unlike it, or why it was not compared
    complete_from: bool = False  # no entry at or after ``from`` (or: at all) is missing ahead of the first
    complete_to: bool = (
        False  # none before ``to`` (or: up to the newest checkpoint) is missing behind the last
    )
    backdated: int = 0  # entries of a time before one that was already settled
    first_backdated: int | None = None  # position
    strays: int = 0  # unsealed entries of a time that was already settled: put in behind the scribe's back
    first_stray: str | None = None  # id
    ahead: int = 0  # checkpoints that seal an entry of a later time than their own: a clock was set back

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong but entries that are unfit."""
        return self.defect is None or self.defect in self.unfit

    @property
    def ok(self) -> bool:
        return self.defect is None
