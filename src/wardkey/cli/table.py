"""``wardkey table``: what tenants can see. A table that is neither protected nor shared, none of them can."""

from __future__ import annotations

import json
from typing import Any

import click

from ._context import Context, pass_context
from ._output import emit
from ._output import table as print_table


@click.group()
def table() -> None:
    """Protect tables, share reference tables, list them.

    TABLE is a table with its schema, such as clinic.patients.
    """


@table.command("protect")
@click.argument("name", metavar="TABLE")
@click.option(
    "--seal",
    metavar="COLUMNS",
    default="",
    help="To encrypt, with classes: name:identifier,dob:quasi",
)
@pass_context
def protect(context: Context, name: str, seal: str) -> None:
    """Make an empty table a model table, with sealed columns.

    Every tenant gets one of its own. A column without a class is of class clinical.
    """
    named = (part.partition(":") for part in seal.split(",") if part.strip())
    columns = {column.strip(): of.strip() or "clinical" for column, _, of in named}
    with context.connect() as connection:
        query = "select ward.protect(%s::regclass, %s::jsonb)"
        connection.execute(query, [name, json.dumps(columns)])
    sealed = ", ".join(columns) or "none"
    emit(
        context, {"table": name, "sealed": columns}, lambda: click.echo(f"{name} protected; sealed: {sealed}")
    )


@table.command("share")
@click.argument("name", metavar="TABLE")
@pass_context
def share(context: Context, name: str) -> None:
    """Let every tenant read a table that is no tenant's.

    Code systems, say, or calendars.
    """
    with context.connect() as connection:
        connection.execute("select ward.share(%s::regclass)", [name])
    emit(context, {"table": name, "shared": True}, lambda: click.echo(f"{name} shared, read-only"))


@table.command("add-sealed-column")
@click.argument("name", metavar="TABLE")
@click.argument("column", metavar="COLUMN")
@click.argument("type_", metavar="TYPE")
@click.option("--default", "expression", metavar="EXPRESSION", help="SQL expression for new rows.")
@pass_context
def add_sealed_column(context: Context, name: str, column: str, type_: str, expression: str | None) -> None:
    """Add a sealed, nullable column to a model table. (A plain one: alter table … add column.)"""
    with context.connect() as connection:
        connection.execute(
            "select ward.add_sealed_column(%s::regclass, %s, %s, %s)", [name, column, type_, expression]
        )
    facts = {"table": name, "column": column, "type": type_}
    emit(context, facts, lambda: click.echo(f"{name}: sealed column {column} {type_} added"))


@table.command("list")
@pass_context
def list_(context: Context) -> None:
    """List protected and shared tables."""
    with context.connect() as connection:
        rows = _tables(connection)
    emit(context, rows, lambda: print_table(rows, ("table", "kind", "sealed"), empty="no tables yet"))


def _tables(connection: Any) -> list[dict[str, Any]]:
    rows = connection.execute(
        "select relation::text, 'protected', sealed::text[] from ward.models"
        " union all select relation::text, 'shared', '{}' from ward_internal.shares order by 1"
    ).fetchall()
    return [{"table": name, "kind": kind, "sealed": sealed} for name, kind, sealed in rows]
