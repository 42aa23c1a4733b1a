"""How far the audit log is: from the journal in the WAL to signed checkpoints and to Kafka."""

from __future__ import annotations

from collections.abc import Iterator

from ..registry import PLATFORM, Metric, Reading, Sample

__all__ = ["METRICS"]

_UNSIGNED = """
select t.tenant_id, t.size - coalesce(c.size, 0), date_part('epoch', b.at)
from ward_internal.audit_trees as t
left join lateral (select max(size) as size from ward_internal.audit_checkpoints
  where tenant_id = t.tenant_id) as c on true
left join lateral (select min(at) as at from ward_internal.audit_batches as b
  where b.tenant_id = t.tenant_id and b.first_position >= coalesce(c.size, 0)
    and t.size > coalesce(c.size, 0)) as b on true"""
_UNPUBLISHED = """
select t.tenant_id, '', (t.size - k.position)::float8
from ward_internal.audit_trees as t join ward_internal.audit_topics as k using (tenant_id)"""
_SLOT = """
select (s.active_pid is not null)::int::float8,
  coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.confirmed_flush_lsn), 0)::float8,
  coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::float8, s.safe_wal_size::float8,
  (s.wal_status = 'lost')::int::float8, r.failures::float8
from ward_internal.scribe_state as r left join pg_replication_slots as s on s.slot_name = r.slot"""
_PARTS = ("behind", "kept", "left")


def _unsigned(reading: Reading) -> Iterator[Sample]:
    for tenant, entries, _ in reading.rows(_UNSIGNED):
        yield tenant, "", float(entries)


def _unsigned_since(reading: Reading) -> Iterator[Sample]:
    for tenant, _, since in reading.rows(_UNSIGNED):
        if since is not None:
            yield tenant, "", since


def _unpublished(reading: Reading) -> Iterator[Sample]:
    yield from reading.rows(_UNPUBLISHED)


def _slot(reading: Reading) -> Iterator[Sample]:
    for row in reading.rows(_SLOT):
        for part, value in zip(_PARTS, row[1:4], strict=True):
            if value is not None:
                yield PLATFORM, part, value


def _failures(reading: Reading) -> Iterator[Sample]:
    for row in reading.rows(_SLOT):
        yield PLATFORM, "", row[5]


METRICS = (
    Metric("wardkey_audit_unsigned_entries", "gauge", "Entries that no checkpoint covers yet.", _unsigned),
    Metric(
        "wardkey_audit_unsigned_since_timestamp_seconds",
        "gauge",
        "When the oldest of the entries without a checkpoint was sealed; none without such.",
        _unsigned_since,
    ),
    Metric(
        "wardkey_unpublished_entries",
        "gauge",
        "Entries that Kafka lacks; none without a topic.",
        _unpublished,
    ),
    Metric(
        "wardkey_slot_bytes",
        "gauge",
        "WAL that the scribe has not confirmed, that is kept for it, and that may come before some is lost.",
        _slot,
        "part",
        _PARTS,
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_scribe_failures",
        "gauge",
        "How often the scribe failed at the position where it is.",
        _failures,
        is_of_tenants=False,
    ),
)
