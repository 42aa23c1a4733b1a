"""What stands in a topic, and in which order.

Key: the tenant's uuid. Partition: 0, the only one. Headers, all text::

    kind         entry | missing | checkpoint
    id           entry, missing: the entry's id. checkpoint: its number
    position     entry, missing: in the tenant's tree, from 0. checkpoint: how many entries it covers
    public_key   checkpoint only: the raw Ed25519 key in base64; whether it is the right one, its reader must
                 know from elsewhere

Values are JSON in canonical form, of ``event.schema.json``::

    entry        the entry's canonical bytes (``audit.entry``): SHA-256(0x00 ‖ value) is its leaf hash
    checkpoint   {"checkpoint":{…},"signature":"…"} as in an export, somewhere behind the last entry it covers
    missing      {"missing":{"leaf":"…","position":…,"tenant":"…","why":"changed"|"large"}} for an entry that
                 is no longer what was sealed, or that is larger than the broker takes. It has its leaf hash,
                 so that the roots behind it can be computed all the same
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from wardkey_core.log.canonical import encode, to_base64
from wardkey_core.log.checkpoint import Signed
from wardkey_core.log.merkle import leaf_hash
from wardkey_core.log.source import DamagedLog, Log, Sealed, bytes_of

__all__ = ["CHECKPOINT", "ENTRY", "MISSING", "Mark", "Message", "messages"]

ENTRY: Final = "entry"
MISSING: Final = "missing"
CHECKPOINT: Final = "checkpoint"


class Mark(NamedTuple):
    """How far a topic has come: entries below ``position``, checkpoints up to ``checkpoint_size``."""

    position: int = 0
    checkpoint_size: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """``after``: how far the topic has come with it."""

    kind: str
    value: bytes
    headers: list[tuple[str, bytes]]
    after: Mark


def messages(log: Log, tenant: UUID, mark: Mark, end: int, large: Collection[int] = ()) -> Iterator[Message]:
    """Yield what comes after ``mark``: entries up to position ``end``, and the checkpoints they bring due.

    Of what was pruned nothing comes: a topic that is made later begins with the checkpoint the log begins at.
    ``large``: positions of entries that the broker does not take. Raises DamagedLog.
    """
    due = iter(list(log.checkpoints(mark.checkpoint_size, end)))
    waiting = next(due, None)
    position, size = mark
    position = max(position, min(log.begins(), end))
    for sealed in log.sealed(position, end):
        while waiting is not None and waiting[0].checkpoint.size <= position:
            size = waiting[0].checkpoint.size
            yield _checkpoint(*waiting, Mark(position, size))
            waiting = next(due, None)
        position += 1
        yield _entry(sealed, tenant, Mark(position, size), sealed.position in large)
    if position < end:
        raise DamagedLog(f"the order of the log ends at position {position}, its tree at {end}")
    while waiting is not None:
        size = waiting[0].checkpoint.size
        yield _checkpoint(*waiting, Mark(position, size))
        waiting = next(due, None)


def _entry(sealed: Sealed, tenant: UUID, after: Mark, large: bool) -> Message:
    value = None if sealed.row is None else bytes_of(sealed.row)
    kind = ENTRY
    if value is None or large or leaf_hash(value) != sealed.leaf:
        kind = MISSING
        value = encode({
            "missing": {
                "leaf": sealed.leaf.hex(),
                "position": sealed.position,
                "tenant": str(tenant),
                "why": "large" if large else "changed",
            }
        })  # fmt: skip
    return Message(kind, value, _headers(kind, sealed.id, sealed.position), after)


def _checkpoint(signed: Signed, key: bytes, after: Mark) -> Message:
    this = signed.checkpoint
    headers = _headers(CHECKPOINT, this.number, this.size)
    headers.append(("public_key", to_base64(key).encode()))
    return Message(CHECKPOINT, encode(signed.document()), headers, after)


def _headers(kind: str, identity: int, position: int) -> list[tuple[str, bytes]]:
    return [("kind", kind.encode()), ("id", b"%d" % identity), ("position", b"%d" % position)]
