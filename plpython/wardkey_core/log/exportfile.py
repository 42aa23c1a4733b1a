"""The file that ``wardkey audit export`` writes: JSON Lines, to be verified anywhere, without us.

Each line is a JSON object in canonical form and ends with a line feed. In this order::

    {"wardkey audit export":{"first":…,"format":1,"from":…,"keys":[…],"left":[…],"slug":…,"tenant":…,"to":…}}
    {"address":…,"at":…,"columns":…,…}       an entry: the line, without its line feed, is what is hashed
    {"leaves":"…"}                           after 1,000 entries and before each checkpoint: see below
    {"checkpoint":{…},"signature":"…"}       behind the last entry that it covers
    …
    {"unsealed":{…}}                         entries in no tree yet: nothing vouches for them
    {"end":{"checkpoints":…,"entries":…,"right":[…],"unsealed":…}}

* Entries are those at positions ``first``, ``first`` + 1, … of the tenant's tree. ``left`` is the compact
  range (``merkle``) of the positions before, ``right`` of those between the last entry and the size of the
  last checkpoint: none where the export ends at a checkpoint, as it should. Header, order and number of
  entries need no signature of their own: with any other ``first``, ``left``, ``right``, order or number the
  roots that the checkpoints sign do not come out.
* Checkpoints follow one another without a gap. An export of all begins with number 1. One that is to be
  complete from a time on begins at the size of the last checkpoint made before, and has that one ahead of its
  entries; one that is to be complete up to a time ends with the first checkpoint that is ``settled`` then.
* ``from``, ``to`` (times: from, inclusive, to, exclusive) say what was asked for; absent: without bound. Some
  entries just outside may be there. ``slug`` is for people: nothing vouches for it. ``keys`` are the raw
  public keys (base64) that the checkpoints name; whether they are the right ones, the reader must know from
  elsewhere.
* ``leaves``: the first 8 bytes of the leaf hash of each entry since the last such line, as they were *when
  sealed*, in base64. No security rests on it: it is there to name the entry that was changed, where a root
  tells only that one was.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from .canonical import NotCanonical, decode, encode, from_base64, from_hex, members, to_base64
from .checkpoint import Signed
from .entry import TIME, UUID
from .merkle import Range, leaf_hash

__all__ = ["BLOCK", "SHORT", "Damaged", "End", "Header", "Writer", "lines", "read_leaves"]

FORMAT = 1
BLOCK = 1000  # entries between two lines of leaves, at most
SHORT = 8  # bytes of a leaf hash in such a line
LONGEST = 1 << 30  # bytes of a line: PostgreSQL has no longer text

_HEADER = b'{"wardkey audit export":'
_KINDS = {
    b'{"a': "entry",
    b'{"l': "leaves",
    b'{"c': "checkpoint",
    b'{"u': "unsealed",
    b'{"e': "end",
}


class Damaged(ValueError):
    """The file is not whole. ``kind``: as in ``verify.Defect``."""

    def __init__(self, kind: str, message: str, line: int) -> None:
        super().__init__(message)
        self.kind, self.line = kind, line


@dataclass(frozen=True, slots=True)
class Header:
    tenant: str
    keys: Sequence[bytes]
    first: int = 0
    left: Sequence[bytes] = ()
    slug: str | None = None
    from_time: str | None = None
    to_time: str | None = None

    def __post_init__(self) -> None:
        bounds = [time for time in (self.from_time, self.to_time) if time is not None]
        if not re.fullmatch(UUID, self.tenant) or not all(re.fullmatch(TIME, time) for time in bounds):
            raise NotCanonical("has a tenant or a time that is not of the form that format 1 says")
        try:
            Range(0, self.first, self.left)
        except ValueError:
            raise NotCanonical(
                "has another number of hashes on its left than its first position asks for"
            ) from None

    def encode(self) -> bytes:
        document: dict[str, Any] = {
            "format": FORMAT,
            "tenant": self.tenant,
            "first": self.first,
            "left": [digest.hex() for digest in self.left],
            "keys": [to_base64(key) for key in self.keys],
        }
        optional = {"slug": self.slug, "from": self.from_time, "to": self.to_time}
        document |= {name: value for name, value in optional.items() if value is not None}
        return encode({"wardkey audit export": document})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises NotCanonical."""
        header = members(
            decode(data)["wardkey audit export"],
            {"format": int, "tenant": str, "first": int, "left": list, "keys": list},
            {"slug": str, "from": str, "to": str},
        )
        if header["format"] != FORMAT:
            raise NotCanonical(f"is of another format than {FORMAT}: a newer wardkey may read it")
        return cls(
            tenant=header["tenant"],
            keys=[from_base64(key, 32) for key in header["keys"]],
            first=header["first"],
            left=[from_hex(digest) for digest in header["left"]],
            slug=header.get("slug"),
            from_time=header.get("from"),
            to_time=header.get("to"),
        )


@dataclass(frozen=True, slots=True)
class End:
    entries: int
    checkpoints: int
    unsealed: int
    right: Sequence[bytes] = ()

    def encode(self) -> bytes:
        document = {"entries": self.entries, "checkpoints": self.checkpoints, "unsealed": self.unsealed}
        return encode({"end": document | {"right": [digest.hex() for digest in self.right]}})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises NotCanonical."""
        document = members(decode(data), {"end": dict})["end"]
        end = members(document, {"entries": int, "checkpoints": int, "unsealed": int, "right": list})
        right = [from_hex(digest) for digest in end["right"]]
        return cls(end["entries"], end["checkpoints"], end["unsealed"], right)


class Writer:
    """Writes an export, line by line, to a binary stream. What the log holds is written, whole or not.

    So that a log that was tampered with can be exported and ``verify`` can name what is wrong with it,
    nothing is checked here, and ``entry`` takes what is in the log beside the leaf hash that it was sealed
    with.
    """

    def __init__(self, stream: BinaryIO, header: Header) -> None:
        self._stream = stream
        self._leaves: list[bytes] = []
        self._entries = self._checkpoints = self._unsealed = 0
        self._line(header.encode())

    def entry(self, data: bytes | None, leaf: bytes | None = None) -> None:
        """Write the entry at the next position: its canonical bytes, None where it is no longer there.

        ``leaf``: the leaf hash as sealed; by default that of ``data``.
        """
        if data is not None:
            self._line(data)
            self._entries += 1
        self._leaves.append((leaf_hash(data or b"") if leaf is None else leaf)[:SHORT])
        if len(self._leaves) == BLOCK:
            self._flush()

    def checkpoint(self, signed: Signed) -> None:
        """Write a checkpoint behind the last entry it covers; the last one may cover more: see ``end``."""
        self._flush()
        self._line(encode(signed.document()))
        self._checkpoints += 1

    def unsealed(self, data: bytes) -> None:
        """Write an entry that is in no tree yet."""
        self._flush()
        self._line(b'{"unsealed":' + data + b"}")
        self._unsealed += 1

    def end(self, right: Sequence[bytes] = ()) -> None:
        """Write the last line. ``right``: the compact range up to the size of the last checkpoint."""
        self._flush()
        self._line(End(self._entries, self._checkpoints, self._unsealed, right).encode())

    def _flush(self) -> None:
        if self._leaves:
            self._line(encode({"leaves": to_base64(b"".join(self._leaves))}))
            self._leaves.clear()

    def _line(self, data: bytes) -> None:
        self._stream.write(data + b"\n")


def lines(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, line without its line feed): header, then as many of the others as there are, then end.

    Raises Damaged for a file that is not an export, that was cut off or that goes on behind its end. Memory:
    a line.
    """
    kind, number = "", 0
    while line := stream.readline(LONGEST):
        number += 1
        if kind == "end":
            raise Damaged("trailing", f"line {number}: something stands behind the end of the export", number)
        if line[-1] != 10:
            what = "is longer than an entry can be" if len(line) == LONGEST else "is cut off"
            raise Damaged("truncated", f"line {number} {what}: the file is not whole", number)
        if number == 1:
            if not line.startswith(_HEADER):
                raise Damaged("not an export", "the first line is not that of an audit export of wardkey", 1)
            kind = "header"
        else:
            kind = _KINDS.get(line[:3], "entry")  # what is nothing else is a bad entry
        yield kind, line[:-1]
    if number == 0:
        raise Damaged("not an export", "the file is empty", 0)
    if kind != "end":
        message = f"the file ends after line {number}, before the end of the export: it is not whole"
        raise Damaged("truncated", message, number)


def read_leaves(data: bytes) -> list[bytes]:
    """Return the short leaf hashes of a line of leaves. Raises NotCanonical."""
    text = members(decode(data), {"leaves": str})["leaves"]
    try:
        joined = b64decode(text, validate=True)
    except ValueError:
        joined = b""
    if not joined or len(joined) % SHORT or len(joined) > SHORT * BLOCK or to_base64(joined) != text:
        raise NotCanonical("is not a list of leaf hashes")
    return [joined[place : place + SHORT] for place in range(0, len(joined), SHORT)]
