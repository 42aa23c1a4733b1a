"""``wardkey upgrade``: the embedded server's data to a newer PostgreSQL."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import emit, note

if TYPE_CHECKING:
    from ..embedded.upgrade import Upgrade


@click.command()
@pass_context
def upgrade(context: Context) -> None:
    """Move the data to a newer PostgreSQL that is installed.

    Takes the newest PostgreSQL with PL/Python on this machine and copies the data with pg_upgrade, so it
    needs as much disk again. Tenants are cut off meanwhile; the audit log goes on without a gap. The old data
    stays beside the new, to be removed by hand. Does nothing when there is no newer version.
    """
    from ..embedded.upgrade import upgrade as move

    done = move(context.cluster, lambda text: note(context, text))
    emit(context, asdict(done), lambda: click.echo(_text(done)))


def _text(done: Upgrade) -> str:
    if done.kept is None:
        return f"PostgreSQL {done.after} is the newest one here: nothing to do"
    return f"PostgreSQL {done.after}, was {done.before}; the old data: {done.kept}"
