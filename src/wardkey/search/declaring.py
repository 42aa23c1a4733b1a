"""How sealed columns are searched: declared, dropped, listed.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

__all__ = ["add", "drop", "every"]

Connection = psycopg.Connection[Any]

_SEARCHES = """
select relation::text as "table", column_name as "column", kind, normaliser, step::text as step, pending
  from ward.searches order by 1, 2, 3"""


def add(
    connection: Connection,
    table: str,
    column: str,
    kinds: Sequence[str],
    normaliser: str | None = None,
    step: Decimal | None = None,
) -> int:
    """Add searches. Return in how many wards rows have to get their tokens first.

    Raises psycopg.Error (WK204, WK271).
    """
    query = "select ward.add_search(%s::regclass, %s, %s, %s, %s)"
    ((due,),) = connection.execute(query, [table, column, list(kinds), normaliser, step]).fetchall()
    return int(due)


def drop(connection: Connection, table: str, column: str, kinds: Sequence[str] = ()) -> None:
    """Drop searches of a column, all of them if none is named. Raises psycopg.Error (WK204)."""
    connection.execute("select ward.drop_search(%s::regclass, %s, %s)", [table, column, list(kinds) or None])


def every(connection: Connection) -> list[dict[str, Any]]:
    """Return all searches; ``pending``: tenants whose rows have not all got their tokens yet."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SEARCHES).fetchall()
