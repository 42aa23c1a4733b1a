"""Who came, what was opened and written, what was refused: counted by the scribe and by backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from wardkey_core.journal import LOGIN_SECONDS

from ...scribe.counts import EVENTS, KINDS, LOGIN_BOUNDS
from ..registry import PLATFORM, Histogram, Metric, Reading, Sample

__all__ = ["METRICS"]

_HONEY: Final = "honey_row_opened"  # no tenant can tell honey rows from others: the platform's alone
_EVENTS: Final = tuple(event for event in EVENTS if event != _HONEY)


def _counted(name: str, *labels: str) -> Callable[[Reading], Iterator[Sample]]:
    """Return what reads a counter of ``ward_internal.counts``; nothing counted yet is 0."""

    def read(reading: Reading) -> Iterator[Sample]:
        for label in labels or ("",):
            counted = reading.counted(name, label)
            for tenant in reading.tenants:
                yield tenant, label, counted.get(tenant, 0)

    return read


def _logins(reading: Reading) -> Iterator[Sample]:
    buckets = [reading.counted("login_seconds", bound) for bound in LOGIN_BOUNDS]
    sums = reading.counted("login_microseconds", "")
    for tenant in reading.tenants:
        counts = [bucket.get(tenant, 0) for bucket in buckets]
        yield tenant, "", Histogram(LOGIN_SECONDS, counts, sums.get(tenant, 0) / 1e6)


def _honey(reading: Reading) -> Iterator[Sample]:
    yield PLATFORM, "", reading.counted("events", _HONEY).get(PLATFORM, 0)


METRICS = (
    Metric(
        "wardkey_transactions",
        "counter",
        "Transactions that had a context; backends tell of them 15 s later or at their end.",
        _counted("transactions"),
    ),
    Metric("wardkey_logins", "counter", "Logins with a token that was new to a backend.", _counted("logins")),
    Metric(
        "wardkey_login_seconds",
        "histogram",
        "How long logins took; each transaction has one.",
        _logins,
        buckets=len(LOGIN_BOUNDS),
    ),
    Metric(
        "wardkey_cache_hits",
        "counter",
        "Values that clients had out of the cache, as they say with their next ticket.",
        _counted("cache_hits"),
    ),
    Metric(
        "wardkey_refusals",
        "counter",
        "Refused logins, queries and keys, by what was wrong.",
        _counted("refusals", *KINDS),
        "kind",
        KINDS,
    ),
    Metric("wardkey_rows_opened", "counter", "Rows in read entries.", _counted("rows_opened")),
    Metric("wardkey_fields_opened", "counter", "Sealed fields in read entries.", _counted("fields_opened")),
    Metric("wardkey_fields_sealed", "counter", "Fields that backends sealed.", _counted("fields_sealed")),
    Metric(
        "wardkey_rows_written",
        "counter",
        "Rows in write entries.",
        _counted("rows_written", "insert", "update", "delete"),
        "operation",
        ("insert", "update", "delete"),
    ),
    Metric(
        "wardkey_events",
        "counter",
        "Events of the audit log that somebody may want to look at.",
        _counted("events", *_EVENTS),
        "event",
        _EVENTS,
    ),
    Metric(
        "wardkey_honey_rows_opened",
        "counter",
        "Honey rows that were opened, in all tenants.",
        _honey,
        is_of_tenants=False,
    ),
)
