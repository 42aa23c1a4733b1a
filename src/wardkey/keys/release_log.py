"""Who had which keys released: the keeper's release log, read backwards in the question.

The keeper logs what it releases to a backend. A backend keeps a key for its TTL (``key_ttl``), and serves
from it who logs in as that tenant meanwhile: so what a subject had released *to others before* is not
his in the log, although he may have read under it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

__all__ = ["Accessed", "accessed_by", "files"]


@dataclass(frozen=True, slots=True)
class Accessed:
    """``versions``: tenant → versions that were released. ``damaged``: lines that could not be read."""

    versions: dict[UUID, set[int]]
    damaged: int


def files(directory: Path) -> list[Path]:
    """Return the release log of a keeper's directory and those moved away beside it (``release.log*``)."""
    return sorted(directory.glob("release.log*"))


def accessed_by(paths: list[Path], who: str, since: datetime | None = None) -> Accessed:
    """Return what was released to subject ``who``, or on the token of that id (``jti``). Raises OSError."""
    token = hashlib.sha256(who.encode("utf-8")).hexdigest()[:32]
    versions: dict[UUID, set[int]] = {}
    damaged = 0
    for line in (line for path in paths for line in _lines(path)):
        try:
            entry = json.loads(line)
            if entry["outcome"] != "released" or (who != entry["subject"] and token != entry["jti_sha256"]):
                continue
            tenant, version = UUID(entry["tenant"]), int(entry["version"])
            recent = since is None or datetime.fromisoformat(entry["time"]) >= since
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            damaged += 1  # a line cut short by a crash: it hides nothing from the others
            continue
        if recent:
            versions.setdefault(tenant, set()).add(version)
    return Accessed(versions, damaged)


def _lines(path: Path) -> Iterator[bytes]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        yield from file
