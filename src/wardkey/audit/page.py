"""The report as one page of HTML: it loads nothing and runs nothing, and its policy (CSP) forbids both.

``page.html`` is its text; every value in it is escaped. There is no value of a table in it, no row's id and
no free text of a tenant's: names of people, tables, columns and roles, counts and times.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from .plots import COLOURS, days_plot, hours_plot, series_plot
from .questions import Facts, explain

__all__ = ["render"]

_MOST_PEOPLE, _MOST_LINES = 40, 200
_KINDS = ("rows read", "rows written", "events")
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


def render(facts: Facts) -> str:
    """Return the page."""

    def time(moment: datetime | None) -> str:
        return "" if moment is None else f"{moment.astimezone(facts.zone):%Y-%m-%d %H:%M}"

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    pages.filters["time"] = time
    reads, writes, events = facts.totals
    hours = dict(list(facts.hours.items())[:_MOST_PEOPLE])
    return pages.get_template("page.html").render(
        facts=facts,
        policy=_POLICY,
        style=_STYLE,
        numbers=("rows read", "rows written", "events", "people", "times"),
        times=("when", "first hour", "last hour"),
        most_people=_MOST_PEOPLE,
        most_lines=_MOST_LINES,
        tiles=(
            ("rows read", reads, False),
            ("rows written", writes, False),
            ("events", events, False),
            ("people", sum(bool(person.roles) for person in facts.people), False),
            ("refusals", len(facts.refusals), bool(facts.refusals)),
            ("unusual days", len(facts.anomalies), bool(facts.anomalies)),
        ),
        legend=list(zip(COLOURS, _KINDS, strict=True)),
        days=Markup(days_plot(facts.days, _KINDS)),  # noqa: S704 - plots escape their texts
        hours=Markup(hours_plot(hours)) if hours else "",  # noqa: S704
        anomalies=list(_anomalies(facts)),
        people=[
            (person.name, ", ".join(sorted(person.roles)), person.reads, person.writes, person.events,
             time(person.first), time(person.last))
            for person in facts.people[:_MOST_LINES]
        ],
        tables=[
            (row["table_name"] or "(unknown)", row["reads"], row["writes"], row["people"],
             ", ".join(filter(None, row["columns"] or [])))
            for row in facts.tables[:_MOST_LINES]
        ],
        refusals=[(time(row["at"]), *_refusal(row)) for row in facts.refusals[-_MOST_LINES:]],
        keys=[
            (time(row["at"]), row["operation"].replace("_", " "), row["version"] or "", row["who"] or "",
             row["times"])
            for row in facts.keys[-_MOST_LINES:]
        ],
    )  # fmt: skip


def _anomalies(facts: Facts) -> Iterator[tuple[str, list[str], Markup]]:
    """Yield a person, what was unusual, and a plot of it."""
    first, last = facts.begin.toordinal(), (facts.end - timedelta(microseconds=1)).toordinal()
    days = [date.fromordinal(number) for number in range(first, last + 1)]
    for subject in dict.fromkeys(row["subject"] for row in facts.anomalies):
        own = [row for row in facts.anomalies if row["subject"] == subject]
        texts = [explain(row) for row in own]
        plot = series_plot(days, facts.series[subject], float(own[0]["usual"]), {row["day"] for row in own})
        yield subject, texts, Markup(plot)  # noqa: S704


def _refusal(row: dict[str, Any]) -> tuple[str, ...]:
    detail = row["detail"] or {}  # of what is in it, only wardkey's own words
    reason = " ".join(str(detail[name]) for name in ("sqlstate", "reason") if name in detail)
    reason = reason or ("authentication tag" if row["operation"] == "tampered" else "")
    return (
        row["operation"],
        row["subject"] or "(not known)",
        row["database_role"] or "",
        row["address"] or "",
        reason,
    )
