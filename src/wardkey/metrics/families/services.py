"""Whether keeper and scribe are at work, and how the keeper is, as it says itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...keeper.latencies import KMS_SECONDS, RELEASE_SECONDS
from ..registry import PLATFORM, Histogram, Metric, Reading, Sample

__all__ = ["METRICS"]

_SCRIBE = """
select coalesce(bool_or(s.active_pid is not null), false)::int::float8
from ward_internal.scribe_state as r join pg_replication_slots as s on s.slot_name = r.slot"""
_TENANTS = "select status, count(*)::float8 from ward_internal.tenants group by status"
_STATUSES = ("active", "suspended", "shredding", "shredded")


def _up(reading: Reading) -> Iterator[Sample]:
    yield PLATFORM, "keeper", float(reading.keeper is not None)
    for (is_active,) in reading.rows(_SCRIBE):
        yield PLATFORM, "scribe", is_active


def _tenants(reading: Reading) -> Iterator[Sample]:
    counted = dict(reading.rows(_TENANTS))
    for status in _STATUSES:
        yield PLATFORM, status, counted.get(status, 0.0)


def _keeper(**names: str) -> Callable[[Reading], Iterator[Sample]]:
    """Return what reads numbers of the keeper's status: names by label."""

    def read(reading: Reading) -> Iterator[Sample]:
        for label, name in names.items() if reading.keeper else ():
            yield PLATFORM, "" if label == "all" else label, float(reading.keeper[name])  # type: ignore[index]

    return read


def _latencies(name: str) -> Callable[[Reading], Iterator[Sample]]:
    def read(reading: Reading) -> Iterator[Sample]:
        if reading.keeper:
            yield PLATFORM, "", Histogram(**reading.keeper[name])

    return read


METRICS = (
    Metric(
        "wardkey_up",
        "gauge",
        "Whether the service is at work.",
        _up,
        "service",
        ("keeper", "scribe"),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_tenants", "gauge", "Tenants, by status.", _tenants, "status", _STATUSES, is_of_tenants=False
    ),
    Metric(
        "wardkey_keeper_started_timestamp_seconds",
        "gauge",
        "When the keeper was started.",
        _keeper(all="started_at"),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_keeper_requests",
        "counter",
        "What the keeper released and refused.",
        _keeper(released="releases", refused="refusals"),
        "outcome",
        ("released", "refused"),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_keeper_cache",
        "counter",
        "Data keys that were in the keeper's memory, and those that the KMS was asked for.",
        _keeper(hit="cache_hits", miss="cache_misses"),
        "outcome",
        ("hit", "miss"),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_keeper_cached_keys",
        "gauge",
        "Data keys in the keeper's memory.",
        _keeper(all="cached_keys"),
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_release_seconds",
        "histogram",
        "How long the keeper took to release keys.",
        _latencies("release_seconds"),
        buckets=len(RELEASE_SECONDS) + 1,
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_kms_seconds",
        "histogram",
        "How long calls of KMSs took that ended well.",
        _latencies("kms_seconds"),
        buckets=len(KMS_SECONDS) + 1,
        is_of_tenants=False,
    ),
    Metric(
        "wardkey_kms_errors",
        "counter",
        "Calls of KMSs that did not end well.",
        _keeper(all="kms_errors"),
        is_of_tenants=False,
    ),
)
