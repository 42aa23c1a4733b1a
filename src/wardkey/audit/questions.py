"""What the report tells of a tenant's log: counts, people, hours; no value, no row's id, no free text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from wardkey_core.log.exporter import Period

__all__ = ["REFUSALS", "Facts", "Person", "by_hour_of_day", "explain", "gather"]

_COUNTS = ("reads", "writes", "events")
_TABLES = """
select table_name, count(distinct (r.id, statement)) filter (where operation = 'read') as reads,
       count(distinct e.id) filter (where kind = 'write') as writes, count(distinct subject) as people,
       array_agg(distinct c.name order by c.name) filter (where kind = 'read') as columns
  from ward_internal.audit_entries(%(tenant)s, %(begin)s, %(end)s) as e
       left join unnest(columns) as c (name) on true
       left join ward_internal.rows_of(e.row_id, case kind when 'read' then detail end) as r (id) on true
 where kind <> 'event' group by table_name order by 2 desc, 3 desc, 1"""
_PER_DAY = """
select subject, (at at time zone 'UTC')::date as day, count(distinct (table_name, r.id)) as rows
  from ward_internal.audit_entries(%(tenant)s, %(begin)s, %(end)s) as e
       left join ward_internal.rows_of(e.row_id, e.detail) as r (id) on true
 where operation = 'read' and subject = any (%(subjects)s) group by 1, 2"""

REFUSALS = """
select at, operation, subject, role, database_role, address, application, detail
  from ward.audit_entries(%(p_from)s, %(p_to)s, %(p_tenant)s, '{refusal, tampered}') order by at, id"""
"""Who was refused and why, and values that failed their authentication tag."""

Rows = list[dict[str, Any]]


@dataclass(slots=True)
class Person:
    name: str
    roles: set[str] = field(default_factory=set)
    reads: int = 0
    writes: int = 0
    events: int = 0
    first: datetime | None = None
    last: datetime | None = None


@dataclass(slots=True)
class Facts:
    """What is on the page.

    ``days``: rows read, rows written and events of each day; ``hours``: of each person, by hour of the day;
    ``series``: rows read by day (UTC) of those with anomalies; ``verified``: see ``wardkey audit verify``.
    """

    slug: str
    tenant: UUID
    begin: datetime
    end: datetime
    zone: tzinfo
    made: datetime
    days: dict[date, list[int]]
    people: list[Person]
    hours: dict[str, list[int]]
    tables: Rows
    refusals: Rows
    keys: Rows
    anomalies: Rows
    series: dict[str, dict[date, int]]
    verified: dict[str, Any] = field(default_factory=dict)

    @property
    def totals(self) -> list[int]:
        """Rows read, rows written, events."""
        return [sum(counts[place] for counts in self.days.values()) for place in range(3)]

    @property
    def entries(self) -> int:
        return sum(self.totals)


def gather(
    connection: psycopg.Connection[Any], tenant: UUID, slug: str, period: Period, zone: tzinfo
) -> Facts:
    """Ask the database. ``connection``: in a transaction, repeatable read; ``period`` begins somewhere."""
    assert period.begin is not None  # noqa: S101
    made = datetime.now(UTC)
    end = period.end or made
    bounds = {"tenant": tenant, "log": str(tenant), "begin": period.begin, "end": period.end}

    def ask(query: str, **more: Any) -> Rows:
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query, bounds | more).fetchall()

    def call(name: str) -> Rows:
        return ask(
            f"select * from ward.{name}(p_from => %(begin)s, p_to => %(end)s, p_tenant => %(log)s)"  # noqa: S608
        )

    activity, anomalies = call("audit_activity"), call("audit_anomalies")
    series: dict[str, dict[date, int]] = {row["subject"]: {} for row in anomalies}
    if series:
        for row in ask(_PER_DAY, subjects=list(series)):
            series[row["subject"]][row["day"]] = row["rows"]
    return Facts(
        slug=slug,
        tenant=tenant,
        begin=period.begin,
        end=end,
        zone=zone,
        made=made,
        days=_by_day(activity, period.begin.astimezone(zone), end.astimezone(zone)),
        people=_people(activity),
        hours=by_hour_of_day(activity, zone),
        tables=ask(_TABLES),
        refusals=ask(REFUSALS, p_from=period.begin, p_to=period.end, p_tenant=str(tenant)),
        keys=call("audit_of_key"),
        anomalies=anomalies,
        series=series,
    )


def explain(anomaly: Mapping[str, Any]) -> str:
    """Return what a row of ``ward.audit_anomalies`` says."""
    return (
        "Read {rows} rows on {day}; on its {days} other days around it the median is {usual}, "
        "and days differ from that by {spread}: this day is {score} times that above"
    ).format(**anomaly)


def by_hour_of_day(activity: Iterable[Mapping[str, Any]], zone: tzinfo) -> dict[str, list[int]]:
    """Return 24 counts for each person, who did most first."""
    people: dict[str, list[int]] = {}
    for row in activity:
        hours = people.setdefault(row["subject"] or "(unknown)", [0] * 24)
        hours[row["hour"].astimezone(zone).hour] += sum(row[name] for name in _COUNTS)
    return dict(sorted(people.items(), key=lambda pair: (-sum(pair[1]), pair[0])))


def _by_day(activity: Sequence[Mapping[str, Any]], begin: datetime, end: datetime) -> dict[date, list[int]]:
    last = (end - timedelta(microseconds=1)).date()
    days = {
        begin.date() + timedelta(days=number): [0, 0, 0] for number in range((last - begin.date()).days + 1)
    }
    for row in activity:
        counts = days.setdefault(row["hour"].astimezone(begin.tzinfo).date(), [0, 0, 0])
        for place, name in enumerate(_COUNTS):
            counts[place] += row[name]
    return days


def _people(activity: Iterable[Mapping[str, Any]]) -> list[Person]:
    people: dict[str, Person] = {}
    for row in activity:
        name = row["subject"] or "(unknown)"
        person = people.setdefault(name, Person(name))
        person.roles |= {row["role"]} - {None}
        person.reads += row["reads"]
        person.writes += row["writes"]
        person.events += row["events"]
        person.first = min(person.first or row["hour"], row["hour"])
        person.last = max(person.last or row["hour"], row["hour"])
    return sorted(people.values(), key=lambda person: (-person.reads - person.writes, person.name))
