"""Options of commands that change both database and keeper's directory: which of the two, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._context import Context

if TYPE_CHECKING:
    import psycopg

__all__ = ["keeper_directory", "only", "places"]

keeper_directory = click.option(
    "--keeper-directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The keeper's directory, when it is not the embedded server's.",
)
only = click.option(
    "--only",
    type=click.Choice(("database", "keeper")),
    help="Of an OS user that reaches one of them: run it twice, for the keeper first.",
)


@contextmanager
def places(
    context: Context, given: Path | None, only: str | None
) -> Iterator[tuple[psycopg.Connection[Any] | None, Path | None]]:
    """Yield a connection and the keeper's directory; None for what is not to be touched."""
    keeper = None if only == "database" else given or context.home.keeper
    if only == "keeper":
        yield None, keeper
        return
    with context.connect() as connection:
        yield connection, keeper
