"""Tokens of sealed values, by which they are found, and what of two plaintexts matches. Pure.

A token says that two values are equal in one respect, under one key, and nothing else::

    search key  HKDF-SHA256 of the tenant's DEK, salt = tenant id (16 bytes), info = "wardkey/1 search" ·
                DEK version (4, big-endian) · name of the class
    token key   HKDF-SHA256 of the search key, salt = tenant id, info = "wardkey/1 token" · column id (16) ·
                kind · " " · normaliser · " " · step, in UTF-8
    token       the first 8 bytes of HMAC-SHA256 (token key, term), a signed big-endian integer

The search key derives from the DEK, not from the class key: who has that to show masks cannot make tokens.
What the terms of a value are, its *kind* says; what is left of a text before that, its *normaliser*:

* ``exact``: the text. One token.
* ``unique_odd``, ``unique_even``: the same, under the live key whose version is odd, or even: while a key is
  replaced by the next, each row has both, and two rows with one value have one token in common. Nothing is
  looked up by these.
* ``prefix``: its first 2 to 12 characters; a longer needle is looked up by its first 12.
* ``words``: its words.
* ``substring``: all runs of 3 characters.
* ``phonetic``: the American Soundex of each word.
* ``range``: the intervals of 4^n units, aligned, that hold the value's unit: a day, or a step of a number. A
  range is looked up by the fewest intervals that cover it. No order of rows can be seen. 10 intervals for
  days, of 1,435 years before and after 1970, and 16 for steps, of 2^31 below and above 0; what lies beyond
  counts as the outermost unit.

The sets of tokens of prefix, words, substring and phonetic are filled up: to a multiple of 4 up to 16 tokens,
of 16 up to 128, of 64 beyond. What fills is HMAC of 0x00, a number and the text.

Both names carry a version (``text/1``): what they do does not change under it. ``tests/vectors/search.json``
has vectors.
"""

from __future__ import annotations

from .ciphers import hkdf, sha256
from .errors import NeedleRefused
from .records import Record

__all__ = [
    "KINDS",
    "NORMALISERS",
    "SINGLE",
    "UNIQUE",
    "Search",
    "Tokens",
    "is_any",
    "matcher",
    "needle_terms",
    "search_key",
    "terms",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNIQUE = ("unique_even/1", "unique_odd/1")  # by version % 2
SINGLE = ("exact/1", *UNIQUE)  # one token, no set of them
KINDS = (*SINGLE, "prefix/1", "words/1", "substring/1", "phonetic/1", "range/1")
NORMALISERS = ("none/1", "text/1", "digits/1", "email/1", "phone/1", "number/1", "day/1")
MOST_TERMS = 10_000
SHORTEST_PREFIX, LONGEST_PREFIX = 2, 12
GRAM = 3
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
_BITS = {"day/1": 20, "number/1": 32}
_ASCII_CODES = {
    letter: code
    for code, letters in enumerate(("bfpv", "cgjkqsxz", "dt", "l", "mn", "r"), 1)
    for letter in letters
}


class Search(Record):
    """How a sealed column is searched: its id; kind and normaliser, with version; step, as text or empty."""

    column: bytes
    kind: str
    normaliser: str
    step: str = ""


def search_key(dek: bytes, tenant: bytes, version: int, name: str) -> bytes:
    """Return the search key of the class called ``name``, of a tenant (16 bytes) and DEK version."""
    return hkdf(dek, tenant, b"wardkey/1 search" + version.to_bytes(4, "big") + name.encode())


class Tokens:
    """Makes the tokens of one search under one key."""

    __slots__ = ("_inner", "_outer", "_search")

    def __init__(self, key: bytes, tenant: bytes, search: Search) -> None:
        text = f"{search.kind} {search.normaliser} {search.step}".encode()
        block = hkdf(key, tenant, b"wardkey/1 token" + search.column + text).ljust(64, b"\0")
        self._search = search
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def of_term(self, term: bytes) -> int:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(term)
        outer.update(inner.digest())
        return int.from_bytes(outer.digest()[:8], "big", signed=True)

    def of_value(self, plaintext: bytes) -> list[int]:
        """Return the tokens of a value, filled up and in order. Raises NeedleRefused for too many."""
        its = terms(self._search, plaintext)
        if len(its) > MOST_TERMS:
            raise NeedleRefused(
                "the value is too long to be searched", "shorten it, or drop the search: ward.drop_search"
            )
        made = set(map(self.of_term, its))
        if self._search.kind not in (*SINGLE, "range/1"):
            head = sha256(plaintext).digest()
            number, size = 0, _filled(len(made))
            while len(made) < size:
                made.add(self.of_term(b"\0" + number.to_bytes(4, "big") + head))
                number += 1
        return sorted(made)


def is_any(search: Search) -> bool:
    """Whether a row matches that has any of a needle's tokens; else it has all."""
    return search.kind in ("exact/1", "range/1")


def terms(search: Search, plaintext: bytes) -> list[bytes]:
    """Return the terms of a value, which is the canonical text."""
    if search.kind == "range/1":
        return _intervals(search, _position(search, plaintext.decode()))
    text = normalised(search.normaliser, plaintext.decode())
    match search.kind:
        case "exact/1" | "unique_odd/1" | "unique_even/1":
            return [text.encode()]
        case "prefix/1":
            ends = range(SHORTEST_PREFIX, min(len(text), LONGEST_PREFIX) + 1)
            return [text[:end].encode() for end in ends]
    return [term.encode() for term in _parts(search.kind, text)]


def needle_terms(search: Search, needle: str) -> list[bytes]:
    """Return what rows that match have, all of it or any. Of a range the needle is: from/to, both included.

    Raises NeedleRefused for one that is empty, too short, or would match all.
    """
    if search.kind == "range/1":
        return _cover(search, needle)
    text = normalised(search.normaliser, needle)
    if not text:
        raise NeedleRefused("a search needs something to look for", "nothing is left of what was given")
    match search.kind:
        case "exact/1":
            return [text.encode()]
        case "prefix/1":
            if len(text) < SHORTEST_PREFIX:
                raise NeedleRefused(
                    "the beginning is too short", f"give {SHORTEST_PREFIX} characters or more"
                )
            return [text[:LONGEST_PREFIX].encode()]
    parts = _parts(search.kind, text)
    if not parts:
        if search.kind == "substring/1":
            raise NeedleRefused("the part is too short", f"give {GRAM} characters or more")
        raise NeedleRefused("a search needs something to look for", "give a word with letters")
    return [term.encode() for term in parts]


def matcher(kind: str, normaliser: str, needle: str) -> Callable[[str], bool]:
    """Return what tells of a value's text whether it matches. Ranges are compared by PostgreSQL."""
    wanted = normalised(normaliser, needle)
    if kind == "exact/1":
        return lambda text: normalised(normaliser, text) == wanted
    if kind == "prefix/1":
        return lambda text: normalised(normaliser, text).startswith(wanted)
    if kind == "substring/1":
        return lambda text: wanted in normalised(normaliser, text)
    parts = set(_parts(kind, wanted))
    return lambda text: parts <= set(_parts(kind, normalised(normaliser, text)))


def normalised(normaliser: str, text: str) -> str:
    """Return what of a text counts."""
    match normaliser:
        case "text/1":
            return _plain(text)
        case "email/1":
            return text.strip().casefold()
        case "digits/1":
            return "".join(filter(str.isdecimal, text))
        case "phone/1":
            return _phone(text)
        case "number/1":
            whole, point, rest = text.partition(".")
            return f"{whole}.{rest}".rstrip("0").rstrip(".") if point else whole
    return text


def _plain(text: str) -> str:
    """Case, accents and apostrophes go; what is neither letter nor digit is one space."""
    if not text.isascii():
        from unicodedata import combining, normalize  # most texts need neither

        text = "".join(mark for mark in normalize("NFKD", text) if not combining(mark))
    text = text.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "").casefold()
    return " ".join("".join(mark if mark.isalnum() else " " for mark in text).split())


def _phone(text: str) -> str:
    """E.164; a number without country code is one of North America."""
    digits = "".join(filter(str.isdecimal, text))
    if not digits:
        return ""
    if text.strip().startswith("+"):
        return "+" + digits
    if digits.startswith("00"):
        return "+" + digits[2:]
    return "+" + digits if len(digits) == 11 and digits[0] == "1" else "+1" + digits


def _parts(kind: str, text: str) -> list[str]:
    match kind:
        case "words/1":
            return sorted(set(text.split()))
        case "substring/1":
            return sorted({text[at : at + GRAM] for at in range(len(text) - GRAM + 1)})
    return sorted({code for word in text.split() if (code := _soundex(word))})


def _soundex(word: str) -> str:
    letters = [letter for letter in word if "a" <= letter <= "z"]
    if not letters:
        return ""
    code, last = letters[0], _ASCII_CODES.get(letters[0], 0)
    for letter in letters[1:]:
        digit = _ASCII_CODES.get(letter, 0)
        if digit and digit != last:
            code += str(digit)
        if letter not in "hw":
            last = digit
    return code[:4].ljust(4, "0")


def _filled(count: int) -> int:
    step = 4 if count <= 16 else 16 if count <= 128 else 64
    return max(-(-count // step), 1) * step


def _position(search: Search, text: str) -> int:
    """Return the unit that a value is in, from 0: those beyond the ends are the ends."""
    half = 1 << (_BITS[search.normaliser] - 1)
    unit = _day(text) if search.normaliser == "day/1" else _step(text, search.step)
    return half + (max(-half, min(half - 1, unit)))


def _day(text: str) -> int:
    """Return days since 1970 of a date or timestamp in ISO 8601."""
    if text.endswith("BC") or text.startswith("-"):
        return -(1 << 60)
    try:
        year, month, day = (int(part) for part in (*text.split("-", 2)[:2], text.split("-", 2)[2][:2]))
    except (ValueError, IndexError):
        return 1 << 60  # infinity
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)  # years that begin in March
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469


def _step(text: str, step: str) -> int:
    if not step and "." not in text and text.lstrip("-").isdecimal():
        return int(text)
    from decimal import ROUND_FLOOR, Context, Decimal

    value = Decimal(text)
    if not value.is_finite():
        return -(1 << 60) if value.is_signed() else 1 << 60
    if value.adjusted() - Decimal(step or 1).adjusted() > 12:  # far beyond the ends
        return -(1 << 60) if value.is_signed() else 1 << 60
    context = Context(prec=60)
    return int(context.divide(value, Decimal(step or 1)).to_integral_value(ROUND_FLOOR))


def _intervals(search: Search, position: int) -> list[bytes]:
    return [_interval(level, position >> 2 * level) for level in range(_BITS[search.normaliser] // 2)]


def _interval(level: int, number: int) -> bytes:
    return bytes((level,)) + number.to_bytes(4, "big")


def _cover(search: Search, needle: str) -> list[bytes]:
    low, _, high = needle.partition("/")
    if not low and not high:
        raise NeedleRefused("a range needs an end", "give from, to, or both; an empty range matches nothing")
    last = (1 << _BITS[search.normaliser]) - 1
    first = _position(search, low) if low else 0
    last = _position(search, high) if high else last
    return list(_covering(first, last, _BITS[search.normaliser] // 2)) or [
        b""
    ]  # from after to: no row has it


def _covering(first: int, last: int, levels: int) -> Iterator[bytes]:
    for level in range(levels):
        is_top = level == levels - 1
        while first <= last and (is_top or first & 3):
            yield _interval(level, first)
            first += 1
        while first <= last and ~last & 3:
            yield _interval(level, last)
            last -= 1
        if first > last:
            return
        first, last = first >> 2, last >> 2
