"""``wardkey search``: how sealed columns are searched."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click

from ._context import Context, pass_context
from ._output import emit, table

__all__ = ["search"]

_KINDS = ("exact", "prefix", "words", "substring", "phonetic", "range")
_NORMALISERS = ("text", "none", "digits", "email", "phone")
_UNIQUE_OPTIONS = ("name", "normaliser", "accept_leakage")
_COLUMNS = ("table", "column", "kind", "normaliser", "step", "pending")
_TELLS = (
    "tenant",
    "column",
    "kind",
    "rows",
    "distinct_values",
    "commonest_value",
    "commonest_token",
    "verdict",
)


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
@click.option("--accept-leakage", metavar="REASON", help="Why tokens may tell the values of a type with few.")
@pass_context
def add(
    context: Context,
    table_: str,
    column: str,
    kinds: tuple[str, ...],
    normaliser: str | None,
    step: Decimal,
    accept_leakage: str | None,
) -> None:
    """Let a sealed COLUMN be searched. Then build it: `wardkey keys reseal`, tenant by tenant."""
    from ..search import declaring as use

    with context.connect() as connection:
        due = use.add(connection, table_, column, kinds, normaliser, step, accept_leakage)
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


@search.command("unique")
@click.argument("table_", metavar="TABLE")
@click.argument("columns", metavar="COLUMN...", nargs=-1, required=True)
@click.option("--name", help="Of the constraint, in errors (default: TABLE_COLUMN_key).")
@click.option("--normaliser", type=click.Choice(_NORMALISERS), help="What of a text counts (default: none).")
@click.option("--accept-leakage", metavar="REASON", help="Why tokens may tell the values of a type with few.")
@pass_context
def unique(context: Context, /, table_: str, columns: tuple[str, ...], **options: str | None) -> None:
    """Make COLUMNs, sealed ones among them, unique together.

    For rows that are there: `wardkey keys reseal`, tenant by tenant. Those that are not unique are named by
    their keys.
    """
    from ..search import declaring as use

    with context.connect() as connection:
        due = use.add_unique(connection, table_, columns, *(options[name] for name in _UNIQUE_OPTIONS))
    facts = {"table": table_, "columns": columns, "pending": due}
    then = f"; to build in {due} tenants: wardkey keys reseal" if due else ""
    emit(context, facts, lambda: click.echo(f"{table_}: {', '.join(columns)} unique{then}"))


@search.command("drop-unique")
@click.argument("table_", metavar="TABLE")
@click.argument("name")
@pass_context
def drop_unique(context: Context, table_: str, name: str) -> None:
    """Let columns be not unique any more. NAME: see `wardkey search list`."""
    from ..search import declaring as use

    with context.connect() as connection:
        use.drop_unique(connection, table_, name)
    facts = {"table": table_, "name": name}
    emit(context, facts, lambda: click.echo(f"{table_}: {name} dropped, with its tokens"))


@search.command("plan")
@click.argument("table_", metavar="[TABLE]", required=False)
@click.argument("column", required=False)
@click.option("--tenant", metavar="SLUG", help="Only this tenant's values.")
@pass_context
def plan(context: Context, table_: str | None, column: str | None, tenant: str | None) -> None:
    """Show what tokens tell of the values of each tenant.

    How many values there are, and the commonest in percent of the rows, by statistics of the tokens, which
    are made now. Fewer than 32 values, or one in more than 5 percent of 1,000 rows, tell too much: drop the
    search, or accept it.
    """
    from ..search import declaring as use

    with context.connect() as connection:
        rows = use.leakage(connection, table_, column, tenant)
    emit(context, rows, lambda: table(rows, _TELLS, empty="no searches: there are no tokens"))


@search.command("accept")
@click.argument("table_", metavar="TABLE")
@click.argument("column")
@click.option("--reason", required=True, help="Why its tokens may tell what they do. It is logged.")
@pass_context
def accept(context: Context, table_: str, column: str, reason: str) -> None:
    """Accept what the tokens of a COLUMN tell."""
    from ..search import declaring as use

    with context.connect() as connection:
        use.accept(connection, table_, column, reason)
    facts = {"table": table_, "column": column, "reason": reason}
    emit(context, facts, lambda: click.echo(f"{table_}.{column}: what its tokens tell is accepted"))


@search.command("list")
@pass_context
def list_(context: Context) -> None:
    """List what is searched or unique, and still to be built."""
    from ..search import declaring as use

    with context.connect() as connection:
        rows = use.every(connection)
    emit(
        context,
        rows,
        lambda: table(rows, _COLUMNS, empty="no searches: sealed columns are opened, not found"),
    )
