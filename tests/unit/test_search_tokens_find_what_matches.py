"""A value has the tokens of every needle that it matches, whatever the text; ranges are covered exactly."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wardkey_core.errors import NeedleRefused
from wardkey_core.search import (
    KINDS,
    UNIQUE,
    Search,
    Tokens,
    matcher,
    needle_terms,
    normalised,
    search_key,
    terms,
)

_VECTORS = json.loads((Path(__file__).parents[1] / "vectors/search.json").read_text())
_TEXTS = [kind for kind in KINDS if kind not in ("range/1", *UNIQUE)]  # by unique ones nothing is looked up
_COLUMN = bytes(range(16))


def _search(kind: str, normaliser: str = "text/1", step: str = "") -> Search:
    return Search(_COLUMN, kind, normaliser, step)


@pytest.mark.parametrize("vector", _VECTORS, ids=lambda vector: f"{vector['kind']} {vector['plaintext']}")
def test_code_makes_the_vectors(vector: dict[str, str]) -> None:
    """Keys and tokens are made here a second time, with hashlib and hmac alone."""
    dek, tenant, column = (bytes.fromhex(vector[name]) for name in ("dek", "tenant", "column"))
    search = Search(column, vector["kind"], vector["normaliser"], vector["step"])
    key = search_key(dek, tenant, 7, "identifier")

    def derived(secret: bytes, info: bytes) -> bytes:
        return _mac(_mac(tenant, secret), info + b"\x01")

    assert key == derived(dek, b"wardkey/1 search" + (7).to_bytes(4, "big") + b"identifier")
    text = f"{search.kind} {search.normaliser} {search.step}".encode()
    token_key = derived(key, b"wardkey/1 token" + column + text)
    made = Tokens(key, tenant, search).of_value(vector["plaintext"].encode())
    assert made == vector["tokens"]
    for term in terms(search, vector["plaintext"].encode()):
        assert int.from_bytes(_mac(token_key, term)[:8], "big", signed=True) in made


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


@settings(deadline=None, max_examples=200)
@given(kind=st.sampled_from(_TEXTS), text=st.text(max_size=30), needle=st.text(max_size=12), part=st.data())
def test_what_matches_has_the_needles_terms(kind: str, text: str, needle: str, part: st.DataObject) -> None:
    if part.draw(st.booleans()) and text:  # a needle that is of the text
        start = part.draw(st.integers(0, len(text) - 1)) if kind == "substring/1" else 0
        needle = text[start : part.draw(st.integers(start, len(text)))]
    try:
        wanted = needle_terms(_search(kind), needle)
    except NeedleRefused:
        return
    assert wanted
    if matcher(kind, "text/1", needle)(text):
        assert set(wanted) <= set(terms(_search(kind), text.encode()))


@settings(deadline=None, max_examples=200)
@given(first=st.integers(-(2**40), 2**40), width=st.integers(0, 5000), value=st.integers(-(2**40), 2**40))
def test_a_range_is_covered_and_nothing_beside_it(first: int, width: int, value: int) -> None:
    search = _search("range/1", "number/1")
    inside = range(first, first + width + 1)
    cover = set(needle_terms(search, f"{first}/{first + width}"))
    for one in (value, first, first + width, first - 1, first + width + 1, first + width // 2):
        is_covered = not cover.isdisjoint(terms(search, str(one).encode()))
        if min(one, first) > -(2**31) and max(one, first + width) < 2**31 - 1:
            assert is_covered == (one in inside)
        elif one in inside:
            assert is_covered
    assert len(cover) <= 6 * 16


@given(day=st.dates(), other=st.dates())
def test_days_are_those_of_the_calendar(day: date, other: date) -> None:
    search = _search("range/1", "day/1")
    after = day + timedelta(days=1) if day < date.max else day
    cover = set(needle_terms(search, f"{day.isoformat()}/{after.isoformat()}"))
    near = date(600, 1, 1) < min(day, other) and max(day, other) < date(3300, 1, 1)
    made = not cover.isdisjoint(terms(search, f"{other.isoformat()}T10:00:00".encode()))
    if near or other in (day, after):
        assert made == (other in (day, after))


@pytest.mark.parametrize("kind", _TEXTS)
def test_sets_of_one_step_look_alike(kind: str) -> None:
    tokens = Tokens(bytes(32), bytes(16), _search(kind))
    sizes = {len(tokens.of_value(text.encode())) for text in ("", "a", "ab", "Ada", "Ada Lo", "Ada L")}
    assert sizes == ({1} if kind == "exact/1" else {4, 8} if kind == "prefix/1" else {4})
    assert tokens.of_value(b"Ada") == sorted(tokens.of_value(b"Ada"))


@pytest.mark.parametrize("kind", _TEXTS)
def test_searches_share_no_token(kind: str) -> None:
    """Nor do tenants, columns, kinds and normalisers: equal values cannot be told across them."""
    searches = [_search(kind), _search(kind, "none/1"), Search(bytes(16), kind, "text/1")]
    others = [_search(other) for other in _TEXTS if other != kind]
    makers = [Tokens(bytes(32), bytes(16), one) for one in (*searches, *others)]
    makers += [Tokens(bytes(32), b"t" * 16, searches[0]), Tokens(b"k" * 32, bytes(16), searches[0])]
    made = [token for maker in makers for token in maker.of_value(b"ada lovelace")]
    assert len(set(made)) == len(made)


def test_too_long_a_value_is_refused() -> None:
    with pytest.raises(NeedleRefused):
        Tokens(bytes(32), bytes(16), _search("words/1")).of_value(" ".join(map(str, range(10_001))).encode())


@pytest.mark.parametrize(
    ("normaliser", "texts", "left"),
    [
        (
            "text/1",
            ["  O'Brien-Müller ", "OBRIEN  muller", "o\N{RIGHT SINGLE QUOTATION MARK}brien.muller"],
            "obrien muller",
        ),
        ("text/1", ["STRASSE", "straße"], "strasse"),
        ("digits/1", ["078-05-1120", "(078) 051120"], "078051120"),
        ("phone/1", ["(617) 555-0100", "+1 617 555 0100", "16175550100", "001-617-555-0100"], "+16175550100"),
        ("email/1", [" Ada@Example.ORG "], "ada@example.org"),
        ("number/1", ["1.50", "1.5"], "1.5"),
        ("number/1", ["100", "100.0"], "100"),
        ("none/1", [" a "], " a "),
    ],
)
def test_normalisers_leave_what_counts(normaliser: str, texts: list[str], left: str) -> None:
    assert {normalised(normaliser, text) for text in texts} == {left}


@pytest.mark.parametrize(
    ("step", "low", "high", "inside", "outside"),
    [
        ("0.1", "1.0", "1.2", ["1.0", "1.15", "1.29"], ["0.99", "1.3", "NaN", "-Infinity"]),
        ("", "-5", "5", ["-5", "-0.5", "5.9"], ["-5.1", "6", "1e999"]),
        ("1000", "0", "0", ["999"], ["1000", "-1"]),
    ],
)
def test_steps_round_down(step: str, low: str, high: str, inside: list[str], outside: list[str]) -> None:
    search = _search("range/1", "number/1", step)
    cover = set(needle_terms(search, f"{low}/{high}"))
    assert [one for one in inside if cover.isdisjoint(terms(search, one.encode()))] == []
    assert [one for one in outside if not cover.isdisjoint(terms(search, one.encode()))] == []
