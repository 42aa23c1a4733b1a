"""Whether a log is good: an export, or the log in the database; compared with what the keeper remembers."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import psycopg
from wardkey_core.log.canonical import NotCanonical, from_base64
from wardkey_core.log.checkpoint import Checkpoint, fingerprint
from wardkey_core.log.exportfile import LONGEST, Header

from ..daemon.files import write_atomically
from ..errors import Unsupported, WardError
from .live import ask_keeper, verify_live
from .remembered import Remembered, ask, compare
from .report import Report
from .verify import verify
from .which import snapshot

__all__ = ["check_export", "check_log", "read_key", "read_known", "remember"]

_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}")

Connection = psycopg.Connection[Any]


def check_export(
    path: Path,
    *,
    keys: Collection[bytes] | None = None,
    known: Checkpoint | None = None,
    keeper: Path | None = None,
) -> Report:
    """Verify an export; with ``keeper``, its socket, compare the newest checkpoint too. Raises OSError."""
    with path.open("rb") as stream:
        memory = _Memory(None if keeper is None else _ask_of(keeper, stream))
        report = verify(stream, keys=keys, known=known, remembered=memory.remembered)
    return memory.compare(report, live=False)


def check_log(
    connection: Connection,
    tenant: UUID,
    keeper: Path,
    *,
    keys: Collection[bytes] | None = None,
    known: Checkpoint | None = None,
) -> Report:
    """Verify a tenant's log in the database. ``connection``: in autocommit.

    Raises psycopg.Error, DamagedLog.
    """
    memory = _Memory(lambda: ask_keeper(connection, keeper, tenant))
    with snapshot(connection):
        report = verify_live(connection, tenant, keys=keys, known=known, remembered=memory.remembered)
    return memory.compare(report, live=True)


def read_key(text: str) -> bytes:
    """Return the fingerprint that ``text`` is, or that a file of this name holds; raises ValueError."""
    if _FINGERPRINT.fullmatch(text):
        return bytes.fromhex(text)
    if not Path(text).is_file():
        raise ValueError("neither a fingerprint of 64 hexadecimal digits nor a file")
    data = Path(text).read_bytes()
    if len(data) == 32:
        return fingerprint(data)
    line = data.strip().decode("ascii", "replace")
    if _FINGERPRINT.fullmatch(line):
        return bytes.fromhex(line)
    try:
        return fingerprint(from_base64(line, 32))
    except NotCanonical:
        raise ValueError(
            "the file holds neither a fingerprint nor an Ed25519 public key (raw or in base64)"
        ) from None


def read_known(path: Path) -> Checkpoint:
    """Read what ``remember`` wrote. Raises NotCanonical, OSError."""
    return Checkpoint.decode(path.read_bytes().removesuffix(b"\n"))


def remember(path: Path, report: Report) -> None:
    """Write the newest checkpoint, if all is well."""
    if report.ok and report.newest is not None:
        write_atomically(path, report.newest.encode() + b"\n")


class _Memory:
    """What the keeper remembers of the log at hand; ``ask`` is None where it is not to be asked."""

    def __init__(self, ask: Callable[[], Remembered] | None) -> None:
        self._ask = ask
        self.remembered: Remembered | None = None
        self._refusal: str | None = None
        try:
            self.remembered = ask and ask()
        except WardError as error:
            self._refusal = f"not compared with what the keeper signed: {error.message}"

    def compare(self, report: Report, *, live: bool) -> Report:
        report.unlike = self._refusal
        with suppress(WardError):
            if self.remembered is not None:
                compare(report, self.remembered, live=live, again=self._ask)
        return report


def _ask_of(keeper: Path, stream: BinaryIO) -> Callable[[], Remembered]:
    """Return what asks the keeper of the log that an export is of. It need not be a good one."""
    try:
        tenant = UUID(Header.decode(stream.readline(LONGEST).removesuffix(b"\n")).tenant)
    except (NotCanonical, KeyError):
        tenant = None
    stream.seek(0)

    def asking() -> Remembered:
        if tenant is None or tenant.int == 0:
            raise Unsupported(
                "the keeper is asked about a tenant's log; the platform's is compared with --live"
            )
        return ask(keeper, tenant)

    return asking
