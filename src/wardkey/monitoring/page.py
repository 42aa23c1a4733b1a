"""The dashboards as one page of HTML, for those without Grafana: it loads nothing and runs nothing.

Figures are those of the database and the keeper now, curves those of a Prometheus where one is named. The
page is the platform's, with all tenants, or one tenant's own, with nothing of another's.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ..daemon.sessions import connect
from ..keys.registry import tenant_id
from ..metrics.collecting import Collector
from ..metrics.registry import PLATFORM, Histogram, Metric, Values
from . import panels
from .history import HOURS, History
from .panels import Panel, Query

__all__ = ["View", "gather", "render"]

_NAMES: Final = "select id, name, status from ward_internal.tenants"
_MOST_LINES: Final = 8
_WIDTH, _HEIGHT = 320, 80
_COLUMNS: Final = ("transactions", "logins", "refusals", "rows_opened", "rows_written")
_PARTS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


@dataclass(frozen=True, slots=True)
class Curve:
    """``lines``: legend, newest value, points in an SVG of 320 by 80, and the last of them."""

    top: str
    lines: Sequence[tuple[str, str, str, tuple[str, str]]]
    left_out: int


@dataclass(frozen=True, slots=True)
class Card:
    """``figures``: what the panel shows, as it is now."""

    panel: Panel
    figures: Sequence[tuple[str, str]]
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class Owner:
    slug: str
    name: str
    status: str
    numbers: Sequence[str]
    cards: Sequence[Card]


@dataclass(frozen=True, slots=True)
class View:
    """``platform`` and ``together`` are empty where one tenant's page was asked for."""

    made: datetime
    platform: Sequence[Card]
    together: Sequence[Card]
    tenants: Sequence[Owner]


def gather(
    dsn: str, keeper: Path | None = None, tenant: str | None = None, history: History | None = None
) -> View:
    """Read everything as it is now. ``tenant``: the slug of the one whose page it is to be.

    Raises WardError, psycopg.Error.
    """
    with connect(dsn, "wardkey") as connection:
        if tenant is not None:
            tenant_id(connection, tenant)
        names = {one: (name, status) for one, name, status in connection.execute(_NAMES)}
    collector = Collector(dsn, keeper)
    try:
        now = collector.collect()
    finally:
        collector.close()

    def cards(of: Sequence[Panel], values: Mapping[Metric, Values], matcher: str) -> list[Card]:
        known = {metric.name: (metric, each) for metric, each in values.items()}
        curves = [_curve(panel, matcher, history) if history else None for panel in of]
        return [
            Card(panel, list(_figures(panel, known)), curve) for panel, curve in zip(of, curves, strict=True)
        ]

    owners = []
    for slug, identifier in sorted(now.tenants.items()):
        if tenant in (None, slug) and identifier in names:
            values = now.values.get(identifier, {})
            numbers = [_total(values, f"wardkey_{name}") for name in _COLUMNS]
            shown = cards(panels.TENANT, values, panels.of_tenant(slug))
            owners.append(Owner(slug, *names[identifier], numbers, shown))
    made = datetime.now(UTC)
    if tenant is not None:
        return View(made, [], [], owners)
    together = cards(panels.TENANT, {}, panels.CHOSEN.replace("$tenant", ".+")) if history else []
    return View(made, cards(panels.PLATFORM, now.values[PLATFORM], panels.OF_PLATFORM), together, owners)


def render(view: View) -> str:
    """Return the page; every value in it is escaped, and its policy (CSP) forbids scripts and loading."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    style = (folder / "dashboard.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    pages = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return pages.get_template("dashboard.html").render(
        view=view, style=style, policy=policy, columns=_COLUMNS, hours=HOURS
    )


def _figures(panel: Panel, known: Mapping[str, tuple[Metric, Values]]) -> Iterator[tuple[str, str]]:
    """Yield what is known now of the metrics that the panel shows."""
    for name in dict.fromkeys(name for query in panel.queries for name in query.metrics):
        if name in known:
            metric, values = known[name]
            title = name.removeprefix("wardkey_").removesuffix("_timestamp_seconds")
            for label, value in values.items():
                text = f"{title}: {label}" if label else title
                yield text.replace("_", " "), _said(metric, value, panel.unit)


def _said(metric: Metric, value: float | Histogram, unit: str) -> str:
    if isinstance(value, Histogram):
        total = sum(value.counts)
        parts = [f"p{part} {_quantile(value, part / 100)}" for part in (50, 99)] if total else []
        return ", ".join([*parts, f"{total:,} in all"])
    if metric.name.endswith("_timestamp_seconds"):
        apart = value - datetime.now(UTC).timestamp()
        told = f"in {_amount(apart, 's')}" if apart > 0 else f"{_amount(-apart, 's')} ago"
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M} UTC, {told}" if value else "never"
    return _amount(value, "bytes" if unit == "bytes" else "short")


def _quantile(histogram: Histogram, part: float) -> str:
    """Return the bound of the bucket in which the quantile lies."""
    wanted, seen = part * sum(histogram.counts), 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        seen += count
        if seen >= wanted:
            return f"≤ {_amount(bound, 's')}"
    return f"> {_amount(histogram.bounds[-1], 's')}"


def _total(values: Mapping[Metric, Values], name: str) -> str:
    numbers = (value for metric, each in values.items() if metric.name == name for value in each.values())
    return _amount(sum(value for value in numbers if not isinstance(value, Histogram)))


def _curve(panel: Panel, matcher: str, history: History) -> Curve | None:
    """Return the panel's course; None where Prometheus has no number of it."""
    series = [
        (_legend(query, labels), points)
        for query in panel.queries
        for labels, points in history.ask(query.of(matcher))
        if points
    ]
    if not series:
        return None
    most = max(value for _, points in series for _, value in points)
    across, up = _WIDTH / (history.end - history.begin), (_HEIGHT - 8) / (most if most > 0 else 1)
    lines = []
    for legend, points in series[:_MOST_LINES]:
        places = [
            (f"{(at - history.begin) * across:.1f}", f"{_HEIGHT - max(value, 0) * up:.1f}")
            for at, value in points
        ]
        drawn = " ".join(map(",".join, places))
        lines.append((legend, _amount(points[-1][1], panel.unit), drawn, places[-1]))
    return Curve(_amount(most, panel.unit), lines, len(series) - len(lines))


def _legend(query: Query, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), query.legend)


def _amount(value: float, unit: str = "short") -> str:
    """Return a number for people. ``unit``: as Panel has it."""
    if unit == "s":
        length, name = next((part for part in _PARTS if abs(value) >= part[0]), (1, "s"))
        return f"{value / length:.3g} {name}"
    if unit == "bytes" and abs(value) >= 2**20:
        return f"{value / 2**20:,.1f} MiB"
    text = f"{value:,.0f}" if value == round(value) else f"{value:,.3g}"
    return text + {"ops": "/s", "bytes": " bytes"}.get(unit, "")
