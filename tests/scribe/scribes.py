"""Scribes as real processes, each with a keeper, a database and a slot of its own."""

from __future__ import annotations

import io
import json
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from wardkey_core import journal
from wardkey_core.log.exporter import Period, export

from tests.support.database import Connection, Database
from tests.support.keepers import Keeper
from wardkey.audit.source import open_log
from wardkey.audit.verify import Report, verify
from wardkey.daemon.processes import find

PLATFORM = UUID(int=0)
MODEL = UUID("00000000-0000-4000-8000-0000000000aa")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def now() -> int:
    return int((datetime.now(UTC) - _EPOCH).total_seconds() * 1e6)


def read(tenant: UUID, row: int, columns: Sequence[str] = ("name",), statement: int | None = None) -> bytes:
    """Return the journal's message about a row that was read."""
    number = row.to_bytes(8, "big", signed=True)
    return read_message(tenant, columns, number, statement=statement, context=b"c" * 16, model=MODEL)


def read_message(
    tenant: UUID,
    columns: Sequence[str],
    row: bytes | None,
    *,
    form: str = "i",
    statement: int | None = None,
    context: bytes = bytes(16),
    model: UUID = PLATFORM,
) -> bytes:
    """Return a message as the journal's format says, made without its code."""
    head = struct.pack(
        ">Bc16s16sq", 1, b"s" if row is None else b"r", tenant.bytes, context, statement or now()
    )
    names = ",".join(columns).encode()
    parts = (head, model.bytes, bytes([len(form)]), form.encode(), struct.pack(">H", len(names)), names)
    return b"".join(parts) + (row or b"")


def event(tenant: UUID, operation: str, at: int | None = None, **detail: Any) -> bytes:
    return journal.event(
        b"\0" * 16 if tenant == PLATFORM else tenant.bytes, bytes(16), at or now(), operation, {}, detail
    )


class Scribe:
    """A scribe of ``database``; ``errors`` is what it wrote to stderr."""

    def __init__(self, database: Database, keeper: Keeper) -> None:
        self.database, self.keeper = database, keeper
        self.slot = f"audit_{database.name}"
        self.status_file = keeper.base / "scribe.json"
        self._log = keeper.base / "scribe.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def errors(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def launch(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wardkey.scribe", "--dsn", self.database.dsn()]
        command += ["--keeper", str(self.keeper.socket), "--slot", self.slot]
        command += ["--status", str(self.status_file), *options]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stderr=log, stdout=log)

    def start(self, *options: str) -> Scribe:
        self.process = self.launch(*options)
        return self

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.status_file.read_text())
        return status

    def remove(self) -> None:
        """End it and drop its slot: a database that has one cannot be dropped."""
        if self.process and self.process.poll() is None:
            self.kill()
        with self.database.admin() as connection:
            drop_slot(connection, self.slot)


def drop_slot(connection: Connection, slot: str) -> None:
    """Drop the slot as a DBA would: its reader's connection is ended first."""
    deadline = time.monotonic() + 20
    while True:
        try:
            connection.execute(
                "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s",
                [slot],
            )
            connection.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                [slot],
            )
            return
        except psycopg.errors.ObjectInUse:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def emit(connection: Connection, *messages: bytes) -> None:
    """Journal messages as a backend does, and have them flushed."""
    with connection.cursor() as cursor:
        cursor.executemany("select pg_logical_emit_message(false, 'wardkey', %s)", [[m] for m in messages])
    flush(connection)


def flush(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("set local synchronous_commit = on")
        connection.execute("create temporary table flush (); drop table flush")


def write(connection: Connection, tenant: UUID, count: int = 1, **columns: Any) -> list[int]:
    """Insert entries of rows written, as the triggers do, in one statement; return their ids."""
    rows = connection.execute(
        "insert into ward_internal.audit_log (tenant_id, transaction, statement, model_id, kind, operation,"
        " row_id, columns, old, new) select %s, pg_current_xact_id(), %s, %s, 'w', 'update', n::text,"
        ' \'name,"or""der"\', %s, %s from generate_series(1, %s) as n returning id',
        [tenant, now(), MODEL, columns.get("old", '{"b":1.50,"a":"é\\n"}'), columns.get("new"), count],
    ).fetchall()
    return [id_ for (id_,) in rows]


def sealed_ids(connection: Connection, tenant: UUID) -> list[int]:
    """Return the ids of the tenant's entries in their order."""
    rows = connection.execute(
        "select unnest(ids) from ward_internal.audit_batches where tenant_id = %s order by first_position",
        [tenant],
    ).fetchall()
    return [id_ for (id_,) in rows]


def wait_for(connection: Connection, count: int, query: str, *values: Any, seconds: float = 60) -> None:
    """Wait until ``query`` gives ``count``."""
    deadline = time.monotonic() + seconds
    while (row := connection.execute(query, values).fetchone()) != (count,):
        assert time.monotonic() < deadline, f"{row} instead of {count}"
        time.sleep(0.05)


def wait_sealed(connection: Connection, tenant: UUID, size: int, seconds: float = 60) -> None:
    query = "select size from ward_internal.audit_trees where tenant_id = %s"
    wait_for(connection, size, query, tenant, seconds=seconds)


def wait_signed(connection: Connection, tenant: UUID, size: int, seconds: float = 60) -> None:
    query = "select max(size) from ward_internal.audit_checkpoints where tenant_id = %s"
    wait_for(connection, size, query, tenant, seconds=seconds)


def verified(database: Database, tenant: UUID) -> Report:
    """Export the tenant's log out of the tables and verify it."""
    stream = io.BytesIO()
    with database.admin(autocommit=False) as connection:
        connection.execute("set transaction isolation level repeatable read")
        export(open_log(connection, tenant), "t", Period(), stream)
    stream.seek(0)
    return verify(stream)


def make_months(connection: Connection, *tenants: UUID) -> None:
    for tenant in tenants:
        connection.execute("select ward_internal.make_audit_partition(%s)", [tenant])


def new_tenant(connection: Connection) -> UUID:
    """Make up a tenant that has nothing but a log."""
    tenant = uuid4()
    make_months(connection, tenant)
    return tenant


def kill_server(database: Database) -> None:
    """kill -9 of the postmaster and all its children."""
    data = database.cluster.home.data
    for process in find(lambda p: p.program == "postgres" and p.works_in(data)):
        process.signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while find(lambda p: p.program == "postgres" and p.works_in(data)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
