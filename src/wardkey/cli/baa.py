"""``wardkey baa``: business associate agreements."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from ._context import Context, pass_context
from ._output import details, emit, table

_DAY = click.DateTime(["%Y-%m-%d"])
_COLUMNS = ("id", "slug", "state", "covered_entity", "begins", "ends", "days_left")


@click.group()
def baa() -> None:
    """Record, list, show and end business associate agreements.

    Where ward.set('require_baa', 'on') was called a tenant is let in with an agreement only: `tenant create`
    makes it suspended; record the agreement, then call `tenant resume`. The doctor warns 90 days before one
    ends. That it ended suspends nobody.
    """


@baa.command("add")
@click.argument("slug")
@click.option(
    "--document",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="What was signed; its name and SHA-256 are kept, not the file.",
)
@click.option("--covered-entity", metavar="NAME", required=True, help="Whose patients they are.")
@click.option("--business-associate", metavar="NAME", required=True, help="Who runs this platform.")
@click.option("--begins", type=_DAY, required=True, help="Its first day.")
@click.option("--ends", type=_DAY, help="Its last day; none: until it is ended.")
@click.option("--subcontractor", "subcontractors", metavar="NAME", multiple=True, help="May be repeated.")
@click.option(
    "--notice-days", type=click.IntRange(0, 3650), default=30, show_default=True, help="Before its end."
)
@pass_context
def add(
    context: Context, /, slug: str, document: Path, begins: datetime, ends: datetime | None, **facts: Any
) -> None:
    """Record an agreement with a tenant."""
    from ..access import baa as use

    last = ends.date() if ends else None
    with context.connect() as connection:
        made = use.add(connection, slug, document, begins=begins.date(), ends=last, **facts)
    emit(context, made, lambda: click.echo(f"{slug}: agreement {made['id']}, {made['state']}"))


@baa.command("list")
@click.option("--tenant", "slug", metavar="SLUG", help="Those with one tenant.")
@pass_context
def list_(context: Context, slug: str | None) -> None:
    """List agreements, those with tenants that are gone too."""
    from ..access import baa as use

    with context.connect() as connection:
        rows = use.every(connection, slug)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="no agreement is recorded: wardkey baa add"))


@baa.command("show")
@click.argument("id", type=click.UUID)
@pass_context
def show(context: Context, id: UUID) -> None:
    """Show one agreement."""
    from ..access import baa as use

    with context.connect() as connection:
        row = use.one(connection, id)
    emit(context, row, lambda: details(row))


@baa.command("end")
@click.argument("id", type=click.UUID)
@click.option("--reason", metavar="TEXT", required=True, help="Why: it stands in the log.")
@click.option("--on", type=_DAY, help="Its last day; today unless given.")
@pass_context
def end(context: Context, id: UUID, reason: str, on: datetime | None) -> None:
    """Say that an agreement ends. Its tenant is not suspended by that."""
    from ..access import baa as use

    with context.connect() as connection:
        row = use.end(connection, id, (on or datetime.now(UTC)).date(), reason)
    emit(context, row, lambda: click.echo(f"{row['slug']}: agreement {id} ends on {row['ends']}"))
