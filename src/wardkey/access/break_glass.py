"""Break-glass as people take its steps: as themselves, with a token of their own. Operators only look.

Functions but ``every`` take an open connection of a tenant's login role that is logged in.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

__all__ = ["STEPS", "every", "request", "take"]

STEPS = {
    "approve": "select ward.approve_break_glass(%s)",
    "deny": "select ward.deny_break_glass(%s)",
    "end": "select ward.end_break_glass(%s)",
    "review": "select ward.review_break_glass(%s, %s)",
}

Connection = psycopg.Connection[Any]


def request(
    connection: Connection, reason: str, classes: Sequence[str], minutes: int, *, emergency: bool
) -> dict[str, Any]:
    """Ask to see classes of columns, all if none is named. Raises psycopg.Error (WK212, WK245, WK246)."""
    query = "select ward.break_glass(%s, %s, %s, %s)"
    ((made,),) = connection.execute(query, [reason, list(classes) or None, minutes, emergency]).fetchall()
    return _one(connection, made)


def take(connection: Connection, step: str, made: UUID, *values: str) -> dict[str, Any]:
    """Take one of STEPS, and return the request. Raises psycopg.Error (WK212, WK245, WK246)."""
    connection.execute(STEPS[step], [made, *values])
    return _one(connection, made)


def every(connection: Connection, slug: str | None, since: datetime | None = None) -> list[dict[str, Any]]:
    """Return requests and grants as an operator sees them, the last first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from ward.break_glass_grants where (%(slug)s::text is null or slug = %(slug)s)"
            " and (%(since)s::timestamptz is null or requested_at >= %(since)s) order by requested_at desc",
            {"slug": slug, "since": since},
        ).fetchall()


def _one(connection: Connection, made: UUID) -> dict[str, Any]:
    with connection.cursor(row_factory=dict_row) as cursor:
        query = "select * from ward.break_glass_requests() where id = %s"
        return cursor.execute(query, [made]).fetchone() or {"id": made}
