"""Plots as inline SVG: no script, no style attribute, every text escaped; a title on every mark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape

__all__ = ["COLOURS", "days_plot", "hours_plot", "series_plot"]

COLOURS = ("#2f6db3", "#e08a2c", "#8b95a5")  # rows read, rows written, events
_ALARM = "#c0392b"
_WIDTH, _LEFT, _BOTTOM = 1000, 56, 26


def days_plot(days: Mapping[date, Sequence[int]], names: Sequence[str]) -> str:
    """Return stacked bars, one a day."""
    height = 240
    most = _round_up(max((sum(counts) for counts in days.values()), default=0))
    step = (_WIDTH - _LEFT) / max(len(days), 1)
    parts = _axis(most, height)
    for number, (day, counts) in enumerate(days.items()):
        left, top = _LEFT + number * step, float(height - _BOTTOM)
        text = ", ".join(f"{count:,} {name}" for count, name in zip(counts, names, strict=True))
        bars = ""
        for count, colour in zip(counts, COLOURS, strict=True):
            tall = count / most * (height - _BOTTOM - 12)
            top -= tall
            if count:
                bars += _box(left + step * 0.12, top, step * 0.76, tall, colour)
        parts += f"<g><title>{day.isoformat()}: {escape(text)}</title>{bars}</g>"
    return _svg(
        "days", height, "rows read, rows written and events, by day", parts + _dates(list(days), step, height)
    )


def hours_plot(people: Mapping[str, Sequence[int]]) -> str:
    """Return a square for each person and hour of the day; the darker, the more."""
    tall, left, right = 24, 190, 74
    step = (_WIDTH - left - right) / 24
    most = max((max(hours) for hours in people.values()), default=0) or 1
    parts = "".join(
        _text(left + (hour + 0.5) * step, 14, f"{hour:02d}", "middle") for hour in range(24)
    ) + _text(_WIDTH, 14, "all", "end")
    for number, (name, hours) in enumerate(people.items()):
        top = 22 + number * tall
        parts += _text(left - 10, top + 16, _short(name, 22), "end", "name")
        for hour, count in enumerate(hours):
            shade = f"{escape(name)}, {hour:02d}:00 to {hour:02d}:59: {count:,}"
            weight = 0.12 + 0.88 * (count / most) ** 0.5
            ink = f'fill="{COLOURS[0]}" fill-opacity="{weight:.2f}"' if count else 'fill="#eef1f5"'
            place = (
                f'x="{left + hour * step + 1:.1f}" y="{top + 1}" width="{step - 2:.1f}" height="{tall - 2}"'
            )
            box = f'<rect {place} rx="3" {ink}/>'
            parts += f"<g><title>{shade}</title>{box}</g>"
        parts += _text(_WIDTH, top + 16, f"{sum(hours):,}", "end")
    return _svg("hours", 26 + len(people) * tall, "who is active at which hour of the day", parts)


def series_plot(days: Sequence[date], rows: Mapping[date, int], usual: float, flagged: set[date]) -> str:
    """Return a person's rows a day, with a line at what is usual and the unusual days in another colour."""
    height = 150
    most = _round_up(max([*rows.values(), usual], default=0))
    step = (_WIDTH - _LEFT) / max(len(days), 1)
    parts = _axis(most, height)
    scale = (height - _BOTTOM - 12) / most
    for number, day in enumerate(days):
        count = rows.get(day, 0)
        left, tall = _LEFT + number * step + step * 0.12, count * scale
        colour = _ALARM if day in flagged else COLOURS[0]
        bar = _box(left, height - _BOTTOM - tall, step * 0.76, tall, colour)
        parts += f"<g><title>{day.isoformat()}: {count:,} rows</title>{bar if count else ''}</g>"
    level = height - _BOTTOM - usual * scale
    parts += _line(level, 'stroke="#333" stroke-dasharray="5 4"')
    parts += _text(_WIDTH, level - 4, f"usual: {usual:,.0f}", "end")
    return _svg("series", height, "rows read by day", parts + _dates(days, step, height))


def _svg(kind: str, height: int, label: str, parts: str) -> str:
    box = f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label)}"'
    return f'<div class="scroll"><svg class="{kind}" {box}>{parts}</svg></div>'


def _axis(most: int, height: int) -> str:
    parts = ""
    for part in range(3):
        level = height - _BOTTOM - part / 2 * (height - _BOTTOM - 12)
        parts += _line(level, 'stroke="#dde2e9"')
        if part < 2 or most > 1:
            parts += _text(_LEFT - 8, level + 4, f"{most * part / 2:,.0f}", "end")
    return parts


def _line(level: float, stroke: str) -> str:
    return f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{level:.1f}" y2="{level:.1f}" {stroke}/>'


def _dates(days: Sequence[date], step: float, height: int) -> str:
    every = max(1, -(-len(days) // 12))
    return "".join(
        _text(_LEFT + (number + 0.5) * step, height - 8, f"{days[number]:%d %b}", "middle")
        for number in range(0, len(days), every)
    )


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _round_up(most: float) -> int:
    """Return a number for the top of an axis: 1, 2, 4, 6, 8 or 10 times a power of ten, at least 2."""
    unit = 1
    while unit * 10 < most:
        unit *= 10
    return next(unit * times for times in (2, 4, 6, 8, 10) if unit * times >= most)
