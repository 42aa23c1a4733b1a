"""What a role sees of a value that it may see masked: bytes of the value's canonical text in, others out.

A mask keeps the type: what comes out is the text of a value of it. ``redact`` and ``null`` need no key, and
none is asked for. Which mask fits which type is in ``ward_internal.mask_fits``.

``year`` and ``age90`` follow the safe harbor of 45 CFR 164.514(b)(2)(i): ages over 89 are one, and a year
that would tell one is shown as that of 90 years ago. ``zip3`` shows 000 for the three-digit areas that have
20,000 people or fewer in the census of 2000, as the guidance on de-identification of the HHS lists them.
"""

from __future__ import annotations

import time

from wardkey_core.errors import OpenFailed

__all__ = ["KEYLESS", "NULL", "Constant", "Masked", "constant", "masker"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wardkey_core.envelope import ColumnKey

KEYLESS = frozenset(("null", "redact"))
NULL = b"\xff wardkey shows null"  # stands for NULL, as null stands for a refusal; no text in UTF-8
_SMALL_AREAS = frozenset("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split())  # noqa: SIM905
_REDACTED = {
    "text": b"[redacted]",
    "character varying": b"[redacted]",
    "character": b"[redacted]",
    "json": b'"[redacted]"',
    "jsonb": b'"[redacted]"',
    "text[]": b"{[redacted]}",
    "bytea": b"",
}
_SHOWN = 4  # characters of last4
_OLDEST = 90  # years
_YEAR = 31_556_952  # seconds, on average


class Masked:
    """Opens values as its key does, and shows the mask."""

    __slots__ = ("_key", "_mask", "aad_prefix", "decrypt", "header")

    def __init__(self, key: ColumnKey, mask: Callable[[bytes], bytes]) -> None:
        decrypt = key.decrypt
        self._key = key
        self._mask = mask
        self.header = key.header
        self.aad_prefix = key.aad_prefix
        self.decrypt = lambda nonce, ciphertext, aad: mask(decrypt(nonce, ciphertext, aad))

    def open(self, sealed: bytes, row: bytes) -> bytes:
        return self._mask(self._key.open(sealed, row))


class Constant:
    """Opens nothing: whatever the value, it shows the same."""

    __slots__ = ("_shown", "aad_prefix", "decrypt", "header")

    def __init__(self, header: bytes, shown: bytes) -> None:
        self._shown = shown
        self.header = header
        self.aad_prefix = b""
        self.decrypt = lambda nonce, ciphertext, aad: shown

    def open(self, sealed: bytes, row: bytes) -> bytes:
        return self._shown


def constant(mask: str, kind: str) -> bytes:
    """Return what a mask without a key shows of any value of type ``kind``."""
    return _REDACTED.get(kind, NULL) if mask == "redact" else NULL


def masker(mask: str, kind: str) -> Callable[[bytes], bytes]:
    """Return what makes the mask of a plaintext; of an unknown one, NULL."""
    if mask == "year":
        return _year
    if mask == "age90":
        return _age90
    text = _TEXTS.get(mask)
    if text is None:
        return lambda plaintext: NULL

    def shown(plaintext: bytes) -> bytes:
        try:
            return text(plaintext.decode()).encode()
        except UnicodeDecodeError:
            raise OpenFailed from None

    return shown


def _last4(text: str) -> str:
    text = text.rstrip()  # of a character(n)
    return "****" + (text[-_SHOWN:] if len(text) >= 2 * _SHOWN else "")


def _initial(text: str) -> str:
    first = text.strip()[:1]
    return first and first + "."


def _zip3(text: str) -> str:
    text = text.strip()
    head, rest = text[:5], text[5:].lstrip("-")
    is_zip = len(head) == 5 and head.isdecimal() and head.isascii()
    has_more = not rest or (len(rest) == 4 and rest.isdecimal())
    return head[:3] if is_zip and has_more and head[:3] not in _SMALL_AREAS else "000"


def _year(plaintext: bytes) -> bytes:
    """2026-11-29 as 2026-01-01, and the same of timestamps: 2026-11-29T10:00:00, 2026-11-29 10:00:00+00."""
    year, _, rest = plaintext.partition(b"-")
    if not year.isdigit() or rest.endswith(b"BC") or rest[2:3] != b"-":
        return NULL  # infinity, and what is older than any person
    oldest = int(1970 + time.time() / _YEAR) - _OLDEST
    shown = b"%04d-01-01" % max(int(year), oldest)
    if len(rest) > 5:
        shown += rest[5:6] + (b"00:00:00+00" if b"+" in rest else b"00:00:00")
    return shown


def _age90(plaintext: bytes) -> bytes:
    from decimal import Decimal, InvalidOperation

    try:
        return plaintext if Decimal(plaintext.decode()) < _OLDEST else b"%d" % _OLDEST
    except (InvalidOperation, ValueError):
        return NULL  # NaN


_TEXTS: dict[str, Callable[[str], str]] = {"last4": _last4, "initial": _initial, "zip3": _zip3}
