"""``wardkey audit compare``: stored rows against the log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ._audit import log_id, printable, snapshot
from ._context import Context, pass_context
from ._output import FINDINGS, emit, table

_COUNTS = ("table", "rows", "values", "different", "older", "resealed", "unknown")


@click.command("compare")
@click.option("--tenant", "slug", metavar="SLUG", required=True, help="Whose rows.")
@click.option("--table", "name", metavar="TABLE", help="Of this table only.")
@click.option(
    "--most", type=click.IntRange(1), default=1000, show_default=True, help="Rows that are named, by table."
)
@pass_context
def compare(context: Context, slug: str, name: str | None, most: int) -> int:
    """Compare stored rows with the last entries of each in the log.

    Names rows that differ: values that were put back or changed behind the log's back, rows that went or came
    without an entry. Exit code 4: there are some. That the log itself is whole says `wardkey audit verify`.

    It cannot tell of values that were resealed since their last entry (resealed), and of rows and values that
    the log does not have: of before it was pruned (older), of a column that was added or renamed (unknown).
    """
    from ..audit.compare import compare as compare_rows

    with context.connect(autocommit=True) as connection:
        tenant = log_id(connection, slug)
        with snapshot(connection):
            tables = list(compare_rows(connection, tenant, name, most))
    rows = [_readable(asdict(each)) for table_ in tables for each in table_.differences]
    counts = [{column: getattr(each, column) for column in _COUNTS} for each in tables]
    emit(context, {"tables": counts, "differences": rows}, lambda: _show(counts, rows))
    return FINDINGS if any(each.different for each in tables) else 0


def _show(counts: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    table(counts, _COUNTS, empty="no tables")
    if rows:
        click.echo()
        table(rows, ("table", "row", "problem", "columns", "entry", "at"))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}


COMMANDS = (compare,)
