"""``wardkey search``: how sealed columns are searched."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click

from ._context import Context, pass_context
from ._output import emit, table

__all__ = ["search"]

_KINDS = ("exact", "prefix", "words", "substring", "phonetic", "range")
_NORMALISERS = ("text", "none", "digits", "email", "phone")
_COLUMNS = ("table", "column", "kind", "normaliser", "step", "pending")


def number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError from None


@click.group()
def search() -> None:
    """Say how sealed columns are searched.

    TABLE is a model table with its schema, such as clinic.patients. Tokens tell a thief of the disk which
    values are equal: docs/search.md says what each kind tells.
    """


@search.command("add")
@click.argument("table_", metavar="TABLE")
@click.argument("column")
@click.option(
    "--kind", "kinds", type=click.Choice(_KINDS), multiple=True, required=True, help="May be repeated."
)
@click.option("--normaliser", type=click.Choice(_NORMALISERS), help="What of a text counts (default: text).")
@click.option("--step", type=number, help="The unit of a range of numbers (default: 1).")
@pass_context
def add(
    context: Context, table_: str, column: str, kinds: tuple[str, ...], normaliser: str | None, step: Decimal
) -> None:
    """Let a sealed COLUMN be searched. Then build it: `wardkey keys reseal`, tenant by tenant."""
    from ..search import declaring as use

    with context.connect() as connection:
        due = use.add(connection, table_, column, kinds, normaliser, step)
    facts = {"table": table_, "column": column, "kinds": kinds, "pending": due}
    then = f"; to build in {due} tenants: wardkey keys reseal" if due else ""
    emit(context, facts, lambda: click.echo(f"{table_}.{column} is searched: {', '.join(kinds)}{then}"))


@search.command("drop")
@click.argument("table_", metavar="TABLE")
@click.argument("column")
@click.option("--kind", "kinds", type=click.Choice(_KINDS), multiple=True, help="Only this; may be repeated.")
@pass_context
def drop(context: Context, table_: str, column: str, kinds: tuple[str, ...]) -> None:
    """Drop searches of a COLUMN, with their tokens."""
    from ..search import declaring as use

    with context.connect() as connection:
        use.drop(connection, table_, column, kinds)
    facts = {"table": table_, "column": column, "kinds": kinds}
    emit(
        context, facts, lambda: click.echo(f"{table_}.{column}: {', '.join(kinds) or 'all searches'} dropped")
    )


@search.command("list")
@pass_context
def list_(context: Context) -> None:
    """List searches, and for whom they are not complete yet."""
    from ..search import declaring as use

    with context.connect() as connection:
        rows = use.every(connection)
    emit(
        context,
        rows,
        lambda: table(rows, _COLUMNS, empty="no searches: sealed columns are opened, not found"),
    )
