"""The log in the database, verified as an export of it would be, and proofs out of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from wardkey_core.log.checkpoint import Checkpoint
from wardkey_core.log.exporter import Period, export, find_extent
from wardkey_core.log.merkle import collect, inclusion_ranges
from wardkey_core.log.source import COLUMNS, DamagedLog, bytes_of

from .prove import NotProven, Proof
from .remembered import Remembered, ask
from .report import Defect, Report
from .source import open_log
from .verify import verify

__all__ = ["ask_keeper", "log_name", "prove_live", "verify_live"]

_PATIENCE = 10.0  # seconds for the scribe to store what the keeper has signed


def ask_keeper(
    connection: psycopg.Connection[Any], keeper: Path, tenant: UUID, patience: float = _PATIENCE
) -> Remembered:
    """Ask what the keeper remembers of a log, and wait until the scribe has stored that, if it is about to.

    ``connection``: sees what others commit; the log is to be read afterwards. ``patience``: seconds. Raises
    as ``remembered.ask`` does.
    """
    log = log_name(connection) if tenant == UUID(int=0) else None
    remembered = ask(keeper, tenant, log)
    waiting = (
        "select 1 from ward_internal.audit_unsigned"
        " where tenant_id = %s and sha256(convert_to(checkpoint, 'UTF8')) = %s"
    )
    deadline = time.monotonic() + patience
    while connection.execute(waiting, [tenant, remembered.digest]).fetchone() and time.monotonic() < deadline:
        time.sleep(0.1)
    return remembered


def log_name(connection: psycopg.Connection[Any]) -> str:
    """Return how the keeper calls this database's log of the platform."""
    query = "select system_identifier || '/' || current_database() from pg_control_system()"
    row = connection.execute(query).fetchone()
    return str(row[0]) if row else ""


def verify_live(
    connection: psycopg.Connection[Any],
    tenant: UUID,
    *,
    keys: Collection[bytes] | None = None,
    known: Checkpoint | None = None,
    remembered: Remembered | None = None,
) -> Report:
    """Verify a tenant's whole log where it is; see ``verify``.

    ``connection``: in a transaction, repeatable read. Raises psycopg.Error. Memory: as ``verify``; the export
    goes through a pipe.
    """
    failures: list[BaseException] = []
    reading, writing = os.pipe()

    def write() -> None:
        # verify may find enough and leave: the pipe breaks, which is no failure
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=1 << 16) as stream:
            try:
                export(open_log(connection, tenant), "", Period(), stream)
            except BrokenPipeError:
                raise
            except Exception as error:
                failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        with os.fdopen(reading, "rb", buffering=1 << 16) as stream:
            report = verify(stream, keys=keys, known=known, remembered=remembered)
    finally:
        writer.join()
    for error in failures:
        if not isinstance(error, DamagedLog):
            raise error
        if report.defect is None or report.defect.kind in ("truncated", "not an export"):
            report.defect = Defect("damaged", str(error), 0)
    if report.is_whole and not report.complete_from:
        first = report.header.first if report.header else 0
        message = f"the first {first} entries are missing, and no entry says that they were pruned"
        report.defect = Defect("cut head", message, 0, position=0)
    if report.is_whole and report.strays:
        message = f"entry {report.first_stray} was put in: it was never sealed, and the log is past its time"
        report.defect = Defect("inserted", message, 0, entry=report.first_stray)
    return report


def prove_live(connection: psycopg.Connection[Any], tenant: UUID, identity: int) -> Proof:
    """Return the proof of an entry, against the first checkpoint that covers it.

    ``connection``: in a transaction, repeatable read. Raises NotProven, psycopg.Error.
    """
    log = open_log(connection, tenant)
    try:
        position = log.position_of(identity)
        if position is None:
            raise NotProven(
                f"entry {identity} is not sealed: there is none, or the scribe has yet to come to it"
            )
        base = find_extent(log, Period()).first
        covering = (pair for pair in log.checkpoints() if pair[0].checkpoint.size > position)
        signed, key = next(covering, (None, b""))
        if signed is None:
            raise NotProven(f"no checkpoint covers entry {identity} yet; the scribe makes one within seconds")
        size = signed.checkpoint.size
        leaves = ((0, leaf) for leaf in log.leaves(size, base))
        path = collect(inclusion_ranges(position, size), chain(log.frontier(base).nodes(), leaves))
    except DamagedLog as error:
        raise NotProven(f"the log does not hold together: {error}") from None
    for row in connection.execute(
        f"select {COLUMNS} from ward_internal.audit_log as e where e.tenant_id = %s and e.id = %s",  # noqa: S608
        [tenant, identity],
    ):
        proof = Proof(bytes_of(row), position, signed, key, path)
        with suppress(NotProven):
            proof.check()
            return proof
    raise NotProven(f"entry {identity} is no longer what was sealed at position {position}")
