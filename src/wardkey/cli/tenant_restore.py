"""``wardkey tenant restore``: one ward out of a dump."""

from __future__ import annotations

from pathlib import Path

import click

from ._context import Context, pass_context
from ._output import emit, table
from .tenant_leaving import operator


@click.command("restore")
@click.argument("slug")
@click.option(
    "--from", "dump", metavar="DUMP", type=click.Path(exists=True, path_type=Path), required=True,
    help="Made by: pg_dump --format=custom --schema=tenant_SLUG --schema=sealed_SLUG, or of it all.",
)  # fmt: skip
@pass_context
def restore(context: Context, slug: str, dump: Path) -> None:
    """Put one tenant's rows back as a dump has them.

    Other wards go on, and so do this one's readers; its writers wait. Only rows that are not as in the dump
    are written, each with its entry in the audit log, which stays as it is otherwise and has an event that
    says what was restored. All of it or nothing: a dump of another tenant, of tables that are not there now,
    or of values whose key is retired is refused.
    """
    from ..tenants.restoring import restore as put_back

    bindir = context.cluster.software.bindir if context.dsn is None else None
    with context.connect(autocommit=True) as connection:
        facts = put_back(connection, slug, dump, operator(), bindir)
    rows = [{"table": face, **counts} for face, counts in facts["tables"].items()]
    emit(context, facts, lambda: table(rows, ("table", "rows", "taken_away", "put_back"), empty="no tables"))
