"""What was read from a topic as an export, for ``wardkey audit verify`` to check, offline and without us.

The topic must be read from its first message on; what came twice is taken once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO
from uuid import UUID

from wardkey_core.log.canonical import NotCanonical, decode, from_base64, from_hex, members
from wardkey_core.log.checkpoint import Signed
from wardkey_core.log.exportfile import Header, Writer
from wardkey_core.log.merkle import leaf_hash

from .messages import CHECKPOINT, ENTRY, MISSING

__all__ = ["NotWhole", "write_export"]

Headers = Iterable[tuple[str, bytes]]


class NotWhole(ValueError):
    """The messages are not those of one tenant's topic from the first on. The text holds no value of them."""


def write_export(consumed: Iterable[tuple[Headers, bytes]], tenant: UUID, stream: BinaryIO) -> int:
    """Write headers and values, in the topic's order, as an export; return how many entries it has.

    Nothing is verified here but that no position is left out. Memory: all of it. Raises NotWhole.
    """
    entries: list[tuple[bytes | None, bytes]] = []
    checkpoints: dict[int, Signed] = {}
    keys: dict[bytes, None] = {}
    highest = -1
    for headers, value in consumed:
        header = dict(headers)
        try:
            kind, position = header["kind"].decode(), int(header["position"])
            if kind == CHECKPOINT:
                checkpoints[position] = Signed.from_document(decode(value))
                keys[from_base64(header["public_key"].decode(), 32)] = None
                continue
            entry = _entry(kind, value)
        except (KeyError, ValueError) as error:
            reason = f": it {error}" if isinstance(error, NotCanonical) else ""
            raise NotWhole(f"a message is not of those that wardkey publishes{reason}") from None
        highest = max(highest, position)
        if position == len(entries):
            entries.append(entry)
        elif position < len(entries) and entries[position][1] != entry[1]:
            raise NotWhole(f"there are two different entries at position {position}")
    last = max(checkpoints, default=0)
    if max(last, highest + 1) > len(entries):
        raise NotWhole(f"the entry at position {len(entries)} is not there")
    writer = Writer(stream, Header(str(tenant), list(keys)))
    for position, (data, leaf) in enumerate(entries[:last]):
        if position in checkpoints:
            writer.checkpoint(checkpoints[position])
        writer.entry(data, leaf)
    if last:
        writer.checkpoint(checkpoints[last])
    for data, _ in entries[last:]:
        if data is not None:
            writer.unsealed(data)
    writer.end()
    return len(entries)


def _entry(kind: str, value: bytes) -> tuple[bytes | None, bytes]:
    if kind == ENTRY:
        return value, leaf_hash(value)
    if kind != MISSING:
        raise NotCanonical("is of an unknown kind")
    missing: dict[str, Any] = members(decode(value), {"missing": dict})["missing"]
    return None, from_hex(missing.get("leaf"))
