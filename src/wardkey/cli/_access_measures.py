"""The groups ``measures`` and ``delegation`` of ``wardkey access``: summaries for payers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TextIO

import click

from ._context import Context, pass_context
from ._output import emit, table

__all__ = ["COMMANDS"]

_DAY = click.DateTime(["%Y-%m-%d"])
_RELEASED = ("measure", "cells", "shown", "small", "complementary", "totals")


@click.group()
def measures() -> None:
    """Register measures, release what systems publish.

    A system's ADMIN delegates and publishes in SQL, on a token of its own: ward.delegate(payer, measures),
    ward.publish_measures(period). A payer reads ward.measures.
    """


@measures.command("register")
@click.argument("name")
@click.argument("query", type=click.File())
@click.option("--floor", type=int, help="The least that a group counts to be shown, 11 or more.")
@pass_context
def register(context: Context, name: str, query: TextIO, floor: int | None) -> None:
    """Declare a measure: one SELECT.

    QUERY is a file, - is standard input. It returns integers numerator and complement by its other columns,
    over model tables, by the names they have in wards, and shared tables. Relation period has begins and
    ends (the day after the last).
    """
    from ..access import measures as use

    with context.connect() as connection:
        use.register(connection, name, query.read(), floor)
    emit(context, {"measure": name, "floor": floor}, lambda: click.echo(f"measure {name} registered"))


@measures.command("list")
@pass_context
def list_(context: Context) -> None:
    """List the measures."""
    from ..access import measures as use

    with context.connect() as connection:
        rows = use.every(connection)
    columns = ("name", "group_floor", "registered_at")
    emit(context, rows, lambda: table(rows, columns, empty="none: wardkey access measures register"))


@measures.command("remove")
@click.argument("name")
@pass_context
def remove(context: Context, name: str) -> None:
    """End a measure and all delegations of it; its name stays taken."""
    with context.connect() as connection:
        connection.execute("select ward.remove_measure(%s)", [name])
    emit(context, {"measure": name}, lambda: click.echo(f"measure {name} ended"))


@measures.command("published")
@pass_context
def published(context: Context) -> None:
    """List what systems have published, and how much of it is shown."""
    from ..access import measures as use

    with context.connect() as connection:
        rows = use.published(connection)
    columns = ("first_day", "last_day", "measure", "system", "published_by", "released_at", "cells", "shown")
    emit(context, rows, lambda: table(rows, columns, empty="nothing was published yet"))


@measures.command("release")
@click.argument("first_day", type=_DAY)
@click.argument("last_day", type=_DAY)
@click.option("--measure", "names", metavar="NAME", multiple=True, help="Only this one; may be repeated.")
@click.option("--incomplete", is_flag=True, help="Though a system that delegated it has not published it.")
@pass_context
def release(
    context: Context, first_day: datetime, last_day: datetime, names: tuple[str, ...], incomplete: bool
) -> None:
    """Show payers a period that has ended.

    Once and for good. Hides groups below the floor and what would tell them, proves that nothing that was
    ever released does, and forgets the counts of what is hidden.
    """
    from ..access import measures as use

    with context.connect() as connection:
        days = first_day.date(), last_day.date()
        made = use.release(connection, *days, list(names) or None, incomplete=incomplete)
    rows = [asdict(one) for one in made]
    emit(context, rows, lambda: table(rows, _RELEASED))


@measures.command("check")
@pass_context
def check(context: Context) -> None:
    """Prove again that no hidden cell can be computed."""
    from ..access import measures as use

    with context.connect() as connection:
        hidden = use.recheck(connection)
    emit(context, {"hidden": hidden}, lambda: click.echo(f"none of {hidden} hidden cells can be computed"))


@click.group()
def delegation() -> None:
    """Register payers, and list what systems delegated to them."""


@delegation.command("register")
@click.argument("payer", metavar="SLUG")
@pass_context
def register_payer(context: Context, payer: str) -> None:
    """Let systems delegate measures to this tenant."""
    with context.connect() as connection:
        connection.execute("select ward.register_payer(%s)", [payer])
    emit(context, {"payer": payer}, lambda: click.echo(f"payer {payer} registered"))


@delegation.command("remove")
@click.argument("payer", metavar="SLUG")
@pass_context
def remove_payer(context: Context, payer: str) -> None:
    """End all delegations to this tenant."""
    with context.connect() as connection:
        connection.execute("select ward.remove_payer(%s)", [payer])
    emit(context, {"payer": payer}, lambda: click.echo(f"payer {payer} removed"))


@delegation.command("list")
@pass_context
def list_delegations(context: Context) -> None:
    """List the payers and who delegated what to them."""
    from ..access import measures as use

    with context.connect() as connection:
        rows = use.delegations(connection)
    columns = ("payer", "system", "measure", "delegated_by", "delegated_at", "publications")
    emit(context, rows, lambda: table(rows, columns, empty="none: wardkey access delegation register"))


COMMANDS = (measures, delegation)
