"""What the demo shows of delegation: a payer reads what clinics counted, and no group that is too small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from psycopg.rows import class_row
from psycopg.types.range import DateRange

from ..access import measures
from ..install.resources import measure
from .load import Connection, Ward

__all__ = ["FEWEST", "MEASURES", "PAYER", "Prevalence", "Summaries", "summaries"]

FEWEST = 3
"""A total is shown over so many systems or more."""
MEASURES = ("diabetes", "hypertension")
PAYER = "blue_plan"
_FLOOR = 11
_PREVALENCE = """
select measure, coalesce(group_values ->> 'gender', 'all') as sex,
       coalesce(group_values ->> 'age_band', '') as age, systems, numerator,
       numerator + complement as members, round(100 * rate, 1)::float as percent
  from ward.measures where system is null and first_day = %s
 order by measure, group_values = '{}', sex, age"""
_SHOWN = "select count(distinct system), sum(cells), sum(shown) from ward.publications where first_day = %s"


@dataclass(frozen=True, slots=True)
class Prevalence:
    """Of so many members of so many clinics, how many are ill: what the payer reads of a group."""

    measure: str
    sex: str
    age: str
    systems: int
    numerator: int
    members: int
    percent: float


@dataclass(frozen=True, slots=True)
class Summaries:
    """A quarter's totals, and how many counts of single clinics there are and are shown.

    ``hidden``: so many, of all quarters, are hidden and proven not to follow from what was ever shown.
    """

    payer: str
    first_day: date
    last_day: date
    systems: int
    totals: list[Prevalence]
    cells: int
    shown: int
    hidden: int


def summaries(
    admin: Connection, payer: Ward, wards: Sequence[Ward], advance: Callable[[int], None]
) -> Summaries:
    """Have clinics delegate and publish the last quarter, release it unless that is done, and read it.

    Commits. Raises psycopg.Error, WardError.
    """
    first, last = _last_quarter(date.today())
    known = {one["name"] for one in measures.every(admin)}
    for name in MEASURES:
        if name not in known:
            measures.register(admin, name, measure(name), _FLOOR)
    admin.execute("select ward.register_payer(%s)", [payer.slug])
    admin.commit()
    published = {
        (one["system"], one["released_at"]) for one in measures.published(admin) if one["first_day"] == first
    }
    admin.commit()
    if all(released is None for _, released in published):
        done = {system for system, _ in published}
        for ward in wards:
            if ward.slug not in done:
                _publish(ward, payer.slug, DateRange(first, last + timedelta(days=1)))
            advance(1)
        measures.release(admin, first, last, list(MEASURES), incomplete=True)
        admin.commit()
    hidden = measures.recheck(admin)
    ((systems, cells, shown),) = admin.execute(_SHOWN, [first]).fetchall()
    admin.commit()
    with payer.connect() as connection, connection.cursor(row_factory=class_row(Prevalence)) as cursor:
        cursor.execute("select ward.login(%s)", [payer.token("ANALYST", "actuary")])
        totals = cursor.execute(_PREVALENCE, [first]).fetchall()
    return Summaries(payer.slug, first, last, systems, totals, int(cells), int(shown), hidden)


def _publish(ward: Ward, payer: str, period: DateRange) -> None:
    with ward.transaction("ADMIN", "dr. chief") as cursor:
        cursor.execute("select ward.delegate(%s, %s)", [payer, list(MEASURES)])
        cursor.execute("select ward.publish_measures(%s)", [period])


def _last_quarter(today: date) -> tuple[date, date]:
    """Return the first and the last day of the last quarter that has ended."""
    begun = date(today.year, (today.month - 1) // 3 * 3 + 1, 1)
    last = begun - timedelta(days=1)
    return date(last.year, last.month - 2, 1), last
