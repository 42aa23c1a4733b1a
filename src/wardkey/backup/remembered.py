"""What the database remembers of its backups: when the last was made, and how its drill ended."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

__all__ = ["last", "record_drill"]

Connection = psycopg.Connection[Any]


def record_drill(connection: Connection, backup: str, *, is_good: bool) -> bool:
    """Remember how a drill of a backup ended; False when it is none of this database's."""
    done = connection.execute(
        "update ward_internal.backups set drilled_at = clock_timestamp(), drill_is_good = %s where id = %s",
        [is_good, backup],
    )
    return done.rowcount == 1


def last(connection: Connection) -> dict[str, Any] | None:
    """Return the newest backup: ``made_at``, ``drilled_at`` and ``drill_is_good``; None: there is none."""
    query = (
        "select made_at, drilled_at, drill_is_good from ward_internal.backups order by made_at desc limit 1"
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchone()
