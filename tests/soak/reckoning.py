"""Afterwards: what the diary says, against the tables and against the log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from uuid import UUID

import psycopg

from tests.soak.clients import Diary
from tests.support.database import Database
from wardkey.audit.live import verify_live
from wardkey.embedded import Cluster

_WRITTEN = "select subject, operation, table_name, row_id from ward.audit_entries() where kind = 'write'"
_READ = "select distinct subject, table_name, row_id from ward.audit_entries() where operation = 'read'"
_TABLES = {
    "patients": "select id, name, ssn from patients",
    "visits": "select id, patient::text, note from visits",
}


def compare(cluster: Cluster, database: Database, ids: Mapping[str, UUID], diary: Diary) -> Iterator[str]:
    """Yield what differs."""
    _wait_for_scribe(database)
    for slug, tenant in ids.items():
        with database.tenant(slug, subject="auditor", role="ADMIN") as ward:
            yield from _compare_rows(ward, slug, diary)
            yield from _compare_log(ward, slug, diary)
        with psycopg.connect(database.dsn()) as connection:
            connection.execute("set transaction isolation level repeatable read")
            report = verify_live(connection, tenant)
            if not report.ok:
                yield f"{slug}: the log does not verify: {report.defect}"


def _compare_rows(ward: psycopg.Connection, slug: str, diary: Diary) -> Iterator[str]:
    kept = {row: values for row, values in diary.rows[slug].items() if values is not None}
    there = {
        (table, key): tuple(values)
        for table, query in _TABLES.items()
        for key, *values in ward.execute(query).fetchall()
    }
    for row in kept.keys() | there.keys():
        if kept.get(row) != there.get(row) and row not in diary.unsure[slug]:
            yield f"{slug}: {row} is {there.get(row)}, was written as {kept.get(row)}"


def _compare_log(ward: psycopg.Connection, slug: str, diary: Diary) -> Iterator[str]:
    logged = Counter(
        (subject, operation, table.rpartition(".")[2], int(row))
        for subject, operation, table, row in ward.execute(_WRITTEN).fetchall()
    )
    written, maybe = diary.written[slug], diary.maybe[slug]
    for write in logged.keys() | written.keys():
        if not written[write] <= logged[write] <= written[write] + maybe[write]:
            yield f"{slug}: {write} was confirmed {written[write]} times, is in the log {logged[write]} times"
    read = {
        (subject, table.rpartition(".")[2], int(row))
        for subject, table, row in ward.execute(_READ).fetchall()
        if row is not None and row.isdecimal()
    }
    for seen in sorted(diary.seen[slug] - read):
        yield f"{slug}: {seen} was seen, and no entry says so"


def _wait_for_scribe(database: Database) -> None:
    """Wait until the scribe has stored what was in the WAL when it was asked."""
    with database.admin() as admin:
        row = admin.execute("select pg_current_wal_lsn()").fetchone()
        assert row
        admin.execute("select pg_logical_emit_message(false, 'soak', 'end')")
        slot = "from pg_replication_slots where slot_name = 'wardkey_audit'"
        done = f"select confirmed_flush_lsn >= %s::pg_lsn {slot}"
        deadline = time.monotonic() + 120
        while admin.execute(done, row).fetchone() != (True,):
            assert time.monotonic() < deadline, "the scribe does not come to the end"
            time.sleep(0.2)
