"""How sealed columns are searched: declared, dropped, listed.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

__all__ = ["accept", "add", "add_unique", "drop", "drop_unique", "every", "leakage"]

Connection = psycopg.Connection[Any]

_SEARCHES = """
select relation::text as "table", column_name as "column", kind, normaliser, step::text as step, pending
  from ward.searches
union all
select relation::text, array_to_string(columns, ', '), 'unique ' || name, normaliser, null, pending
  from ward.uniques
 order by 1, 2, 3"""

_WANTED = """
 where (%s::text is null or l.relation = %s::regclass) and (%s::name is null or l.column_name = %s)
   and (%s::text is null or l.slug = %s)"""
_LEAKAGE = f"""
select slug as tenant, relation::text as "table", column_name as "column", kind, rows, distinct_values,
       round(100 * commonest_value::numeric, 1)::float as commonest_value,
       round(100 * commonest_token::numeric, 1)::float as commonest_token,
       case when tells_too_much and accepted is null then 'tells too much' when tells_too_much then 'accepted'
            when rows < 1000 then 'few rows' else 'ok' end as verdict
  from ward.search_leakage as l {_WANTED} order by 2, 3, 4, 1"""  # noqa: S608
_LEAVES = f"""
select distinct 'analyze ' || ward_internal.leaf_name(m.id, t.schema_name) as analyze
  from ward.search_leakage as l
  join ward_internal.models as m on m.relation = l.relation
  join ward_internal.tenants as t on t.slug = l.slug {_WANTED}"""  # noqa: S608


def add(
    connection: Connection,
    table: str,
    column: str,
    kinds: Sequence[str],
    normaliser: str | None = None,
    step: Decimal | None = None,
    accepted: str | None = None,
) -> int:
    """Add searches. Return in how many wards rows have to get their tokens first.

    ``accepted``: why tokens may tell the values of a type that has few.

    Raises psycopg.Error (WK204, WK271).
    """
    query = "select ward.add_search(%s::regclass, %s, %s, %s, %s, %s)"
    ((due,),) = connection.execute(query, [table, column, list(kinds), normaliser, step, accepted]).fetchall()
    return int(due)


def drop(connection: Connection, table: str, column: str, kinds: Sequence[str] = ()) -> None:
    """Drop searches of a column, all of them if none is named. Raises psycopg.Error (WK204)."""
    connection.execute("select ward.drop_search(%s::regclass, %s, %s)", [table, column, list(kinds) or None])


def add_unique(
    connection: Connection,
    table: str,
    columns: Sequence[str],
    name: str | None = None,
    normaliser: str | None = None,
    accepted: str | None = None,
) -> int:
    """Make columns unique together in each ward. Return in how many rows have to get their tokens first.

    Raises psycopg.Error (WK204, WK209, WK271).
    """
    query = "select ward.add_unique(%s::regclass, %s, %s, %s, %s)"
    ((due,),) = connection.execute(query, [table, list(columns), name, normaliser, accepted]).fetchall()
    return int(due)


def drop_unique(connection: Connection, table: str, name: str) -> None:
    """Drop what ``add_unique`` made. Raises psycopg.Error (WK204)."""
    connection.execute("select ward.drop_unique(%s::regclass, %s)", [table, name])


def accept(connection: Connection, table: str, column: str, reason: str) -> None:
    """Say why tokens of a column may tell what they do. Raises psycopg.Error (WK204, WK271)."""
    connection.execute("select ward.accept_leakage(%s::regclass, %s, %s)", [table, column, reason])


def leakage(
    connection: Connection, table: str | None = None, column: str | None = None, tenant: str | None = None
) -> list[dict[str, Any]]:
    """Return what tokens tell of the values of each tenant, by statistics that are made now."""
    with connection.cursor(row_factory=dict_row) as cursor:
        wanted = [table, table, column, column, tenant, tenant]
        for row in cursor.execute(_LEAVES, wanted).fetchall():
            cursor.execute(row["analyze"])
        return cursor.execute(_LEAKAGE, wanted).fetchall()


def every(connection: Connection) -> list[dict[str, Any]]:
    """Return all searches and unique columns; ``pending``: tenants whose rows lack tokens yet."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SEARCHES).fetchall()
