"""``wardkey keeper``: the process that releases keys. ``wardkey up`` starts it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from ._context import Context, pass_context
from ._output import UNREACHABLE, details, emit, fail


@click.group()
def keeper() -> None:
    """Ask the keeper, the process that releases keys."""


@keeper.command("status")
@click.option("--socket", metavar="PATH", type=click.Path(path_type=Path), help="Of another keeper.")
@pass_context
def status(context: Context, socket: Path | None) -> None:
    """Say how the keeper does: since when, keys held and released."""
    from wardkey_core import keeper_client as client

    from ..errors import KeeperUnavailable

    path = socket or context.keeper_socket
    try:
        facts = client.status(path)
    except KeeperUnavailable:
        start = "wardkey up" if context.dsn is None else "python -m wardkey.keeper --help"
        fail(f"no keeper answers at {path}", f"start it with: {start}", UNREACHABLE)
    facts["started_at"] = datetime.fromtimestamp(facts["started_at"], UTC)
    emit(context, facts, lambda: details(facts))
