"""``wardkey access rule``: which rows of a table a role sees and writes."""

from __future__ import annotations

import click
from wardkey_core.tokens import ROLES

from ._context import Context, pass_context
from ._output import emit, table

__all__ = ["COMMANDS"]

_COLUMNS = ("table", "name", "roles", "expression")


@click.group()
def rule() -> None:
    """Say which rows a role sees and writes.

    In every ward. TABLE is a model table with its schema, such as clinic.patients.
    """


@rule.command("add")
@click.argument("table_", metavar="TABLE")
@click.argument("expression")
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="May be repeated."
)
@click.option("--name", metavar="NAME", help="What it is called; rule_1 and so on unless given.")
@pass_context
def add(context: Context, table_: str, expression: str, roles: tuple[str, ...], name: str | None) -> None:
    """Let a role see and write only rows for which EXPRESSION is true.

    Such as: patient_id = ward.claim('patient_id')::bigint
    """
    from ..access import rules as use

    with context.connect() as connection:
        made = use.add(connection, table_, roles, expression, name)
    emit(context, made, lambda: click.echo(f"{table_}: {', '.join(made['roles'])} only {made['expression']}"))


@rule.command("drop")
@click.argument("table_", metavar="TABLE")
@click.argument("name")
@pass_context
def drop(context: Context, table_: str, name: str) -> None:
    """Take a rule away: its roles see all rows again, but for other rules."""
    from ..access import rules as use

    with context.connect() as connection:
        use.drop(connection, table_, name)
    emit(context, {"table": table_, "name": name}, lambda: click.echo(f"{table_}: {name} dropped"))


@rule.command("list")
@click.option("--table", "table_", metavar="TABLE", help="Those of one table.")
@pass_context
def list_(context: Context, table_: str | None) -> None:
    """List row rules."""
    from ..access import rules as use

    with context.connect() as connection:
        rows = use.every(connection, table_)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="no row rules: every role sees all rows"))


COMMANDS = (rule,)
