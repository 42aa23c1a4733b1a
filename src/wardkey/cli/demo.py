"""``wardkey demo``: everything at work on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import FAILED, USAGE, console, emit, fail, note, progress

if TYPE_CHECKING:
    from rich.console import Console


@click.command()
@click.option(
    "--tenants", type=click.IntRange(2, 500), default=5, show_default=True, help="How many clinics."
)
@click.option(
    "--patients-per-tenant", "patients", type=click.IntRange(20, 5000), default=100, show_default=True
)
@pass_context
def demo(context: Context, tenants: int, patients: int) -> int:
    """Clinics, patients, attacks and costs, shown on the embedded server.

    Starts the server if need be, makes clinics with synthetic patients, then shows one query as three
    clinics, the same rows on disk, attacks on them, and what the protection costs. Running it again uses the
    clinics that are there. Exit code 1 when an attack was not held.
    """
    from ..demo import show, story
    from ..embedded import Cluster
    from ..install import migrations

    if context.dsn is not None:
        fail("the demo runs on the embedded server only", "leave out --dsn and WARDKEY_DSN", USAGE)
    say = lambda text: note(context, text)  # noqa: E731
    cluster = Cluster(context.home, say=say)
    cluster.start()
    migrations.migrate(cluster.dsn(), say=say)
    screen = show.Show(_terminal(context), progress(context))
    facts = story.tell(cluster, tenants, patients, screen)
    emit(context, facts.document(), lambda: screen.onward(facts.attacker, context.again))
    return 0 if facts.held else FAILED


def _terminal(context: Context) -> Console:
    terminal = console()
    terminal.quiet = context.json
    return terminal
