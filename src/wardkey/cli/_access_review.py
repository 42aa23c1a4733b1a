"""``wardkey access review``: what a security officer signs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._audit import log_id, report_facts, snapshot
from ._audit_questions import parse_period, period, record
from ._context import Context, pass_context
from ._output import emit, table

if TYPE_CHECKING:
    from wardkey_core.log.exporter import Period

    from ..access.review import Review

__all__ = ["review"]


@click.command("review")
@click.option("--tenant", "slug", metavar="SLUG", required=True, help="Whose log.")
@period
@click.option(
    "--html", "output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="A new file: a page to print and sign.",
)  # fmt: skip
@pass_context
def review(context: Context, /, slug: str, output: Path | None, **bounds: str | None) -> None:
    """Say who had which role and what each read.

    Also which access nobody used. Without --from of the last 90 days. The log is verified for it; that it
    was asked is an entry.
    """
    from ..access.review import render
    from ..daemon.files import new_file

    made = _gather(context, slug, parse_period(bounds["begin"] or "90d", bounds["end"]))
    if output is not None:
        with new_file(output) as stream:
            stream.write(render(made).encode())
    emit(context, made.document(), lambda: _show(made))


def _gather(context: Context, slug: str, asked: Period) -> Review:
    from ..access.review import gather
    from ..audit.live import verify_live

    with context.connect(autocommit=True) as connection:
        tenant = log_id(connection, slug)
        record(connection, tenant, "access reviewed", asked, "html")
        with snapshot(connection):
            made = gather(connection, tenant, slug, asked)
            made.verified = report_facts(verify_live(connection, tenant))
    return made


def _show(made: Review) -> None:
    from ..access.review import SECTIONS

    for section in SECTIONS:
        rows = made.answers[section.name]
        click.echo(f"\n{section.title}\n")
        table(rows, list(rows[0]) if rows else (), empty=section.empty)
