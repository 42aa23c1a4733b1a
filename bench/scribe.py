"""How many entries does the scribe seal a second on one core, and what does one take on the disk?

Reads as a clinic's pages make them, twenty rows a statement, are in the WAL before the scribe starts. Counted
is the CPU time of all that works for it: its process, the backend that writes, the one that looks, and the
WAL sender, which decodes what the scribe writes too.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from _common import Connection, Figure, Server, cpu_seconds, main

ENTRIES = 300_000
ROWS = 20  # of a statement
_SLOT = "audit_bench"
_COLUMNS = b"name,ssn,birth_date,phone"
_START = 800_000_000_000_000


class Scribe:
    def __init__(self, server: Server, database: str, log: Path) -> None:
        self._dsn = server.cluster.dsn(database)
        self._keeper, self._log = server.cluster.home.keeper_socket, log

    def __enter__(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "wardkey.scribe", "--dsn", self._dsn, "--slot", _SLOT]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*command, "--keeper", str(self._keeper)], stderr=log)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def one(connection: Connection, query: str, *values: Any) -> Any:
    row = connection.execute(query, values or None).fetchone()
    return row and row[0]


def wait_for(connection: Connection, query: str, *values: Any) -> None:
    deadline = time.monotonic() + 300
    while not one(connection, query, *values):
        if time.monotonic() > deadline:
            raise AssertionError(f"never: {query}")
        time.sleep(0.02)


def emit(connection: Connection, tenant: UUID) -> None:
    """Journal ENTRIES reads, of four columns each (the format: wardkey_core.journal)."""
    heads = [
        struct.pack(
            ">Bc16s16sq", 1, b"r", tenant.bytes, (number // 50).to_bytes(16), _START + number * 20_000
        )
        + tenant.bytes
        + struct.pack(">BcH", 1, b"i", len(_COLUMNS))
        + _COLUMNS
        for number in range(ENTRIES // ROWS)
    ]
    connection.execute("create temporary table heads (number int primary key, head bytea)")
    with connection.cursor() as cursor, cursor.copy("copy heads from stdin") as copy:
        for number, head in enumerate(heads):
            copy.write_row((number, head))
    connection.execute(
        "select count(pg_logical_emit_message(false, 'wardkey', head || int8send(number %% 977 * 20 + n)))"
        " from (select * from heads order by number) as h, generate_series(1, %s) as n",
        [ROWS],
    )
    connection.execute("drop table heads")


SIZE = """
    select sum(pg_total_relation_size(c.oid))::bigint
    from pg_class as c join pg_namespace as n on n.oid = relnamespace
    where relkind = 'r' and (relname like 'audit%' or relname = 'scribe_state')
      and nspname ~ '^(ward_internal|ward_archive|tenant_.*)$'"""
OURS = "from pg_stat_activity where application_name = 'wardkey scribe' and datname = current_database()"


def run(server: Server) -> list[Figure]:
    database = server.database("scribe")
    tenant = UUID(database.tenant().id)
    sealed = "select coalesce(sum(size), 0)::bigint from ward_internal.audit_trees where tenant_id = %s"
    with tempfile.TemporaryDirectory() as directory, database.admin() as connection:
        log = Path(directory) / "scribe.log"
        with Scribe(server, database.name, log):
            wait_for(connection, "select count(*) > 0 from ward_internal.audit_checkpoints")
        emit(connection, tenant)
        before, size = one(connection, sealed, tenant), one(connection, SIZE)
        start = time.perf_counter()
        with Scribe(server, database.name, log) as process:
            wait_for(connection, f"select count(*) = 3 {OURS}")
            kinds = connection.execute(f"select backend_type, pid {OURS}").fetchall()
            wait_for(connection, f"{sealed.replace('select', 'select %s <=', 1)}", before + ENTRIES, tenant)
            wall = time.perf_counter() - start
            cpu = {"scribe": cpu_seconds(process.pid), "WAL sender": 0.0, "backends": 0.0}
            for kind, pid in kinds:
                cpu["WAL sender" if kind == "walsender" else "backends"] += cpu_seconds(pid)
        bytes_each = (one(connection, SIZE) - size) / ENTRIES
        connection.execute("select pg_drop_replication_slot(%s)", [_SLOT])
    whole = sum(cpu.values())
    return [
        Figure(
            "entries sealed for a second of CPU, everything counted",
            ENTRIES / whole,
            "/s",
            20_000,
            "at least",
        ),
        *(Figure(f"… of an entry's CPU: {name}", used / ENTRIES * 1e6, "µs") for name, used in cpu.items()),
        Figure("entries sealed a second, by the clock", ENTRIES / wall, "/s"),
        Figure("a read entry on the disk, with index, hashes and all", bytes_each, "bytes", 300),
    ]


if __name__ == "__main__":
    main("scribe", run)
