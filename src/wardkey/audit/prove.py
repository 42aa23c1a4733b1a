"""One entry and the proof that it is in the log: a file of a few kilobytes that tells nothing of the others.

A line of JSON in canonical form, with its line feed::

    {"wardkey audit proof":{"checkpoint":{…},"entry":{…},"format":1,"key":"…","path":[…],"position":…,
                            "signature":"…"}}

``path``: the hashes of RFC 6962 §2.1.1, from the leaf up, in hexadecimal; ``key``: the raw public key, in
base64. It proves that the holder of the key signed a log of ``checkpoint.size`` entries with this one at
``position``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from wardkey_core.log import entry as entry_format
from wardkey_core.log.canonical import NotCanonical, decode, encode, from_base64, from_hex, members, to_base64
from wardkey_core.log.checkpoint import Signed, fingerprint
from wardkey_core.log.exportfile import Damaged, End, Header, lines
from wardkey_core.log.merkle import Range, collect, includes, inclusion_ranges, leaf_hash

__all__ = ["NotProven", "Proof", "is_proof", "prove", "read"]

FORMAT = 1
_BEGINNING = b'{"wardkey audit proof":'
_LONGEST = 1 << 30


class NotProven(ValueError):
    """Nothing is proven, and why."""

    exit_code = 4
    hint = "wardkey audit verify says more"


@dataclass(frozen=True, slots=True)
class Proof:
    """``entry``: its canonical bytes. Nothing of it is true before ``check`` says so."""

    entry: bytes
    position: int
    signed: Signed
    public_key: bytes
    path: Sequence[bytes]

    def encode(self) -> bytes:
        """Return the file. Raises NotCanonical."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "entry": entry_format.decode(self.entry),
            "position": self.position,
            "path": [digest.hex() for digest in self.path],
            "key": to_base64(self.public_key),
        }
        return encode({"wardkey audit proof": document | self.signed.document()}) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the file. Raises NotCanonical."""
        if data[-1:] != b"\n":
            raise NotCanonical("is cut off")
        document = members(decode(data[:-1]), {"wardkey audit proof": dict})["wardkey audit proof"]
        proof = members(
            document,
            {"format": int, "checkpoint": dict, "entry": dict, "key": str, "path": list, "position": int}
            | {"signature": str},
        )
        if proof["format"] != FORMAT:
            raise NotCanonical(f"is of another format than {FORMAT}: a newer wardkey may read it")
        return cls(
            entry=entry_format.encode(proof["entry"]),
            position=proof["position"],
            signed=Signed.from_document({name: proof[name] for name in ("checkpoint", "signature")}),
            public_key=from_base64(proof["key"], 32),
            path=[from_hex(digest) for digest in proof["path"]],
        )

    def check(self, keys: Collection[bytes] | None = None) -> dict[str, Any]:
        """Return the members of the entry that is proven. Raises NotProven.

        ``keys``: fingerprints (32 bytes) of those that may sign; None: any.
        """
        checkpoint = self.signed.checkpoint
        try:
            entry = entry_format.decode(self.entry)
        except NotCanonical as error:
            raise NotProven(f"the entry {error}") from None
        if entry["tenant"] != checkpoint.tenant:
            raise NotProven("entry and checkpoint are of different tenants")
        if keys is not None and fingerprint(self.public_key) not in keys:
            name = fingerprint(self.public_key).hex()
            raise NotProven(f"the checkpoint is signed by key {name}, which is not one you trust")
        if not self.signed.verified_by(self.public_key):
            raise NotProven("the signature of the checkpoint is not of what it says")
        if not includes(checkpoint.size, checkpoint.root, self.position, leaf_hash(self.entry), self.path):
            raise NotProven(
                f"the entry is not at position {self.position} of the log that the checkpoint signs"
            )
        return entry


def is_proof(path: Path) -> bool:
    """Say whether a file is a proof, good or bad, and not an export. Raises OSError."""
    with path.open("rb") as stream:
        return stream.read(len(_BEGINNING)) == _BEGINNING


def read(path: Path) -> Proof:
    """Read a proof. Raises NotCanonical, OSError."""
    with path.open("rb") as stream:
        return Proof.decode(stream.read(_LONGEST))


def prove(export: BinaryIO, entry: str) -> Proof:
    """Return the proof of the entry with this id, out of an export that can be read twice (``seek``).

    Raises NotProven where the export does not hold it, or does not hold what its checkpoints sign.
    """
    try:
        start = export.tell()
        header, position, data, signed, end = _find(export, entry)
        export.seek(start)
        size = signed.checkpoint.size
        path = collect(inclusion_ranges(position, size), _nodes(export, header, end, size))
    except NotProven:
        raise
    except Damaged as error:
        raise NotProven(str(error)) from None
    except ValueError as error:
        raise NotProven(f"the export does not hold together ({error}); verify it") from None
    key = next((key for key in header.keys if fingerprint(key) == signed.checkpoint.key), bytes(32))
    proof = Proof(data, position, signed, key, path)
    proof.check()
    return proof


def _find(export: BinaryIO, entry: str) -> tuple[Header, int, bytes, Signed, End]:
    """Return header, position and bytes of the entry, the first checkpoint that covers it, and the end."""
    header: Header | None = None
    located: tuple[int, bytes] | None = None
    signed: Signed | None = None
    position = 0
    for kind, line in lines(export):
        if kind == "header":
            header = Header.decode(line)
            position = header.first
        elif kind == "entry":
            match = entry_format.match(line.decode("utf-8", "replace")) if located is None else None
            if match and match["id"] == entry:
                located = position, line
            position += 1
        elif kind == "checkpoint" and located and signed is None:
            this = Signed.from_document(decode(line))
            signed = this if this.checkpoint.size > located[0] else None
        elif kind == "end":
            end = End.decode(line)
    assert header is not None  # noqa: S101  lines() raises Damaged otherwise
    if located is None or signed is None:
        raise NotProven(f"no checkpoint of the export covers an entry {entry}")
    return header, *located, signed, end


def _nodes(export: BinaryIO, header: Header, end: End, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield the perfect subtrees that the export holds, from position 0 to ``size``."""
    yield from Range(0, header.first, header.left).nodes()
    position = header.first
    for kind, line in lines(export):
        if kind == "entry" and position < size:
            yield 0, leaf_hash(line)
            position += 1
    if position < size:
        yield from Range(position, size, end.right).nodes()
