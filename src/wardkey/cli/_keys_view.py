"""How ``wardkey keys`` shows keys, what is done to them, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ._context import Context
from ._output import console, details, moment, table

if TYPE_CHECKING:
    from ..keys.policy import Due, TenantKeys
    from ..keys.run import Outcome, Progress

__all__ = ["key_facts", "outcome_text", "resealing", "show_status", "tenant_facts"]

_VERSIONS = (
    "version", "state", "fields", "age_days", "kek_version", "created_at", "wrapped_at", "replaced_at",
    "retired_at", "destroyed_at", "reason",
)  # fmt: skip


def tenant_facts(tenant: TenantKeys, due: Sequence[Due]) -> dict[str, Any]:
    """Return a tenant's line in the list."""
    from ..keys.policy import kek_in_use_since

    active = tenant.active
    old = [key for key in tenant.keys if key.state in ("decrypt-only", "retired")]
    return {
        "slug": tenant.slug or "(master secret)",
        "id": tenant.id,
        "status": tenant.status,
        "mode": tenant.mode,
        "version": active and active.version,
        "age_days": active and _days(active.created_at),
        "kek": active and active.kek,
        "kek_version": active and active.kek_version,
        "kek_age_days": None if active is None else _days(kek_in_use_since(tenant.keys)),
        "old_versions": [f"{key.version} {key.state}" for key in old],
        "fields": tenant.fields,
        "due": [f"{step.action}: {step.reason}" for step in due],
    }


def key_facts(tenant: TenantKeys, counted: dict[int | None, int] | None) -> list[dict[str, Any]]:
    """Return a line for each version; ``counted``: values under each."""
    keys = [
        {
            "version": key.version,
            "state": key.state,
            "fields": None if counted is None else counted.get(key.version, 0),
            "age_days": _days(key.created_at),
            "kek": key.kek,
            "kek_version": key.kek_version,
            "created_at": key.created_at,
            "wrapped_at": key.wrapped_at,
            "replaced_at": key.replaced_at,
            "retired_at": key.retired_at,
            "destroyed_at": key.destroyed_at,
            "reason": key.reason,
        }
        for key in tenant.keys
    ]
    known = {key.version for key in tenant.keys}
    unknown = sum(fields for version, fields in (counted or {}).items() if version not in known)
    return [*keys, {"version": None, "state": "unknown", "fields": unknown}] if unknown else keys


def show_status(facts: dict[str, Any]) -> None:
    """Print what ``wardkey keys status`` found."""
    versions, rotation = facts["versions"], facts["rotation"]
    shown = ("slug", "status", "mode", "kek", "kek_version", "kek_age_days", "fields", "request", "due")
    details({name: None if facts[name] == [] else facts[name] for name in shown})
    if rotation:
        state = "paused" if rotation["paused"] else "under way"
        ended = rotation["finished_at"]
        since = f"finished {moment(ended)}" if ended else f"{state} since {moment(rotation['started_at'])}"
        moved = f"{rotation['rows']:,} rows, {rotation['fields']:,} values moved"
        failed = f", {rotation['failed']:,} times a value did not open" if rotation["failed"] else ""
        details(
            {"rotation": f"to version {rotation['version']} ({rotation['reason']}): {since}; {moved}{failed}"}
        )
    table(versions, [name for name in _VERSIONS if any(row.get(name) is not None for row in versions)])


def outcome_text(outcome: Outcome) -> str:
    """Return what became of resealing, as a line."""
    rate = f", {outcome.fields / outcome.seconds:,.0f}/s" if outcome.fields else ""
    done = f"{outcome.rows:,} rows, {outcome.fields:,} values in {outcome.seconds:.1f} s{rate}"
    retired = f"; retired: {', '.join(map(str, outcome.retired))}" if outcome.retired else ""
    if outcome.state == "finished":
        return f"{outcome.slug}: resealed {done}{retired}"
    again = "" if outcome.state == "paused" else f"; continue with: wardkey keys reseal {outcome.slug}"
    return f"{outcome.slug}: {outcome.state}, {outcome.reason}; so far {done}{retired}{again}"


@contextmanager
def resealing(context: Context) -> Iterator[Any]:
    """Yield a function to be called with each Progress; it draws a bar, a rate and the time that is left."""
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Display

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    silent = context.json or not sys.stderr.isatty()
    with Display(*columns, console=console(stderr=True), disable=silent, transient=True) as display:
        tasks: dict[str, Any] = {}

        def watch(progress: Progress) -> None:
            if progress.slug not in tasks:
                tasks[progress.slug] = display.add_task(progress.slug, total=None, rate="")
            rate = f"{progress.fields / progress.seconds:,.0f} values/s" if progress.seconds else ""
            display.update(
                tasks[progress.slug],
                description=f"{progress.slug} {progress.table}",
                completed=progress.blocks,
                total=progress.of_blocks,
                rate=rate,
            )

        yield watch


def _days(moment: datetime) -> int:
    return (datetime.now(UTC) - moment).days
