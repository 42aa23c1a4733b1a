"""A tenant's log as a scribe would leave it: entries, leaf hashes, signed checkpoints; and exports of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from wardkey_core.log import entry
from wardkey_core.log.checkpoint import Signed, sign
from wardkey_core.log.exportfile import Header, Writer
from wardkey_core.log.merkle import Range, leaf_hash

TENANT = "3ffafb0c-6efc-5c65-1e98-7832b77c9cda"
OTHER = "5ee6a7bd-a9ae-e640-67ce-4856af58d2aa"


def moment(second: int) -> str:
    """Return a time: ``second`` seconds into a day."""
    return f"2026-03-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000000Z"


def make_entry(number: int, **members: Any) -> dict[str, Any]:
    """Return an entry that happened ``number`` seconds into the day."""
    return {
        "format": 1,
        "tenant": TENANT,
        "id": str(1000 + number),
        "at": moment(number),
        "kind": "write",
        "operation": "update",
        "subject": "jane.doe",
        "role": "EVALUATOR",
        "table": "patients",
        "row": str(number),
        "columns": ["name", "ssn"],
        "new": '{"name": "\\\\x0100000001", "score": 1.50}',
    } | members


class Log:
    """Entries and checkpoints of one tenant."""

    def __init__(self, key: Ed25519PrivateKey | None = None, tenant: str = TENANT) -> None:
        self.key = key or Ed25519PrivateKey.generate()
        self.public_key = self.key.public_key().public_bytes_raw()
        self.tenant = tenant
        self.entries: list[bytes] = []
        self.checkpoints: list[Signed] = []

    @classmethod
    def of(cls, *sizes: int, key: Ed25519PrivateKey | None = None) -> Log:
        """Return a log with checkpoints at these sizes, each made at once and settled a second before it."""
        log = cls(key)
        for size in sizes:
            while len(log.entries) < size:
                log.append(make_entry(len(log.entries)))
            log.seal(moment(size), moment(size))
        return log

    def append(self, members: dict[str, Any]) -> None:
        self.entries.append(entry.encode(members))

    def seal(self, at: str, settled: str | None = None) -> Signed:
        signed = sign(
            self.checkpoints[-1].checkpoint if self.checkpoints else None,
            tenant=self.tenant,
            size=len(self.entries),
            root=self.range(0, len(self.entries)).root(),
            at=at,
            public_key=self.public_key,
            signer=self.key.sign,
            settled=settled,
        )
        self.checkpoints.append(signed)
        return signed

    def range(self, begin: int, end: int) -> Range:
        """Return the compact range of positions ``begin`` to before ``end``."""
        made = Range(begin)
        for data in self.entries[begin:end]:
            made.append(leaf_hash(data))
        return made

    def export(
        self,
        first: int = 0,
        end: int | None = None,
        *,
        present: Sequence[bytes | None] | None = None,
        unsealed: Sequence[bytes] = (),
        **header: Any,
    ) -> bytes:
        """Return the export of positions ``first`` to before ``end``, with the checkpoints around.

        ``present``: what is in the log now, where that is not what was sealed.
        """
        end = self.checkpoints[-1].checkpoint.size if end is None else end
        stream = io.BytesIO()
        left = self.range(0, first).hashes
        writer = Writer(stream, Header(self.tenant, [self.public_key], first, left, "acme", **header))
        waiting = [signed for signed in self.checkpoints if signed.checkpoint.size >= first]
        last = 0
        for position in range(first, end + 1):
            while waiting and waiting[0].checkpoint.size == position:
                writer.checkpoint(waiting[0])
                last = waiting.pop(0).checkpoint.size
            if position < end:
                sealed = self.entries[position]
                writer.entry(present[position] if present else sealed, leaf_hash(sealed))
        if last < end:
            writer.checkpoint(waiting[0])
            last = waiting[0].checkpoint.size
        for data in unsealed:
            writer.unsealed(data)
        writer.end(self.range(end, last).hashes)
        return stream.getvalue()
