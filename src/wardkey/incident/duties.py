"""The clocks of notices. What the law wants is data with dates: ``duties.toml``; this counts days."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

__all__ = ["clocks", "rules"]

_FILE = Path(__file__).with_name("duties.toml")


def rules(day: date) -> dict[str, Any]:
    """Return the rules for what is discovered on that day. Raises LookupError: there were none yet."""
    known = tomllib.loads(_FILE.read_text("utf-8"))["rules"]
    applying = [each for each in known if each["since"] <= day]
    if not applying:
        raise LookupError(f"no rules for what was discovered on {day}")
    newest: dict[str, Any] = max(applying, key=lambda each: each["since"])
    return newest


def clocks(discovered: datetime, patients: int, today: date) -> list[dict[str, Any]]:
    """Return the notices that one covered entity owes for so many patients, the first due first.

    The day of the discovery is day 0; a notice is due on the last day at the latest, without unreasonable
    delay. Days are UTC's.
    """
    day = discovered.astimezone(UTC).date()
    told = []
    for duty in rules(day)["duties"]:
        if not duty.get("more_than", 0) < patients < duty.get("less_than", patients + 1):
            continue
        start = day if duty["from"] == "discovery" else date(day.year, 12, 31)
        due = start + timedelta(days=duty["days"])
        shown = {name: duty[name] for name in ("section", "notice_to", "how")}
        told.append({**shown, "due": due.isoformat(), "days_left": (due - today).days})
    return sorted(told, key=lambda each: str(each["due"]))
