"""Moments as people type them: ``2026-03-01``, ``2026-03-01T08:30``, ``7d``, ``12h``, ``30m``."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

__all__ = ["parse_moment"]

_AGO = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str, now: datetime) -> datetime:
    """Return the moment that ``text`` names; ``7d`` is seven days before ``now``.

    A date or time without zone is in that of ``now``. Raises ValueError for the rest and the future.
    """
    if ago := _AGO.fullmatch(text.strip()):
        try:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        except OverflowError:
            raise ValueError("that is too long ago") from None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None:
        raise ValueError("not a date, a time or an age such as 7d, 12h, 30m")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=now.tzinfo)
    if moment > now:
        raise ValueError("that is in the future")
    return moment
