"""The keeper's ledger of what was destroyed: a restored backup does not bring it back.

``ledger.jsonl`` in the keeper's directory is only ever appended to, a line of JSON for each tombstone::

    {"time": "2026-01-01T00:00:00+00:00", "what": "tenant", "tenant": uuid, "version": null, "name": slug}
    {"time": "2026-01-01T00:00:00+00:00", "what": "version", "tenant": uuid, "version": 3, "name": slug}

With a line that is not as it must be, the keeper does not start.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

from wardkey_core.errors import KeeperUnavailable, KeyDestroyed
from wardkey_core.wire import parse_json

from wardkey.daemon.appending import AppendFile
from wardkey.daemon.files import write_atomically
from wardkey.daemon.lines import Line
from wardkey.daemon.service import ServiceError
from wardkey.errors import ServerError

__all__ = ["LEDGER_FILE", "Ledger", "replay", "tombstones"]

LEDGER_FILE = "ledger.jsonl"
_MEMBERS = {"time", "what", "tenant", "version", "name"}


@dataclass(frozen=True, slots=True)
class Entry:
    """``version`` None: the whole tenant."""

    time: str
    tenant: UUID
    version: int | None
    name: str


class Ledger:
    """Reads ``path``, making it when it is missing. Raises ServiceError, OSError.

    ``add`` may be called in a thread.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._report = report
        self._writing = Lock()
        self._entries: dict[tuple[UUID, int | None], Entry] = {}
        self._file = AppendFile(path, report, self._take)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, tenant: UUID, version: int | None = None) -> Entry | None:
        """Return why the tenant, or this version of its key, is no more."""
        return self._entries.get((tenant, None)) or self._entries.get((tenant, version))

    def check(self, tenant: UUID, version: int | None = None) -> None:
        """Raise KeyDestroyed when the tenant, or this version of its key, is no more."""
        entry = self.find(tenant, version)
        if entry is None:
            return
        date = entry.time[:10]
        if entry.version is None:
            raise KeyDestroyed(f"tenant {entry.name} was shredded on {date}; its keys are gone")
        raise KeyDestroyed(f"version {entry.version} of the tenant's key was destroyed on {date}")

    def add(self, tenant: UUID, version: int | None, name: str) -> Entry:
        """Return the entry for this tenant or version: what is there already, else a new one.

        Raises KeeperUnavailable when it is not safely on the disk.
        """
        with self._writing:
            entry = self.find(tenant, version)
            if entry is None:
                entry = Entry(datetime.now(UTC).isoformat(timespec="seconds"), tenant, version, name)
                self._append(_line(entry))
                self._entries[tenant, version] = entry
        return entry

    def _take(self, line: bytes) -> None:
        entry = _parse(line)
        if entry is None:
            raise ValueError
        self._entries.setdefault((entry.tenant, entry.version), entry)

    def _append(self, line: bytes) -> None:
        try:
            self._file.append(line)
        except (OSError, ServiceError) as error:
            self._report(Line("ledger_unwritable", f"the ledger cannot be written: {error}"))
            raise KeeperUnavailable("the keeper cannot write its ledger", "see the keeper's log") from None


def tombstones(path: Path) -> dict[tuple[UUID, int | None], str]:
    """Return since when the keeper serves which tenants and versions no more; lines it wrote, no others.

    Raises OSError.
    """
    lines = path.read_bytes().splitlines() if path.exists() else []
    entries = [entry for entry in map(_parse, lines) if entry is not None]
    return {(entry.tenant, entry.version): entry.time for entry in entries}


def replay(path: Path, later: Path) -> None:
    """Add to a ledger out of a backup what a later copy of it has; the keeper does not run.

    Raises ServerError for what is no ledger, OSError.
    """
    lines: dict[bytes, None] = {}
    for file in (path, later) if path.exists() else (later,):
        for number, line in enumerate(
            file.read_bytes().split(b"\n")[:-1], start=1
        ):  # no half line at the end
            if _parse(line) is None:
                raise ServerError(f"line {number} of {file} is none of a ledger", "give a ledger.jsonl")
            lines[line + b"\n"] = None
    write_atomically(path, b"".join(lines))


def _line(entry: Entry) -> bytes:
    members = {
        "time": entry.time,
        "what": "tenant" if entry.version is None else "version",
        "tenant": str(entry.tenant),
        "version": entry.version,
        "name": entry.name,
    }
    return json.dumps(members, separators=(",", ":")).encode("ascii") + b"\n"


def _parse(line: bytes) -> Entry | None:
    """Return what ``line`` says, None when it is not a line of a ledger."""
    try:
        members: Any = parse_json(line)
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            return None
        datetime.fromisoformat(members["time"])
        version, name = members["version"], members["name"]
        if not isinstance(name, str) or type(version) not in (int, type(None)):
            return None
        entry = Entry(members["time"], UUID(members["tenant"]), version, name)
    except (ValueError, TypeError, AttributeError):
        return None
    return entry if _line(entry) == line + b"\n" else None
