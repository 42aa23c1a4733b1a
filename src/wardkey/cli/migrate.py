"""``wardkey migrate``: extension and reference clinic model."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import emit, note

if TYPE_CHECKING:
    from ..install.migrations import Result


@click.command()
@click.option(
    "--revision", metavar="REV", default="head", show_default=True, help="0001, 0002 …, head or base."
)
@pass_context
def migrate(context: Context, revision: str) -> None:
    """Bring extension and reference clinic model up to date.

    Updates the extension to the version of its installed files, then runs the migrations that the database
    lacks: schema clinic with patients, encounters, conditions and observations. An older REV takes them back,
    and refuses while tenants have data. All or nothing; safe to repeat.
    """
    from ..install import migrations

    result = migrations.migrate(context.admin_dsn, revision, say=lambda text: note(context, text))
    emit(context, {**asdict(result), "changed": result.changed}, lambda: click.echo(_text(result)))


def _text(result: Result) -> str:
    extension = f"extension {result.extension}" if result.extension else "no extension"
    model = f"clinic model at {result.after}" if result.after else "no clinic model"
    was = f", was {result.before or 'not there'}" if result.changed else ", nothing to do"
    return f"{extension}; {model}{was}"
