"""Measures that systems publish and payers read: what an operator registers, and the release.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg.types.range import DateRange

from ..errors import AlreadyPublished, NotConfirmed, UnknownObject, WouldReveal
from .disclosure import Cell, Choice, Place, choose, revealed

__all__ = ["Released", "delegations", "every", "published", "recheck", "register", "release"]

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]

_HELD = """
select p.measure, p.period, m.group_floor as floor, bool_or(p.released_at is not null) as is_released
  from ward_internal.publications as p join ward_internal.measures as m on m.name = p.measure
 where p.period = daterange(%s, %s, '[]') and (%s::text[] is null or p.measure = any (%s))
 group by 1, 2, 3 order by 1"""
_CELLS = """
select p.system_id::text as system, c.group_values::text as group, c.numerator, c.complement
  from ward_internal.publications as p join ward_internal.measure_cells as c on c.publication_id = p.id
 where p.measure = %s and p.period = %s and c.numerator is not null"""
_PAYERS = """
select d.payer_id::text, d.system_id::text, t.slug, exists (
         select from ward_internal.publications as p
          where p.system_id = d.system_id and p.measure = d.measure and p.period = %s) as has_published
  from ward_internal.delegations as d join ward_internal.tenants as t on t.id = d.system_id
 where d.measure = %s"""
_HIDDEN = """
select p.measure, p.period, p.system_id::text, c.group_values::text
  from ward_internal.publications as p join ward_internal.measure_cells as c on c.publication_id = p.id
 where p.released_at is not null and c.numerator is null"""
_TOTALS = "select measure, period, group_values::text, system_ids::text[] from ward_internal.measure_totals"
_ALL_GROUPS = "{}"  # what a total of all groups has for its group


@dataclass(frozen=True, slots=True)
class Released:
    """What of a measure's period is shown: cells, of them hidden and why, totals."""

    measure: str
    cells: int
    shown: int
    small: int
    complementary: int
    totals: int


@dataclass(slots=True)
class _Block:
    """What was ever released of a measure's period. No sum goes beyond one."""

    hidden: set[Place] = field(default_factory=set)
    totals: list[tuple[str | None, Sequence[str]]] = field(default_factory=list)


def register(connection: Connection, name: str, query: str, floor: int | None) -> None:
    """Raises psycopg.Error (WK212, WK263, WK264)."""
    connection.execute("select ward.register_measure(%s, %s, %s)", [name, query, floor])


def every(connection: Connection) -> Rows:
    """Return the measures."""
    return _rows(connection, "select * from ward.measure_definitions order by name")


def published(connection: Connection) -> Rows:
    """Return what systems published, by period."""
    return _rows(connection, "select * from ward.publications order by first_day, measure, system")


def delegations(connection: Connection) -> Rows:
    """Return the payers and what was delegated to them."""
    return _rows(connection, "select * from ward.delegations order by payer, system, measure")


def release(
    connection: Connection,
    first: date,
    last: date,
    measures: Sequence[str] | None = None,
    *,
    incomplete: bool = False,
) -> list[Released]:
    """Release a period of these measures, or of all that were published for it: all of them or none.

    ``incomplete``: also where a system that delegated one has not published it, and never can afterwards.
    Raises UnknownObject, AlreadyPublished, NotConfirmed, WouldReveal, MissingSoftware.
    """
    # who publishes meanwhile waits, and is told that the period is released
    connection.execute("lock table ward_internal.publications in share row exclusive mode")
    held = _rows(connection, _HELD, first, last, measures, measures)
    missing = set(measures or ()) - {row["measure"] for row in held}
    if missing or not held:
        about = ", ".join(sorted(missing)) or "nothing"
        raise UnknownObject(
            f"of that period no system has published {about}", "wardkey access measures published"
        )
    done = [row["measure"] for row in held if row["is_released"]]
    if done:
        raise AlreadyPublished(f"of that period {', '.join(done)} is released", "name those that are not")
    shown = [
        _release(connection, row["measure"], row["period"], row["floor"], incomplete=incomplete)
        for row in held
    ]
    recheck(connection)
    return shown


def recheck(connection: Connection) -> int:
    """Prove of all that was ever released that it tells no hidden cell; return how many there are.

    Raises WouldReveal.
    """
    blocks: dict[tuple[str, DateRange], _Block] = {}
    for measure, period, system, group in connection.execute(_HIDDEN):
        blocks.setdefault((measure, period), _Block()).hidden.add((system, group))
    for measure, period, group, systems in connection.execute(_TOTALS):
        block = blocks.setdefault((measure, period), _Block())
        block.totals.append((None if group == _ALL_GROUPS else group, systems))
    for (measure, _), block in blocks.items():
        if told := revealed(block.hidden, block.totals):
            raise WouldReveal(
                f"{len(told)} hidden cells of {measure} would follow from what is shown",
                "nothing was released: this is a defect of wardkey, or its tables were changed by hand",
            )
    return sum(len(block.hidden) for block in blocks.values())


def _release(
    connection: Connection, measure: str, period: DateRange, floor: int, *, incomplete: bool
) -> Released:
    payers: dict[str, set[str]] = {}
    missing = set()
    for payer, system, slug, has_published in connection.execute(_PAYERS, [period, measure]):
        payers.setdefault(payer, set()).add(system)
        if not has_published:
            missing.add(slug)
    if missing and not incomplete:
        raise NotConfirmed(
            f"{measure} was not published by {', '.join(sorted(missing))}, which delegated it",
            "wait for them; or --incomplete: then they cannot publish it for this period any more",
        )
    cells = [Cell(**row) for row in _rows(connection, _CELLS, measure, period)]
    choice = choose(cells, payers, floor)
    shown = list(_shown(cells, choice))
    connection.execute(
        "select ward_internal.release_measure(%s, %s, %s, %s)",
        [measure, period, Jsonb(shown), Jsonb(list(_totals(choice)))],
    )
    small = len(choice.hidden) - len(choice.complementary)
    return Released(measure, len(cells), len(shown), small, len(choice.complementary), len(choice.totals))


def _shown(cells: Sequence[Cell], choice: Choice) -> Iterator[dict[str, Any]]:
    for cell in cells:
        if cell.place not in choice.hidden:
            yield {"system_id": cell.system, "group_values": json.loads(cell.group)}


def _totals(choice: Choice) -> Iterator[dict[str, Any]]:
    for total in choice.totals:
        yield {
            "payer_id": total.payer,
            "group_values": json.loads(total.group or _ALL_GROUPS),
            "system_ids": total.systems,
            "numerator": total.numerator,
            "complement": total.complement,
        }


def _rows(connection: Connection, query: Any, *values: object) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()
