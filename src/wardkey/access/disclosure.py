"""Which cells of a measure may be shown, and the proof that nobody computes the others from them.

A cell is what one system counts in one group: a numerator and its complement. It is small where either is
below the floor; small cells are hidden, both counts of them, because a payer may know how many members a
system has in a group. A total is the sum of a group over the systems of a payer, or of all groups. What a
payer learns of the hidden cells is then, for each total, the sum of those in it, which this module calls its
block. A total is released only if its block

* is empty, or, also when any one system is taken out of it (a payer may know what one system counted), sums
  up to the floor, numerator and complement, and leaves each small count in it free to be whatever a small
  count can be, even for somebody who knows the members of each cell, and why it is hidden;
* has no hidden cell in common with another block, or is the same: so no two totals subtract to less.

Where a block does not do, the smallest cells that would have been shown are hidden too (complementary
suppression); where that does not help, the total is not released. Totals are of three systems or more, of
which the two largest have at most 85 % ((n, k) dominance), and not below the floor.

``revealed`` does not trust any of this: it solves. It wants only what was hidden and what was released.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from ..errors import MissingSoftware

__all__ = ["Cell", "Choice", "Place", "Total", "choose", "revealed"]

_FEWEST_SYSTEMS = 3
_LARGEST, _DOMINANCE = 2, 0.85

Place = tuple[str, str]
"""A cell's system and group."""


@dataclass(frozen=True, slots=True)
class Cell:
    """``group``: the values of its group columns, as JSON text. A cell of nobody is no cell."""

    system: str
    group: str
    numerator: int
    complement: int

    @property
    def place(self) -> Place:
        return self.system, self.group

    @property
    def least(self) -> int:
        return min(self.numerator, self.complement)


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of a group, or of all (None), over the systems of a payer that count in it."""

    payer: str
    group: str | None
    systems: tuple[str, ...]
    numerator: int
    complement: int


@dataclass(frozen=True, slots=True)
class Choice:
    """``hidden``: what is not shown; ``complementary``: what of it is not small itself."""

    hidden: Set[Place]
    complementary: Set[Place]
    totals: Sequence[Total]


def choose(cells: Sequence[Cell], payers: Mapping[str, Set[str]], floor: int) -> Choice:
    """Return what of a measure's period is shown. ``payers``: the systems that delegated to each."""
    groups: dict[str, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.least, cell.place)):
        groups.setdefault(cell.group, []).append(cell)
    small = {cell.place for cell in cells if cell.least < floor}
    hidden = set(small)
    fit: list[Total] = []
    for group, members in sorted(groups.items()):
        for payer, systems in sorted(payers.items()):
            own = [cell for cell in members if cell.system in systems]
            if _is_fit(own, floor) and (more := _complement(own, hidden, floor)) is not None:
                hidden |= more
                fit.append(_total(payer, group, own))
    released: list[tuple[Total, frozenset[Place]]] = []
    for total in fit:
        _release(released, total, [place for place in hidden if place[1] == total.group])
    for payer, systems in sorted(payers.items()):
        own = [cell for cell in cells if cell.system in systems]
        told = {total.group for total, _ in released if total.payer == payer}
        rest = [cell for cell in own if cell.place in hidden and cell.group not in told]
        if _is_fit(own, floor) and _is_safe(rest, floor):
            _release(released, _total(payer, None, own), [cell.place for cell in rest])
    return Choice(hidden, hidden - small, [total for total, _ in released])


def revealed(hidden: Set[Place], totals: Iterable[tuple[str | None, Sequence[str]]]) -> list[Place]:
    """Return the hidden cells that follow from all ``totals`` (group, systems) and the cells that are shown.

    Also those that follow for somebody who knows what one of the systems counted. A cell follows if its unit
    vector lies in the row space of the released sums: if its projection there is as long as itself.
    """
    try:
        import numpy as np
    except ModuleNotFoundError:
        raise MissingSoftware(
            "the proof needs the package numpy, which is not installed", "pip install 'wardkey[measures]'"
        ) from None
    places = sorted(hidden)
    rows = [
        [1.0 if place[0] in systems and group in (None, place[1]) else 0.0 for place in places]
        for group, systems in ((group, frozenset(systems)) for group, systems in totals)
    ]
    if not rows or not places:
        return []
    released = np.unique(np.array(rows), axis=0)
    certain: set[Place] = set()
    for known in (None, *sorted({system for system, _ in places})):
        left = [number for number, (system, _) in enumerate(places) if system != known]
        if not left:
            continue
        _, sizes, basis = np.linalg.svd(released[:, left], full_matrices=False)
        lengths = np.square(basis[sizes > 1e-9]).sum(axis=0)
        certain |= {places[number] for number, length in zip(left, lengths, strict=True) if length > 1 - 1e-9}
    return sorted(certain)


def _is_fit(cells: Sequence[Cell], floor: int) -> bool:
    """Whether there may be a total of ``cells`` at all."""
    for name in ("numerator", "complement"):
        shares: dict[str, int] = {}
        for cell in cells:
            shares[cell.system] = shares.get(cell.system, 0) + getattr(cell, name)
        whole = sum(shares.values())
        largest = sum(sorted(shares.values())[-_LARGEST:])
        if len(shares) < _FEWEST_SYSTEMS or whole < floor or largest > _DOMINANCE * whole:
            return False
    return True


def _is_safe(block: Sequence[Cell], floor: int) -> bool:
    """Whether the sum of ``block`` may be known, also to somebody who knows one system's part of it."""
    systems = {cell.system for cell in block}
    return all(_is_free([cell for cell in block if cell.system != known], floor) for known in systems)


def _is_free(block: Sequence[Cell], floor: int) -> bool:
    numerator = sum(cell.numerator for cell in block)
    complement = sum(cell.complement for cell in block)
    if numerator < floor or complement < floor:
        return False
    bounds = [_bounds(cell, floor) for cell in block]
    below = sum(cell.numerator - low for cell, (low, _) in zip(block, bounds, strict=True))
    above = sum(high - cell.numerator for cell, (_, high) in zip(block, bounds, strict=True))
    # The sum lets a count go down to its bound if all others together can go up by as much, and the reverse.
    return all(
        cell.least >= floor or (high - low <= above and high - low <= below)
        for cell, (low, high) in zip(block, bounds, strict=True)
    )


def _bounds(cell: Cell, floor: int) -> tuple[int, int]:
    """Return between what the numerator must be for the cell to be as small, or not small, as it is."""
    low, high = 0, cell.numerator + cell.complement
    if cell.complement < floor:
        low = max(low, high - floor + 1)
    else:
        high -= floor
    return (low, min(high, floor - 1)) if cell.numerator < floor else (max(low, floor), high)


def _complement(cells: Sequence[Cell], hidden: Set[Place], floor: int) -> set[Place] | None:
    """Return what else of ``cells``, which go by size, is to be hidden; None: nothing helps."""
    block = [cell for cell in cells if cell.place in hidden]
    shown = (cell for cell in cells if cell.place not in hidden)
    more: set[Place] = set()
    while not _is_safe(block, floor):
        cell = next(shown, None)
        if cell is None:
            return None
        block.append(cell)
        more.add(cell.place)
    return more


def _total(payer: str, group: str | None, cells: Sequence[Cell]) -> Total:
    systems = tuple(sorted({cell.system for cell in cells}))
    numerator, complement = (sum(cell.numerator for cell in cells), sum(cell.complement for cell in cells))
    return Total(payer, group, systems, numerator, complement)


def _release(released: list[tuple[Total, frozenset[Place]]], total: Total, hidden: Iterable[Place]) -> None:
    """Add ``total`` unless its block, what is ``hidden`` in its systems, is partly that of another."""
    block = frozenset(place for place in hidden if place[0] in total.systems)
    if all(block == other or not block & other for _, other in released):
        released.append((total, block))
