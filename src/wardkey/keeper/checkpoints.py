"""What the keeper has signed of each tenant's audit log, so that it signs no second history.

``checkpoints.jsonl`` in its directory has a line of JSON for each checkpoint signed, of which the last of a
tenant counts::

    {"tenant": uuid, "log": text, "number": 7, "size": 4711, "digest": hex, "at": time}

The line is on the disk before the signature leaves. The nil uuid, the platform, has a log in each database:
``log`` says whose. A tenant has one wherever it is, and no ``log``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from uuid import UUID

from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperUnavailable, KeyRefused
from wardkey_core.log.canonical import NotCanonical
from wardkey_core.log.checkpoint import Checkpoint, fingerprint

from wardkey.daemon.appending import AppendFile
from wardkey.daemon.lines import Line
from wardkey.daemon.service import ServiceError

from .signing import SigningKey

__all__ = ["CHECKPOINTS_FILE", "Checkpoints"]

CHECKPOINTS_FILE = "checkpoints.jsonl"
_SPARE = 10_000  # lines that no longer count before the file is written again
_FORK = (
    "if the database was restored from a backup, let the log go on from there: wardkey scribe readmit; "
    "otherwise somebody took entries away or keeps a second log"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """The last checkpoint signed of a log. ``number`` 0: it may begin anywhere, once."""

    tenant: str
    log: str
    number: int
    size: int
    digest: str
    at: str

    def line(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode() + b"\n"


class Checkpoints:
    """Reads ``path``. Raises ServiceError, OSError. Methods may be called in threads."""

    def __init__(self, path: Path, signing: SigningKey, report: Callable[[str], None]) -> None:
        self._signing = signing
        self._report = report
        self._writing = Lock()
        self._last: dict[tuple[str, str], Signed] = {}
        self._file = AppendFile(path, report, self._take)
        self._lines = self._file.count

    def last(self, tenant: UUID, log: str) -> Signed | None:
        """Return what was signed last of this log."""
        return self._last.get((str(tenant), log))

    def public_key(self) -> bytes:
        """Return the key that signs, made if there is none. Raises KeeperUnavailable."""
        return self._signing.made()

    def sign(self, tenant: UUID, log: str, statement: str) -> bytes:
        """Return the signature of a checkpoint, its canonical text, if it goes on from the last one.

        The same one may be asked for again. Raises Unsupported, KeyRefused, KeeperUnavailable.
        """
        try:
            checkpoint = Checkpoint.decode(statement.encode("utf-8"))
        except NotCanonical as error:
            raise Unsupported(f"the statement is no checkpoint: it {error}") from None
        if checkpoint.tenant != str(tenant):
            raise Unsupported("the checkpoint is of another tenant than the request")
        if checkpoint.key != fingerprint(self.public_key()):
            raise KeyRefused(
                "the checkpoint names another key than the one this keeper signs with",
                "ask for the key again, and make the checkpoint again",
            )
        with self._writing:
            last = self._last.get((checkpoint.tenant, log))
            if last is None or last.digest != checkpoint.digest().hex():
                _check(last, checkpoint)
                signed = Signed(
                    checkpoint.tenant,
                    log,
                    checkpoint.number,
                    checkpoint.size,
                    checkpoint.digest().hex(),
                    checkpoint.at,
                )
                self._append(signed)
            return self._signing.sign_checkpoint(statement)

    def readmit(self, tenant: UUID, log: str) -> None:
        """Let the log's next checkpoint be any: its database was restored. Raises KeeperUnavailable."""
        with self._writing:
            if last := self._last.get((str(tenant), log)):
                self._append(Signed(last.tenant, log, 0, 0, "", last.at))

    def _take(self, line: bytes) -> None:
        signed = Signed(**json.loads(line))
        UUID(signed.tenant)
        if type(signed.number) is not int or type(signed.size) is not int or signed.line() != line + b"\n":
            raise ValueError
        self._last[signed.tenant, signed.log] = signed

    def _append(self, signed: Signed) -> None:
        known = signed.tenant, signed.log
        before = self._last.get(known)
        self._last[known] = signed
        try:
            if self._lines > 2 * len(self._last) + _SPARE:
                self._file.replace(each.line() for each in self._last.values())
                self._lines = len(self._last)
            else:
                self._file.append(signed.line())
                self._lines += 1
            return
        except (OSError, ServiceError) as error:
            self._report(
                Line(
                    "ledger_unwritable",
                    f"no checkpoint is signed, {self._file.path.name} cannot be written: {error}",
                )
            )
        if before is None:
            del self._last[known]
        else:
            self._last[known] = before
        raise KeeperUnavailable("the keeper cannot remember the checkpoint", "free space on its disk")


def _check(last: Signed | None, this: Checkpoint) -> None:
    """Raise KeyRefused unless ``this`` goes on from what was signed last."""
    if last is None or last.number == 0:
        return
    if this.number <= last.number:
        raise KeyRefused(
            f"checkpoint {this.number} of {this.size} entries is refused: checkpoint {last.number} of "
            f"{last.size} entries has been signed, and is another one",
            _FORK,
        )
    if this.number != last.number + 1 or this.previous.hex() != last.digest:
        raise KeyRefused(
            f"checkpoint {this.number} does not go on from checkpoint {last.number}, the last one signed",
            _FORK,
        )
    if this.size < last.size or this.at < last.at:
        raise KeyRefused(
            f"checkpoint {this.number} has fewer entries than checkpoint {last.number}, or is older", _FORK
        )
