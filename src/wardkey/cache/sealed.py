"""What stands in Redis: names, marks and values. Pure.

::

    w:owner                 whose Redis this is
    w:TENANT:m              marks, written by the invalidator: MAC (32) · JSON
    w:TENANT:v:HMAC         a value, written by clients: 0x01 · nonce (12) · AES-256-GCM of header and value

Marks, authenticated with HMAC-SHA256 under a key of tenant and invalidator: ``g`` generation, ``t`` tenant,
``e`` its key epoch, ``s`` sequence, ``a`` when all that was committed is in here (Unix seconds, the
database's clock), ``m`` for each table that was written, by model, the sequence at which that was marked.

A value's name is HMAC-SHA256 of scope and name, its key and that of names HKDF-SHA256 of the cache key.
Additional data, each behind its length (4 bytes, big-endian): ``wardkey/1 cached``, tenant (16 bytes), name
in Redis, generation, epoch and role. The plaintext is length (4) · header · value; of the header, JSON:
``s`` the sequence of the marks that were read before it was loaded, ``t`` the models that it came from,
``u`` until when it holds, ``r`` what was opened, as the text of what ``ward.end_fill`` told; empty: nothing.
"""

from __future__ import annotations

import hmac
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID

from wardkey_core.ciphers import AESGCM, InvalidTag, hkdf

__all__ = ["OWNER", "Header", "Marks", "Ticket", "marks_name", "user_of", "values_prefix"]

OWNER = "w:owner"
_FORMAT = b"\x01"
_NONCE = 12
_MAC = 32


def marks_name(tenant: str) -> str:
    return f"w:{tenant}:m"


def user_of(tenant: str) -> str:
    """Return what a tenant's user of Redis is called."""
    return f"wardkey-{tenant}"


def values_prefix(tenant: str) -> str:
    return f"w:{tenant}:v:"


@dataclass(frozen=True, slots=True)
class Marks:
    """Which tables of a tenant were written, as an invalidator knew it at a time."""

    generation: str
    tenant: str
    epoch: int
    sequence: int
    at: float
    tables: Mapping[str, int]

    def encode(self, key: bytes) -> bytes:
        names = ("g", self.generation), ("t", self.tenant), ("e", self.epoch), ("s", self.sequence)
        body = json.dumps({**dict(names), "a": self.at, "m": self.tables}, separators=(",", ":")).encode()
        return hmac.digest(key, body, "sha256") + body

    @classmethod
    def decode(cls, data: bytes, key: bytes) -> Marks | None:
        """Return the marks, None for what was not made with ``key``."""
        mac, body = data[:_MAC], data[_MAC:]
        if not hmac.compare_digest(mac, hmac.digest(key, body, "sha256")):
            return None
        told = json.loads(body)
        return cls(told["g"], told["t"], told["e"], told["s"], told["a"], told["m"])


@dataclass(frozen=True, slots=True)
class Header:
    """What is said of a value inside of it: see above."""

    sequence: int
    tables: frozenset[str]
    until: float
    reads: str = field(repr=False)

    def holds(self, marks: Marks, now: float) -> bool:
        """Whether no table that the value came from was written since."""
        return now < self.until and all(marks.tables.get(table, 0) <= self.sequence for table in self.tables)


@dataclass(frozen=True)
class Ticket:
    """What the database gave a context for its cache: plpython/wardkey_pg/cached.py says what is in it.

    ``asked_at``: by time.monotonic, before the database was asked; so ``now`` is not behind its clock.
    """

    facts: Mapping[str, Any] = field(repr=False)
    asked_at: float
    _seen: list[Any] = field(
        default_factory=lambda: [None, None], repr=False
    )  # the last good marks: bytes, read

    @property
    def is_on(self) -> bool:
        return bool(self.facts["on"])

    @property
    def age(self) -> float:
        return time.monotonic() - self.asked_at

    @property
    def now(self) -> float:
        """The database's clock."""
        return float(self.facts["now"]) + self.age

    def place(self, name: str, *, shared: bool) -> str:
        """Return what a value is called in Redis: ``shared`` by a role of which no row rule holds."""
        scope = "" if shared and self.facts["is_shared"] else self.facts["scope"]
        digest = hmac.digest(self._names_key, f"{scope} {name}".encode(), "sha256")
        return values_prefix(self.facts["tenant"]) + digest.hex()

    def marks(self, data: bytes | None) -> Marks | None:
        """Return the marks if they are this tenant's, of the ticket's invalidator and its epoch."""
        if data is not None and data == self._seen[0]:
            known: Marks = self._seen[1]
            return known
        marks = None if data is None else Marks.decode(data, self._marks_key)
        wanted = self.facts["generation"], self.facts["tenant"], self.facts["epoch"]
        if marks is None or (marks.generation, marks.tenant, marks.epoch) != wanted:
            return None
        self._seen[:] = data, marks
        return marks

    def seal(self, place: str, header: Header, value: bytes) -> bytes:
        members = {"s": header.sequence, "t": sorted(header.tables), "u": header.until, "r": header.reads}
        head, nonce = json.dumps(members).encode(), os.urandom(_NONCE)
        plaintext = len(head).to_bytes(4, "big") + head + value
        return _FORMAT + nonce + self._cipher.encrypt(nonce, plaintext, self._aad(place))

    def open(self, place: str, sealed: bytes) -> tuple[Header, bytes] | None:
        """Return header and value, None for what is not what was sealed at ``place``."""
        if sealed[:1] != _FORMAT or len(sealed) < 1 + _NONCE:
            return None
        nonce, ciphertext = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            plaintext = self._cipher.decrypt(nonce, ciphertext, self._aad(place))
        except InvalidTag:
            return None
        end = 4 + int.from_bytes(plaintext[:4], "big")
        told = json.loads(plaintext[4:end])
        return Header(told["s"], frozenset(told["t"]), told["u"], told["r"]), plaintext[end:]

    @cached_property
    def _cipher(self) -> AESGCM:
        return AESGCM(self._key("value"))

    @cached_property
    def _names_key(self) -> bytes:
        return self._key("name")

    @cached_property
    def _marks_key(self) -> bytes:
        return bytes.fromhex(self.facts["marks"])

    def _key(self, use: str) -> bytes:
        info = f"wardkey/1 cached {use}".encode()
        return hkdf(bytes.fromhex(self.facts["key"]), UUID(self.facts["tenant"]).bytes, info)

    def _aad(self, place: str) -> bytes:
        begin, end = self._around_place
        name = place.encode()
        return b"".join((begin, len(name).to_bytes(4, "big"), name, end))

    @cached_property
    def _around_place(self) -> tuple[bytes, bytes]:
        facts = self.facts
        texts = facts["generation"], str(facts["epoch"]), facts["role"]
        before = (b"wardkey/1 cached", UUID(facts["tenant"]).bytes)
        return _joined(*before), _joined(*(text.encode() for text in texts))


def _joined(*fields: bytes) -> bytes:
    return b"".join(len(each).to_bytes(4, "big") + each for each in fields)
