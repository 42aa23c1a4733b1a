from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from wardkey.keys.when import parse_moment

NOW = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        (" 7d ", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_ages(text, ago):
    assert parse_moment(text, NOW) == NOW - ago


def test_dates_and_times_are_local_unless_they_say_otherwise():
    assert parse_moment("2026-05-30", NOW) == datetime(2026, 5, 29, 22, tzinfo=UTC)
    assert parse_moment("2026-05-30T08:30", NOW) == datetime(2026, 5, 30, 6, 30, tzinfo=UTC)
    assert parse_moment("2026-05-30T08:30+00:00", NOW) == datetime(2026, 5, 30, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["yesterday", "", "7", "7y", "-7d", "7 d", "٧d", "99999999d", "999999w", "2026-13-01", "2027-01-01"],
)
def test_anything_else_and_the_future_are_refused(text):
    with pytest.raises(ValueError, match=r"ago|not a date|future"):
        parse_moment(text, NOW)
