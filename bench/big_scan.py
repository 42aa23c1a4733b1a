"""What does it cost to journal an analyst's scan: one sealed field of each of 1,000,000 rows?

At each level of the table: how long the scan takes, how much WAL it writes, which goes again, and what it
leaves in the log once the scribe has sealed it. How long who-read takes on that log is told, too.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from uuid import UUID

from _common import Connection, Figure, Server, Tenant, copy_patients, cpu_seconds, main, patient
from scribe import SIZE, Scribe, one, wait_for

ROWS = int(os.environ.get("ROWS", 1_000_000))
_SCAN = "select count(*) from patients where name like '%Nobody%'"
_WAL = "select (pg_current_wal_insert_lsn() - '0/0')::bigint"


def run(server: Server) -> list[Figure]:
    database = server.database("big_scan")
    tenant = database.tenant()
    with database.admin() as admin, tempfile.TemporaryDirectory() as directory:
        leaf = f"sealed_{tenant.slug}.patients"
        if one(admin, f"select count(*) from {leaf}") != ROWS:
            admin.execute(f"alter table {leaf} disable trigger ward_audit")
            with tenant.log_in() as loading:
                for first in range(1, ROWS + 1, 100_000):
                    batch = range(first, min(first + 100_000, ROWS + 1))
                    copy_patients(loading, "patients", list(map(patient, batch)))
            admin.execute(f"alter table {leaf} enable always trigger ward_audit")
            admin.execute(f"vacuum analyze {leaf}")
        figures = []
        with Scribe(server, database.name, Path(directory) / "scribe.log"):
            wait_for(admin, "select count(*) > 0 from ward_internal.audit_checkpoints")
            for level in ("off", "statement", "row"):
                figures += _scan(admin, tenant, level)
            for table_row in ("17", "999"):
                start = time.perf_counter()
                query = "select count(*) from ward.audit_acts(null, 'patients', %s, p_tenant => %s)"
                told = one(admin, query, table_row, str(tenant.id))
                taken = time.perf_counter() - start
                figures.append(Figure(f"who-read of row {table_row}: {told} lines", taken * 1000, "ms"))
        admin.execute("select pg_drop_replication_slot('audit_bench')")
    return figures


def _scan(admin: Connection, tenant: Tenant, level: str) -> list[Figure]:
    identity = UUID(tenant.id)
    admin.execute("select ward.set_audit('clinic.patients', %s, 'a bench')", [level])
    with tenant.log_in() as reader:
        reader.execute("select name from patients where id = 1")
        _wait_sealed(admin, identity)
        size, entries, wal = one(admin, SIZE), _entries(admin, identity), one(admin, _WAL)
        start, pid = time.perf_counter(), reader.info.backend_pid
        cpu = cpu_seconds(pid)
        reader.execute(_SCAN)
        seconds = time.perf_counter() - start
        cpu = cpu_seconds(pid) - cpu
        wal = one(admin, _WAL) - wal
        _wait_sealed(admin, identity)
        drained = time.perf_counter() - start
    what = f"level {level}: "
    return [
        Figure(f"{what}scan of {ROWS:,} rows", seconds, "s"),
        Figure(f"{what}CPU of its backend", cpu, "s"),
        Figure(f"{what}WAL meanwhile", wal / 1e6, "MB"),
        Figure(f"{what}until it is sealed", drained, "s"),
        Figure(f"{what}entries", _entries(admin, identity) - entries, ""),
        Figure(f"{what}log, on the disk", (one(admin, SIZE) - size) / 1e6, "MB"),
    ]


def _entries(admin: Connection, tenant: UUID) -> int:
    return int(one(admin, "select count(*) from ward_internal.audit_log where tenant_id = %s", tenant))


def _wait_sealed(admin: Connection, tenant: UUID) -> None:
    """Wait until all is sealed that was journalled before."""
    admin.execute("select ward_internal.log_event(%s, 'bench')", [tenant])
    marked = one(admin, "select max(id) from ward_internal.audit_log where operation = 'bench'")
    wait_for(admin, "select count(*) > 0 from ward_internal.audit_batches where %s = any (ids)", marked)


if __name__ == "__main__":
    main("big_scan", run)
