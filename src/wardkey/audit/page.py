"""The report as one page of HTML: it loads nothing and runs nothing, and its policy (CSP) forbids both.

Every text is escaped. There is no value in it, no row's id and no free text of a tenant's: names of people,
tables, columns and roles, counts and times.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any

from .plots import COLOURS, days_plot, hours_plot, series_plot
from .questions import Facts

__all__ = ["render"]

_MOST_PEOPLE, _MOST_LINES = 40, 200
_KINDS = ("rows read", "rows written", "events")
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"


def render(facts: Facts) -> str:
    """Return the page."""
    zone = str(facts.zone)
    title = f"Audit report: {facts.slug}"
    period = f"{_time(facts.begin, facts)} to {_time(facts.end, facts)} ({zone})"
    body = "".join(
        (
            _tiles(facts),
            _verdict(facts),
            _anomalies(facts),
            _section(
                "days", "Activity by day", f"Days of {zone}.", _legend() + days_plot(facts.days, _KINDS)
            ),
            _hours(facts, zone),
            _people(facts),
            _tables(facts),
            _refusals(facts),
            _keys(facts),
        )
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>
<p>{escape(period)}</p>
<p>Tenant {facts.tenant} · made {_time(facts.made, facts)} by wardkey</p></header>
<main>
{body}
<footer>No value of any table is in this page, and no row's id. Who, when and which columns of a given row:
<code>wardkey audit who-read TABLE ROW --tenant {escape(facts.slug)}</code></footer>
</main>
</body>
</html>
"""


def _tiles(facts: Facts) -> str:
    reads, writes, events = facts.totals
    shown = (
        ("rows read", reads, False),
        ("rows written", writes, False),
        ("events", events, False),
        ("people", sum(bool(person.roles) for person in facts.people), False),
        ("refusals", len(facts.refusals), bool(facts.refusals)),
        ("unusual days", len(facts.anomalies), bool(facts.anomalies)),
    )
    tiles = "".join(
        f'<div class="tile{" alarm" if alarm else ""}"><b>{count:,}</b><span>{name}</span></div>'
        for name, count, alarm in shown
    )
    return f'<div class="tiles">{tiles}</div>'


def _verdict(facts: Facts) -> str:
    verified = facts.verified
    if not verified["ok"]:
        defect = escape(verified["defect"]["message"])
        said = f"<p><strong>The log is not as it was sealed.</strong> {defect}</p>"
        return _section("verdict", "Is the log whole?", "", said, "verdict bad")
    if not verified["checkpoints"]:
        said = "<p>No checkpoint was signed yet: nothing vouches for what this page says.</p>"
        return _section("verdict", "Is the log whole?", "", said, "verdict bad")
    keys = ", ".join(f"<code>{escape(key)}</code>" for key in verified["keys"])
    said = (
        f"<p><strong>Yes.</strong> All {verified['entries']:,} sealed entries of the log are those that its"
        f" {verified['checkpoints']:,} checkpoints sign, the newest of {escape(verified['as_of'])}."
        f" Newer ones, not sealed yet: {verified['unsealed']:,}.</p>"
        f"<p>Root <code>{escape(verified['root'])}</code><br>"
        f"Signed by {keys}: compare it with the key you were given.</p><p>To check it yourself, without us:"
        f" <code>wardkey audit export --tenant {escape(facts.slug)} --output log.jsonl</code>, then"
        " <code>wardkey audit verify log.jsonl --key KEY</code></p>"
    )
    said += "".join(
        f"<p><strong>Reads may be missing</strong> of {escape(gap['since'])} to {escape(gap['until'])}:"
        f" {escape(gap['why'])}.</p>"
        for gap in verified["gaps"]
    )
    return _section(
        "verdict", "Is the log whole?", "", said, "verdict bad" if verified["gaps"] else "verdict"
    )


def _anomalies(facts: Facts) -> str:
    about = (
        "Days on which somebody read far more different rows than usual. Usual is the median of that person's"
        " other days within 90 days. Far is counted in median absolute deviations, scaled to standard ones."
        " Neither is moved by a few extreme days. A subject with fewer than five other days is not judged."
    )
    if not facts.anomalies:
        return _section("anomalies", "Unusual reading", about, "<p>None in this period.</p>")
    first, last = facts.begin.toordinal(), (facts.end - timedelta(microseconds=1)).toordinal()
    days = [date.fromordinal(number) for number in range(first, last + 1)]
    parts = ""
    for subject in dict.fromkeys(row["subject"] for row in facts.anomalies):
        own = [row for row in facts.anomalies if row["subject"] == subject]
        lines = "".join(
            f"<li>{escape(row['explanation'][:1].upper() + row['explanation'][1:])}.</li>" for row in own
        )
        usual = float(own[0]["usual"])
        plot = series_plot(days, facts.series[subject], usual, {row["day"] for row in own})
        parts += f"<h3>{escape(subject)}</h3><ul>{lines}</ul>{plot}"
    return _section("anomalies", "Unusual reading", about, parts)


def _hours(facts: Facts, zone: str) -> str:
    shown = dict(list(facts.hours.items())[:_MOST_PEOPLE])
    about = f"What each person did, by hour of the day ({zone}). The darker, the more."
    about += _left_out(facts.hours, shown)
    return _section("hours", "Who is active when", about, hours_plot(shown) if shown else "<p>Nobody.</p>")


def _people(facts: Facts) -> str:
    rows = [
        (person.name, ", ".join(sorted(person.roles)), person.reads, person.writes, person.events,
         _time(person.first, facts), _time(person.last, facts))
        for person in facts.people[:_MOST_LINES]
    ]  # fmt: skip
    head = ("who", "roles", "rows read", "rows written", "events", "first hour", "last hour")
    about = f"Subjects of tokens; a database role where nobody was logged in.{_left_out(facts.people, rows)}"
    return _section("people", "People", about, _table(head, rows))


def _tables(facts: Facts) -> str:
    rows = [
        (row["table_name"] or "(unknown)", row["reads"], row["writes"], row["people"],
         ", ".join(filter(None, row["columns"] or [])))
        for row in facts.tables[:_MOST_LINES]
    ]  # fmt: skip
    about = "Sealed columns that were opened, and what was written."
    return _section(
        "tables",
        "Tables",
        about,
        _table(("table", "rows read", "rows written", "people", "columns read"), rows),
    )


def _refusals(facts: Facts) -> str:
    def line(row: dict[str, Any]) -> tuple[str, ...]:
        detail = row["detail"] or {}  # of what is in it, only wardkey's own words
        reason = " ".join(str(detail[name]) for name in ("sqlstate", "reason") if name in detail)
        reason = reason or ("authentication tag" if row["operation"] == "tampered" else "")
        who = (row["subject"] or "(not known)", row["database_role"] or "", row["address"] or "")
        return _time(row["at"], facts), row["operation"], *who, reason

    rows = [line(row) for row in facts.refusals[-_MOST_LINES:]]
    about = (
        "A refusal has no name: the token could not be trusted. A value that failed its"
        " authentication tag was altered, moved, or sealed under another key."
    )
    about += _left_out(facts.refusals, rows)
    head = ("when", "what", "who", "database role", "address", "reason")
    return _section("refusals", "Refusals and tampering", about, _table(head, rows))


def _keys(facts: Facts) -> str:
    def line(row: dict[str, Any]) -> tuple[str | int, ...]:
        what = row["operation"].replace("_", " ")
        return _time(row["at"], facts), what, row["version"] or "", row["who"] or "", row["times"]

    rows = [line(row) for row in facts.keys[-_MOST_LINES:]]
    about = "The life of the tenant's data key; releases are counted by day and person."
    about += _left_out(facts.keys, rows)
    return _section("keys", "Keys", about, _table(("when", "what", "version", "who", "times"), rows))


def _section(name: str, title: str, about: str, content: str, kind: str = "") -> str:
    said = f'<p class="about">{escape(about.strip())}</p>' if about else ""
    return f'<section id="{name}" class="{kind}"><h2>{escape(title)}</h2>{said}{content}</section>\n'


def _legend() -> str:
    items = "".join(
        '<li><svg viewBox="0 0 12 12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="2" fill="{colour}"/></svg>{name}</li>'
        for colour, name in zip(COLOURS, _KINDS, strict=True)
    )
    return f'<ul class="legend">{items}</ul>'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = "".join(
        f"<tr>{''.join(_cell(value, name) for value, name in zip(row, head, strict=True))}</tr>"
        for row in rows
    )
    if not lines:
        return "<p>None in this period.</p>"
    numbers = ("rows read", "rows written", "events", "people", "times")
    cells = "".join(
        f'<th scope="col"{_class("number" if name in numbers else "")}>{escape(name)}</th>' for name in head
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: Any, name: str) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    kind = "time" if name in ("when", "first hour", "last hour") else ""
    return f"<td{_class(kind)}>{escape(str(value))}</td>"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _left_out(rows: Any, shown: Any) -> str:
    return f" {len(rows) - len(shown):,} more are not shown." if len(rows) > len(shown) else ""


def _time(moment: datetime | None, facts: Facts) -> str:
    return "" if moment is None else f"{moment.astimezone(facts.zone):%Y-%m-%d %H:%M}"
