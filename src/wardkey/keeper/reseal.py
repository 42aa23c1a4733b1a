"""Sealed values of old DEK versions in, the same sealed under the new one out. Pure; no plaintext leaves it.

What comes is a row of fields, each::

    column id (16) · its class's number (1) · length (4, big-endian) · row id · length (4) · sealed value

and what goes for each, in the same order, is::

    length (4) · the value sealed under the new version and that class

A length of 0 says that the value does not open. A value that is under the new version and of the class
already goes as it came.

Where tokens are asked for, what goes for each field is, for each search of its column, number of tokens (4)
and these (8 each), made under the new version and that class; the number 2^32 - 1 says that the value does
not open, or has too many.
"""

from __future__ import annotations

import decimal  # noqa: F401 - what wardkey_core.search imports late: a keeper that gave its rights up finds nothing
import os
import struct
import unicodedata  # noqa: F401
from collections.abc import Mapping, Sequence
from contextlib import suppress
from struct import Struct

from cryptography.exceptions import InvalidTag
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import (
    FORMAT,
    HEADER_LENGTH,
    NONCE_LENGTH,
    OVERHEAD,
    ColumnKey,
    class_key,
    header,
)
from wardkey_core.errors import NeedleRefused
from wardkey_core.search import Search, Tokens, search_key

__all__ = ["reseal", "tokens"]

_NOT_FIELDS = "the keeper got fields that are not framed as they must be"
_DRAWN = NONCE_LENGTH * 1024  # random bytes drawn at once
_NONCE = slice(HEADER_LENGTH, HEADER_LENGTH + NONCE_LENGTH)
_CIPHERTEXT = slice(HEADER_LENGTH + NONCE_LENGTH, None)
_HEAD = Struct(">16sBI")
_LENGTH = Struct(">I")
_NONE = 2**32 - 1


def reseal(
    data: bytearray, tenant: bytes, deks: Mapping[int, bytes], to: int, classes: Mapping[int, str]
) -> int:
    """Put the answer to the fields in ``data`` at its beginning, and return how many bytes it has.

    In place, because a batch may have 512 MiB, and an answer is always shorter than its field. ``deks``: by
    version, those that values may be under and that of ``to``. ``classes``: names by number. Raises
    Unsupported when ``data`` are not fields, or one is to be of an unknown class.
    """
    keys = _Keys(tenant, deks, classes)
    targets = {number: header(number, to) for number in classes}
    nonces, drawn = b"", 0
    view = memoryview(data)
    position, written, end = 0, 0, len(data)
    while position < end:
        try:
            column, number, length = _HEAD.unpack_from(data, position)
            middle = position + _HEAD.size + length
            (length,) = _LENGTH.unpack_from(data, middle)
        except struct.error:
            raise Unsupported(_NOT_FIELDS) from None
        row = bytes(view[position + _HEAD.size : middle])
        position = middle + _LENGTH.size + length
        target = targets.get(number)
        if position > end or target is None:
            raise Unsupported(_NOT_FIELDS)
        value: bytes | memoryview = view[position - length : position]
        beginning, head = bytes(value[:HEADER_LENGTH]), b""
        if beginning != target or length < OVERHEAD:
            new = keys[column, target]
            try:
                opened = keys[column, beginning]
                plaintext = opened.decrypt(value[_NONCE], value[_CIPHERTEXT], opened.aad_prefix + row)
            except _DOES_NOT_OPEN:
                value = b""
            else:
                if drawn == len(nonces):
                    nonces, drawn = os.urandom(_DRAWN), 0
                nonce = nonces[drawn : drawn + NONCE_LENGTH]
                drawn += NONCE_LENGTH
                value = new.encrypt(nonce, plaintext, new.aad_prefix + row)
                del plaintext  # a value may have 20 MB: as few of it at once as can be
                head = target + nonce
        _LENGTH.pack_into(data, written, len(head) + len(value))
        written += _LENGTH.size
        for part in (head, value):
            view[written : written + len(part)] = part
            written += len(part)
    return written


def tokens(
    data: bytearray,
    tenant: bytes,
    deks: Mapping[int, bytes],
    to: int,
    classes: Mapping[int, str],
    searches: Mapping[bytes, Sequence[Search]],
) -> bytes:
    """Return the tokens of the fields in ``data``. ``searches``: by column id. Raises as ``reseal``."""
    keys = _Keys(tenant, deks, classes)
    makers: dict[tuple[Search, int], Tokens] = {}
    made: list[bytes] = []
    position, end = 0, len(data)
    while position < end:
        try:
            column, number, length = _HEAD.unpack_from(data, position)
            middle = position + _HEAD.size + length
            (length,) = _LENGTH.unpack_from(data, middle)
        except struct.error:
            raise Unsupported(_NOT_FIELDS) from None
        row = bytes(data[position + _HEAD.size : middle])
        position = middle + _LENGTH.size + length
        if position > end or number not in classes:
            raise Unsupported(_NOT_FIELDS)
        value = bytes(data[position - length : position])
        plaintext: bytes | None = None
        with suppress(*_DOES_NOT_OPEN):
            opened = keys[column, value[:HEADER_LENGTH]]
            plaintext = opened.decrypt(value[_NONCE], value[_CIPHERTEXT], opened.aad_prefix + row)
        for search in searches.get(column, ()):
            maker = makers.get((search, number))
            if maker is None:
                key = search_key(deks[to], tenant, to, classes[number])
                maker = makers[search, number] = Tokens(key, tenant, search)
            made.append(_framed(maker, plaintext))
    return b"".join(made)


def _framed(maker: Tokens, plaintext: bytes | None) -> bytes:
    try:
        numbers = None if plaintext is None else maker.of_value(plaintext)
    except (NeedleRefused, ArithmeticError, ValueError):
        numbers = None
    if numbers is None:
        return _LENGTH.pack(_NONE)
    return struct.pack(f">I{len(numbers)}q", len(numbers), *numbers)


# KeyError: no key of that version or class, or no sealed value. ValueError: too short for a nonce.
_DOES_NOT_OPEN = (InvalidTag, KeyError, ValueError)


class _Keys(dict[tuple[bytes, bytes], ColumnKey]):
    """By column id and what the values begin with."""

    def __init__(self, tenant: bytes, deks: Mapping[int, bytes], classes: Mapping[int, str]) -> None:
        super().__init__()
        self._tenant = tenant
        self._deks = deks
        self._classes = classes
        self._of_class: dict[bytes, bytes] = {}

    def __missing__(self, place: tuple[bytes, bytes]) -> ColumnKey:
        column, beginning = place
        if len(beginning) != HEADER_LENGTH or beginning[0] != FORMAT:
            raise KeyError
        number, version = beginning[1], int.from_bytes(beginning[2:], "big")
        key = self._of_class.get(beginning)
        if key is None:
            key = class_key(self._deks[version], self._tenant, version, self._classes[number])
            self._of_class[beginning] = key
        self[place] = ColumnKey(key, self._tenant, number, version, column)
        return self[place]
