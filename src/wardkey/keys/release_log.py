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
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

__all__ = ["Accessed", "Released", "accessed_by", "begin_of", "files", "releases", "token_digest"]


@dataclass(frozen=True, slots=True)
class Accessed:
    """``versions``: tenant → versions that were released. ``damaged``: lines that could not be read."""

    versions: dict[UUID, set[int]]
    damaged: int


@dataclass(frozen=True, slots=True)
class Released:
    """A version of a tenant's key, released. ``token``: ``token_digest`` of the token's id."""

    at: datetime
    tenant: UUID
    version: int
    subject: str | None
    token: str | None


def files(directory: Path) -> list[Path]:
    """Return the release log of a keeper's directory and those moved away beside it (``release.log*``)."""
    return sorted(directory.glob("release.log*"))


def token_digest(identity: str) -> str:
    """Return how the log names the token of that id (``jti``)."""
    return hashlib.sha256(identity.encode("utf-8")).hexdigest()[:32]


def releases(paths: list[Path]) -> Iterator[Released | None]:
    """Yield what was released; None for a line that could not be read. Raises OSError."""
    for line in (line for path in paths for line in _lines(path)):
        try:
            entry = json.loads(line)
            if entry["outcome"] == "released":
                at, tenant = datetime.fromisoformat(entry["time"]), UUID(entry["tenant"])
                yield Released(at, tenant, int(entry["version"]), entry["subject"], entry["jti_sha256"])
        except (ValueError, KeyError, TypeError, RecursionError, AttributeError):
            yield None  # a line cut short by a crash: it hides nothing from the others


def begin_of(paths: list[Path]) -> datetime | None:
    """Return the time of the first line, whatever it tells; None where there is none. Raises OSError."""
    times = []
    for path in paths:
        for line in _lines(path):
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                times.append(datetime.fromisoformat(json.loads(line)["time"]))
                break
    return min(times, default=None)


def accessed_by(paths: list[Path], who: str, since: datetime | None = None) -> Accessed:
    """Return what was released to subject ``who``, or on the token of that id (``jti``). Raises OSError."""
    token = token_digest(who)
    versions: dict[UUID, set[int]] = {}
    damaged = 0
    for each in releases(paths):
        if each is None:
            damaged += 1
        elif (who == each.subject or token == each.token) and (since is None or each.at >= since):
            versions.setdefault(each.tenant, set()).add(each.version)
    return Accessed(versions, damaged)


def _lines(path: Path) -> Iterator[bytes]:
    opened: Any = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        yield from file
