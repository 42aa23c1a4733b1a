"""The life of keys, of agreements and of backups, as moments: what is late follows from the time now."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..registry import PLATFORM, Metric, Reading, Sample

__all__ = ["METRICS"]

# The KEK counts from its first use for the tenant, as keys/policy.py has it.
_KEYS = """
select a.tenant_id, k.key, date_part('epoch', k.since {due})
from ward_internal.tenant_keys as a
join ward_internal.tenants as t on t.id = a.tenant_id and t.status in ('active', 'suspended')
cross join lateral (
  select 'data' as key, a.created_at as since, 'cryptoperiod' as period
  union all
  select 'kek', min(wrapped_at), 'kek_cryptoperiod' from ward_internal.tenant_keys as k
    where (k.tenant_id, k.kek, k.kek_version) = (a.tenant_id, a.kek, a.kek_version)
      and t.key_mode <> 'derived'
) as k
where a.state = 'active' and k.since is not null"""
_DUE = (
    """+ coalesce((select value from ward_internal.settings where name = k.period), '365 days')::interval"""
)
_ROTATIONS = """
select tenant_id, '', {value} from ward_internal.rotations where finished_at is null group by tenant_id"""
_BAAS = """
select tenant_id, '', date_part('epoch', (max(least(ends, ended_on)) + 1)::timestamptz)
from ward_internal.baas
group by tenant_id having bool_and(ends is not null or ended_on is not null)"""
_BREAK_GLASS = """
select t.id, '', count(b.tenant_id)::float8
from ward_internal.tenants as t left join ward_internal.break_glass as b
  on b.tenant_id = t.id and b.emergency and b.started_at is not null and b.reviewed_at is null
group by t.id"""
_BACKUP = "select date_part('epoch', max(made_at)) from ward_internal.backups"
_PROVEN = "select date_part('epoch', max(drilled_at)) from ward_internal.backups where drill_is_good"


def _rows(query: str) -> Callable[[Reading], Iterator[Sample]]:
    def read(reading: Reading) -> Iterator[Sample]:
        yield from reading.rows(query)

    return read


def _moment(query: str) -> Callable[[Reading], Iterator[Sample]]:
    def read(reading: Reading) -> Iterator[Sample]:
        for (at,) in reading.rows(query):
            yield PLATFORM, "", at or 0.0

    return read


METRICS = (
    Metric(
        "wardkey_key_created_timestamp_seconds",
        "gauge",
        "When the key in use was made; the KEK when it was first used.",
        _rows(_KEYS.format(due="")),
        "key",
        ("data", "kek"),
    ),
    Metric(
        "wardkey_key_due_timestamp_seconds",
        "gauge",
        "When the key in use is to be replaced.",
        _rows(_KEYS.format(due=_DUE)),
        "key",
        ("data", "kek"),
    ),
    Metric(
        "wardkey_rotation_started_timestamp_seconds",
        "gauge",
        "When the rotation that is not finished began.",
        _rows(_ROTATIONS.format(value="date_part('epoch', min(started_at))")),
    ),
    Metric(
        "wardkey_rotation_rows",
        "gauge",
        "Rows that the rotation under way has moved.",
        _rows(_ROTATIONS.format(value="sum(rows)::float8")),
    ),
    Metric(
        "wardkey_baa_ends_timestamp_seconds",
        "gauge",
        "When the last business associate agreement ends; none while one has no end.",
        _rows(_BAAS),
    ),
    Metric(
        "wardkey_break_glass_unreviewed",
        "gauge",
        "Emergency accesses whose review is to be done.",
        _rows(_BREAK_GLASS),
    ),
    Metric(
        "wardkey_backup_timestamp_seconds",
        "gauge",
        "When wardkey backup last ended well; 0: never.",
        _moment(_BACKUP),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_backup_proven_timestamp_seconds",
        "gauge",
        "When a restore drill last opened every tenant of a backup; 0: never.",
        _moment(_PROVEN),
        is_of_tenants=False,
    ),
)
