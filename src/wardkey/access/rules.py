"""Row rules: which rows of a model table a role sees and writes.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ..errors import UnknownObject

__all__ = ["add", "drop", "every", "one"]

Connection = psycopg.Connection[Any]

_RULES = """
select relation::text as "table", name, roles, expression, made_by, made_at from ward.row_rules
where %(table)s::regclass is null or relation = %(table)s::regclass order by 1, 2"""


def add(
    connection: Connection, table: str, roles: Sequence[str], expression: str, name: str | None
) -> dict[str, Any]:
    """Add a rule and return it. Raises psycopg.Error (WK204, WK258 to WK261)."""
    query = "select ward.add_row_rule(%s::regclass, %s, %s, %s)"
    ((made,),) = connection.execute(query, [table, list(roles), expression, name]).fetchall()
    return one(connection, table, made)


def drop(connection: Connection, table: str, name: str) -> None:
    """Take a rule away. Raises psycopg.Error (WK204)."""
    connection.execute("select ward.drop_row_rule(%s::regclass, %s)", [table, name])


def every(connection: Connection, table: str | None = None) -> list[dict[str, Any]]:
    """Return all rules, or those of one table, by table and name."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_RULES, {"table": table}).fetchall()


def one(connection: Connection, table: str, name: str) -> dict[str, Any]:
    """Return one rule. Raises UnknownObject."""
    for row in every(connection, table):
        if row["name"] == name:
            return row
    raise UnknownObject(f"{table} has no row rule of that name", "list them: wardkey access rule list")
