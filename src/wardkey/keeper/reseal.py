"""Sealed values of old DEK versions in, the same sealed under the new one out. Pure; no plaintext leaves it.

What comes is a row of fields, each::

    column id (16) · its class's number (1) · length (4, big-endian) · row id · length (4) · sealed value

and what goes for each, in the same order, is::

    length (4) · the value sealed under the new version and that class

A length of 0 says that the value does not open. A value that is under the new version and of the class
already goes as it came.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
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

__all__ = ["reseal"]

_NOT_FIELDS = "the keeper got fields that are not framed as they must be"
_DRAWN = NONCE_LENGTH * 1024  # random bytes drawn at once
_NONCE = slice(HEADER_LENGTH, HEADER_LENGTH + NONCE_LENGTH)
_CIPHERTEXT = slice(HEADER_LENGTH + NONCE_LENGTH, None)
_HEAD = Struct(">16sBI")
_LENGTH = Struct(">I")


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
