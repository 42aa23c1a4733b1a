"""How the scribe of a database is, as the database and its slot tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from . import slot as slots
from .replication import lsn_text

__all__ = ["how_it_is"]

_STORED = """
select (select at from ward_internal.scribe_state),
  (select coalesce(sum(size), 0)::bigint from ward_internal.audit_trees),
  (select count(*) from ward_internal.audit_unsigned)"""


def how_it_is(connection: psycopg.Connection[Any], disk: Path | None) -> dict[str, Any] | None:
    """Return the facts, or None where no scribe has worked yet; ``disk`` is watched for room, if given."""
    state = slots.State.read(connection)
    if state is None:
        return None
    slot = slots.facts(connection, state.slot)
    at, entries, waiting = connection.execute(_STORED).fetchone() or (None, 0, 0)
    return {
        "slot": state.slot,
        "at_work": slot.active_pid is not None,
        "position": lsn_text(state.lsn),
        "stored_at": at,
        "entries_sealed": entries,
        "checkpoints_waiting": waiting,
        "bytes_behind": slot.behind,
        "wal_kept_bytes": slot.kept,
        "failing": slots.failing(connection),
        "warnings": slot.warnings(disk),
    }
