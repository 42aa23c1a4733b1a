"""What dashboards show: the only place that names metrics for Grafana and for the page.

In an expression ``OF`` stands for the matcher of whose series are meant: the platform's job, one tenant, or
the tenants that a reader has chosen. Nothing else in it differs, so that a tenant sees of itself what the
platform sees of all. Every selector of metrics of wardkey has it: ``Query.of`` refuses one that does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["CHOSEN", "OF_PLATFORM", "PLATFORM", "RATE", "TENANT", "TENANTS", "Panel", "Query", "of_tenant"]

OF_PLATFORM: Final = 'job="wardkey-platform",tenant=""'  # a tenant's slug may be platform
CHOSEN: Final = 'tenant=~"$tenant"'
"""The tenants that the variable ``tenant`` of the platform's dashboard names."""
TENANTS: Final = "label_values(wardkey_transactions_total, tenant)"
"""The query of this variable."""
RATE: Final = "$__rate_interval"
_SELECTOR: Final = re.compile(r"\b(wardkey_\w+)(\{OF\b)?")
_SUFFIX: Final = re.compile(r"_(total|bucket|sum|count)$")


def of_tenant(slug: str) -> str:
    return f'tenant="{slug}"'


@dataclass(frozen=True, slots=True)
class Query:
    """``legend``: with ``{{label}}`` where a label's value is to stand."""

    expression: str
    legend: str

    def of(self, matcher: str) -> str:
        """Return the PromQL of those whom ``matcher`` means. Raises ValueError for one of everybody."""
        if not all(matched for _, matched in _SELECTOR.findall(self.expression)):
            raise ValueError(f"not every selector has a matcher: {self.expression}")
        return re.sub(r"(?<=\{)OF\b", lambda _: matcher, self.expression)

    @property
    def metrics(self) -> Sequence[str]:
        """The names of the metrics in it, as ``wardkey.metrics`` has them."""
        return [_SUFFIX.sub("", name) for name, _ in _SELECTOR.findall(self.expression)]


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit``: Grafana's name of it. ``runbook``: the page of the alert on the same numbers, or nothing.

    ``is_stat``: the number now matters, and not its course.
    """

    title: str
    text: str
    unit: str
    runbook: str
    queries: Sequence[Query]
    is_stat: bool = False


def _rates(title: str, text: str, runbook: str, *queries: tuple[str, str]) -> Panel:
    """Return a panel of counters a second: the name of each, and a label in braces or a legend."""
    made = []
    for metric, legend in queries:
        by = f" by ({legend.strip('{}')}) " if legend.startswith("{") else ""
        made.append(Query(f"sum{by}(rate({metric}_total{{OF}}[{RATE}]))", legend))
    return Panel(title, text, "ops", runbook, made)


def _latency(title: str, text: str, runbook: str, metric: str) -> Panel:
    selected = f"sum by (le) (rate({metric}_bucket{{OF}}[{RATE}]))"
    parts = (("0.5", "p50"), ("0.99", "p99"))
    queries = [Query(f"histogram_quantile({part}, {selected})", name) for part, name in parts]
    return Panel(title, text, "s", runbook, queries)


def _gauges(title: str, text: str, unit: str, runbook: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, text, unit, runbook, [Query(*query) for query in queries])


def _stat(title: str, text: str, unit: str, runbook: str, expression: str, legend: str) -> Panel:
    return Panel(title, text, unit, runbook, [Query(expression, legend)], is_stat=True)


# fmt: off
TENANT: Final = (
    _rates("Logins", "Transactions with a context, and those whose token was new to a backend, a second.", "",
        ("wardkey_transactions", "transactions"), ("wardkey_logins", "logins")),
    _latency("Latency of logins", "How long logins take in backends.", "", "wardkey_login_seconds"),
    _rates("Refusals", "Refused logins, queries and keys a second, by what was wrong.", "refusals-unusual",
        ("wardkey_refusals", "{{kind}}")),
    _rates("Rows and fields opened", "Rows in read entries, and sealed fields opened in them, a second.", "",
        ("wardkey_rows_opened", "rows"), ("wardkey_fields_opened", "fields")),
    _rates("Pages out of the cache", "Hits of clients' cache, a second.", "", ("wardkey_cache_hits", "hits")),
    _rates("Rows written", "Rows in write entries a second, and the fields that backends sealed.", "",
        ("wardkey_rows_written", "{{operation}}"), ("wardkey_fields_sealed", "fields sealed")),
    _rates("Budgets, tampering", "Near and at the end of budgets, values that did not open, released keys.",
        "budget-exhausted", ("wardkey_events", "{{event}}")),
    _gauges("Age of keys", "How old the oldest key in use is, and how long before the first is due.", "s",
        "key-overdue",
        ("max by (key) (time() - wardkey_key_created_timestamp_seconds{OF})", "age of {{key}} key"),
        ("min by (key) (wardkey_key_due_timestamp_seconds{OF} - time())", "{{key}} key is due in")),
    _gauges("Rows moved by rotations", "Of those under way. None runs: no data.", "short", "",
        ("sum(wardkey_rotation_rows{OF})", "rows")),
    _gauges("Oldest rotation under way", "For how long it has run. None runs: no data.", "s", "rotation-slow",
        ("max(time() - wardkey_rotation_started_timestamp_seconds{OF})", "runs for")),
    _gauges("Audit lag", "How long the oldest entry has waited for a signed checkpoint. 0: none waits.", "s",
        "audit-behind", ("max(time() - wardkey_audit_unsigned_since_timestamp_seconds{OF})"
            " or max(0 * wardkey_audit_unsigned_entries{OF})", "oldest entry")),
    _gauges("Entries that wait", "Without a checkpoint; not in Kafka yet, where there is a topic.", "short",
        "unpublished", ("sum(wardkey_audit_unsigned_entries{OF})", "for a checkpoint"),
        ("sum(wardkey_unpublished_entries{OF})", "for Kafka")),
    _stat("Break-glass to review", "Emergency accesses whose review is to be done.", "short",
        "break-glass-unreviewed", "sum(wardkey_break_glass_unreviewed{OF})", "accesses"),
    _stat("Agreement ends in", "The first to end of business associate agreements. None ends: no data.", "s",
        "baa-ends", "min(wardkey_baa_ends_timestamp_seconds{OF} - time())", "ends in"),
)
"""Of one tenant, or of several together."""

PLATFORM: Final = (
    _stat("Services", "Whether keeper and scribe are at work: 1, or 0.", "short", "keeper-down",
        "wardkey_up{OF}", "{{service}}"),
    _stat("Tenants by status", "How many of each.", "short", "", "wardkey_tenants{OF}", "{{status}}"),
    _stat("Age of the newest backup", "Since a backup last ended well. Never: no data.", "s", "backup-old",
        "time() - (wardkey_backup_timestamp_seconds{OF} > 0)", "age"),
    _stat("Last good restore drill", "Since a drill last opened every tenant. Never: no data.", "s",
        "backup-unproven", "time() - (wardkey_backup_proven_timestamp_seconds{OF} > 0)", "age"),
    _stat("Paths that are not read", "Paths of metrics that Prometheus could not read.", "short",
        "metrics-missing", 'count(up{job=~"wardkey-.+"} == 0) or vector(0)', "paths"),
    _gauges("Slot of the scribe", "WAL not confirmed, WAL kept, and what may come before some is lost.",
        "bytes", "slot-filling", ("wardkey_slot_bytes{OF}", "{{part}}")),
    _gauges("Failures of the scribe", "How often it failed at the position where it is.", "short",
        "scribe-failing", ("wardkey_scribe_failures{OF}", "failures")),
    _rates("Requests to the keeper", "Released and refused, a second.", "",
        ("wardkey_keeper_requests", "{{outcome}}")),
    _latency("Latency of releases", "How long the keeper takes for one.", "", "wardkey_release_seconds"),
    _latency("Latency of the KMS", "How long calls take that end well.", "kms-errors", "wardkey_kms_seconds"),
    _rates("Errors of the KMS", "Calls that do not end well, a second.", "kms-errors",
        ("wardkey_kms_errors", "errors")),
    _rates("The keeper's cache", "Data keys in memory, and those that the KMS was asked for, a second.", "",
        ("wardkey_keeper_cache", "{{outcome}}")),
    _gauges("Data keys in memory", "Of the keeper; 0 when that has just started.", "short", "",
        ("wardkey_keeper_cached_keys{OF}", "keys")),
    _stat("The keeper runs for", "Since it was started.", "s", "",
        "time() - wardkey_keeper_started_timestamp_seconds{OF}", "runs for"),
    _rates("Honey rows opened", "In all tenants, a second. No tenant sees this.", "honey-row-opened",
        ("wardkey_honey_rows_opened", "rows")),
)
"""Of the platform's own path."""
# fmt: on
