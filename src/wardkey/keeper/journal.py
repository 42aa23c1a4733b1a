"""The keeper's release log: a line of JSON for each key released, made or refused. No token, no key."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wardkey_pg.tokens import Claims

__all__ = ["Peer", "ReleaseLog"]


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end of the socket, as the kernel names it."""

    uid: int
    pid: int


class ReleaseLog:
    """Appends to ``path``, opened for each line, so that it may be moved away at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(
        self,
        op: str,
        outcome: str,
        peer: Peer,
        *,
        tenant: str | None = None,
        version: int | None = None,
        claims: Claims | None = None,
        sqlstate: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Write one line, whole or not at all. ``claims`` are verified ones; ``reason`` is a constant text.

        Raises OSError.
        """
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "op": op,
            "outcome": outcome,
            "tenant": tenant,
            "version": version,
            "issuer": claims and claims.issuer,
            "subject": claims and claims.subject,
            "role": claims and claims.role,
            "jti_sha256": claims and hashlib.sha256(claims.token_id.encode("utf-8")).hexdigest()[:32],
            "uid": peer.uid,
            "pid": peer.pid,
        }
        if sqlstate is not None:
            line |= {"sqlstate": sqlstate, "reason": reason}
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            written = os.write(descriptor, data)
            if written != len(data):  # the disk is full: half a line accounts for nothing
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
