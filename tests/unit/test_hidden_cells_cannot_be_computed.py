"""What a release shows of 20 systems leaves every hidden count what it may be, to anyone who solves for it.

The adversary has all that was ever released, knows what one of the systems counted, how many members each
cell has, and why each hidden cell is hidden. It is given what is shown, not how that was chosen, and solves:
by the rank of all of it together, and by linear programs. It finds cells where suppression is weakened.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from wardkey.access import disclosure
from wardkey.access.disclosure import Cell, Choice, choose, revealed
from wardkey.demo import data

FLOOR = 11
SYSTEMS = tuple(f"s{number:02}" for number in range(20))
CODES = {"diabetes": ("44054006",), "hypertension": ("59621000",)}
EPOCHS = range(2)
PAYER = {"payer": set(SYSTEMS)}

Block = tuple[Sequence[Cell], Choice]


@cache
def patients() -> list[tuple[str, frozenset[str]]]:
    """Group of age and sex, and conditions, of the 1,100 of Synthea."""
    tables = data.clinic(0, 1100).tables
    place = {name: data.COLUMNS["patients"].index(name) for name in ("id", "birth_date", "gender")}
    codes: dict[str, set[str]] = {}
    patient, code = (data.COLUMNS["conditions"].index(name) for name in ("patient_id", "code"))
    for row in tables["conditions"]:
        codes.setdefault(row[patient], set()).add(row[code])
    made = []
    for row in tables["patients"]:
        band = min((2026 - int(row[place["birth_date"]][:4])) // 10, 8)
        own = frozenset(
            name for name, of_it in CODES.items() if codes.get(row[place["id"]], set()) & set(of_it)
        )
        made.append((f"{row[place['gender']]} {band}0", own))
    return made


def count(rng: random.Random, measure: str) -> list[Cell]:
    """Return what the systems, some small, count of a measure."""
    cells = []
    for number, system in enumerate(SYSTEMS):
        drawn = rng.choices(patients(), k=200 if number < 2 else (3000, 6000, 12000)[number % 3])
        whole = Counter(group for group, _ in drawn)
        ill = Counter(group for group, own in drawn if measure in own)
        cells += [Cell(system, group, ill[group], size - ill[group]) for group, size in whole.items()]
    return cells


@cache
def blocks() -> dict[tuple[str, int], Block]:
    rng = random.Random(3)
    counted = {(measure, epoch): count(rng, measure) for measure in CODES for epoch in EPOCHS}
    return {key: (cells, choose(cells, PAYER, FLOOR)) for key, cells in counted.items()}


def followed(released: Mapping[Any, Block], known: str | None) -> set[Any]:
    """Return the hidden cells that follow from all that is released, by the rank of it and of one row more.

    All in one matrix: what is shown, the totals, and all that ``known`` counted.
    """
    every = [(key, cell.place) for key, (cells, _) in released.items() for cell in cells]
    column = {place: number for number, place in enumerate(every)}
    rows: list[list[int]] = []
    for key, (cells, choice) in released.items():
        shown = (cell.place for cell in cells if cell.place not in choice.hidden or cell.system == known)
        rows += [[column[key, place]] for place in shown]
        for total in choice.totals:
            summed = (cell for cell in cells if cell.system in total.systems)
            rows.append([column[key, cell.place] for cell in summed if total.group in (None, cell.group)])
    matrix = np.zeros((len(rows), len(every)))
    for number, members in enumerate(rows):
        matrix[number, members] = 1
    _, sizes, basis = np.linalg.svd(matrix, full_matrices=False)
    length = np.square(basis[sizes > 1e-9]).sum(axis=0)
    hidden = {(key, place) for key, (_, choice) in released.items() for place in choice.hidden}
    return {place for place in hidden if place[1][0] != known and length[column[place]] > 1 - 1e-9}


def bounds_of(cell: Cell, hidden: bool) -> tuple[int, int]:
    """Between what the numerator is for who knows the members and why the cell is hidden."""
    members = cell.numerator + cell.complement
    if not hidden:
        return cell.numerator, cell.numerator
    may = [
        count
        for count in range(members + 1)
        if (count < FLOOR) == (cell.numerator < FLOOR)
        and (members - count < FLOOR) == (cell.complement < FLOOR)
    ]
    return may[0], may[-1]


def narrowed(block: Block, known: str | None, most: int = 10**9) -> Iterator[tuple[Cell, float, float]]:
    """Yield the small counts of which linear programs tell more than that, with what they tell."""
    cells, choice = block
    hidden = [cell for cell in cells if cell.place in choice.hidden and cell.system != known]
    bounds = [bounds_of(cell, True) for cell in hidden]
    rows, sums = [], []
    for total in choice.totals:
        inside = [
            cell for cell in cells if cell.system in total.systems and total.group in (None, cell.group)
        ]
        rest = {cell.place for cell in inside} & {cell.place for cell in hidden}
        rows.append([1.0 if cell.place in rest else 0.0 for cell in hidden])
        sums.append(total.numerator - sum(cell.numerator for cell in inside if cell.place not in rest))
    small = [number for number, cell in enumerate(hidden) if cell.least < FLOOR]
    for number in random.Random(5).sample(small, min(most, len(small))):
        goal = np.zeros(len(hidden))
        goal[number] = 1
        low, high = (
            sign * linprog(sign * goal, A_eq=rows or None, b_eq=sums or None, bounds=bounds).fun
            for sign in (1, -1)
        )
        if low > bounds[number][0] + 1e-6 or high < bounds[number][1] - 1e-6:
            yield hidden[number], low, high


def test_there_is_something_to_hide_and_to_show() -> None:
    for cells, choice in blocks().values():
        small = {cell.place for cell in cells if cell.least < FLOOR}
        assert small and small <= choice.hidden and choice.hidden - small == choice.complementary
        assert len(choice.hidden) < len(cells) and choice.totals
    assert any(choice.complementary for _, choice in blocks().values())


def test_nothing_hidden_follows_from_all_that_was_ever_released() -> None:
    assert not followed(blocks(), SYSTEMS[3])
    for _, choice in blocks().values():
        assert not revealed(choice.hidden, [(total.group, total.systems) for total in choice.totals])


@pytest.mark.parametrize("known", [None, *SYSTEMS[::5]])
def test_no_small_count_is_narrowed(known: str | None) -> None:
    for block in blocks().values():
        assert not list(narrowed(block, known, 8))


def test_no_sum_that_is_left_is_small() -> None:
    """A total without what is shown and what one system counted is nobody, or no small group."""
    for cells, choice in blocks().values():
        for total in choice.totals:
            for known in (None, *total.systems):
                left = [
                    cell
                    for cell in cells
                    if cell.place in choice.hidden
                    and cell.system in total.systems
                    and cell.system != known
                    and total.group in (None, cell.group)
                ]
                sums = sum(cell.numerator for cell in left), sum(cell.complement for cell in left)
                assert not left or min(sums) >= FLOOR


@pytest.mark.parametrize("payers", [1, 2, 3])
def test_payers_find_nothing_together(payers: int) -> None:
    rng = random.Random(payers)
    for number in range(40):
        cells = [
            Cell(system, group, rng.choice((0, 3, 9, 11, 30)), rng.choice((2, 11, 50)))
            for system in SYSTEMS[: rng.randrange(3, 7)]
            for group in ("a", "b", "c")
            if rng.random() < 0.9
        ]
        systems = sorted({cell.system for cell in cells})
        of_payer = {
            f"p{payer}": set(rng.sample(systems, rng.randrange(1, len(systems) + 1)))
            for payer in range(payers)
        }
        choice = choose(cells, of_payer, FLOOR)
        assert not revealed(choice.hidden, [(total.group, total.systems) for total in choice.totals])
        for known in (None, *systems):
            assert not followed({number: (cells, choice)}, known), number
        assert not list(narrowed((cells, choice), rng.choice(systems))), number


def test_the_adversary_finds_cells_where_suppression_is_weakened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small cells alone are hidden, and all totals are released."""
    monkeypatch.setattr(disclosure, "_is_free", lambda block, floor: True)
    weak = {key: (cells, choose(cells, PAYER, FLOOR)) for key, (cells, _) in blocks().items()}
    assert followed(weak, SYSTEMS[0])
    assert any(
        revealed(choice.hidden, [(total.group, total.systems) for total in choice.totals])
        for _, choice in weak.values()
    )
    assert any(list(narrowed(block, SYSTEMS[0])) for block in weak.values())


def test_linear_programs_find_what_the_rank_does_not() -> None:
    """Two counts of 0 whose sum is known: neither follows from it, and both are known."""
    cells = [Cell("s1", "a", 0, 50), Cell("s2", "a", 0, 50), Cell("s3", "a", 40, 50), Cell("s4", "a", 40, 50)]
    total = disclosure.Total("payer", "a", ("s1", "s2", "s3", "s4"), 80, 200)
    told = Choice({("s1", "a"), ("s2", "a")}, set(), [total])
    assert not followed({0: (cells, told)}, None) and len(list(narrowed((cells, told), None))) == 2
    choice = choose(cells, {"payer": {"s1", "s2", "s3", "s4"}}, FLOOR)
    assert not list(narrowed((cells, choice), None))


@pytest.mark.parametrize(
    ("counts", "released"),
    [
        ([(20, 50)] * 2, False),  # two systems
        ([(20, 50)] * 3, True),
        ([(100, 50), (100, 50), (20, 50)], False),  # the largest two have 91 % of the numerator
        ([(20, 500), (20, 500), (20, 50)], False),  # of the complement
        ([(3, 50)] * 3, False),  # 9 in all
        ([(5, 50)] * 3, False),  # 10 without one of them
        ([(6, 50)] * 5, True),
    ],
)
def test_totals_are_of_many_and_of_no_two(counts: list[tuple[int, int]], released: bool) -> None:
    cells = [Cell(f"s{number}", "a", *pair) for number, pair in enumerate(counts)]
    choice = choose(cells, {"payer": {cell.system for cell in cells}}, FLOOR)
    assert {total.group for total in choice.totals} == ({"a", None} if released else set())
