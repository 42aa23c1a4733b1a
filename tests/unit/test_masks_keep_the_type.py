"""A mask of a value is a value of its type, and shows no more than it says."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wardkey_core.errors import OpenFailed
from wardkey_pg.masks import KEYLESS, NULL, constant, masker

AREAS = [
    "036",
    "059",
    "063",
    "102",
    "203",
    "556",
    "692",
    "790",
    "821",
    "823",
    "830",
    "831",
    "878",
    "879",
    "884",
    "890",
    "893",
]
THIS_YEAR = datetime.now(UTC).year


def masked(mask: str, text: str, kind: str = "text") -> str:
    return masker(mask, kind)(text.encode()).decode()


@given(st.text())
def test_last4_shows_four_characters_of_eight_or_more(text: str) -> None:
    shown, whole = masked("last4", text), text.rstrip()
    assert shown == "****" + (whole[-4:] if len(whole) >= 8 else "")


@given(st.text())
def test_initial_shows_one_letter(text: str) -> None:
    shown = masked("initial", text)
    assert shown == (text.strip()[0] + "." if text.strip() else "")


@given(st.from_regex(r"[0-9]{5}(-?[0-9]{4})?", fullmatch=True))
def test_zip3_shows_three_digits_but_of_small_areas(code: str) -> None:
    assert masked("zip3", code) == ("000" if code[:3] in AREAS else code[:3])


@pytest.mark.parametrize(
    "code", [*(area + "01" for area in AREAS), "", "6270", "627045", "abcde", "62704-1", "６２７０４"]
)
def test_zip3_shows_nothing_of_small_areas_and_of_what_is_no_zip_code(code: str) -> None:
    assert masked("zip3", code) == "000"


@given(st.dates(max_value=date(THIS_YEAR, 1, 1)))
def test_year_shows_the_first_of_january_and_no_age_over_89(day: date) -> None:
    shown = date.fromisoformat(masked("year", day.isoformat(), "date"))
    assert (shown.month, shown.day) == (1, 1)
    assert shown.year == max(day.year, shown.year) and THIS_YEAR - shown.year <= 91


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2001-05-06T07:08:09.5", "2001-01-01T00:00:00"),
        ("2001-05-06 07:08:09+00", "2001-01-01 00:00:00+00"),
    ],
)
def test_year_of_timestamps(value: str, shown: str) -> None:
    assert masked("year", value) == shown


@pytest.mark.parametrize("value", ["infinity", "-infinity", "0044-03-15 BC", "44-03-15T00:00:00 BC", ""])
def test_what_has_no_year_is_null(value: str) -> None:
    assert masker("year", "date")(value.encode()) == NULL


@given(st.one_of(st.integers(), st.decimals(allow_nan=False, allow_infinity=False)))
def test_age90_shows_no_age_over_90(number: int | Decimal) -> None:
    assert Decimal(masked("age90", str(number))) == min(number, 90)


def test_nan_is_null() -> None:
    assert masker("age90", "numeric")(b"NaN") == NULL


@pytest.mark.parametrize("mask", ["last4", "initial", "zip3"])
def test_what_is_no_text_does_not_open(mask: str) -> None:
    with pytest.raises(OpenFailed):
        masker(mask, "text")(b"\xff\xfe")


def test_constants_need_no_plaintext_and_null_is_no_text() -> None:
    assert constant("redact", "text") == b"[redacted]" and constant("redact", "date") == NULL
    assert {constant(mask, "date") for mask in KEYLESS} == {NULL}
    with pytest.raises(UnicodeDecodeError):
        NULL.decode()


def test_an_unknown_mask_is_null() -> None:
    assert masker("blur", "text")(b"secret") == NULL
