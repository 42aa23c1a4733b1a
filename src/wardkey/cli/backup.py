"""``wardkey backup`` and ``wardkey restore``: database and keys together, and the proof that they open."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import FAILED, emit, note, table

if TYPE_CHECKING:
    from ..backup.restoring import Restored

_COLUMNS = ("tenant", "status", "keys", "tables", "rows", "values", "error")
_DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("directory", type=_DIRECTORY)
@click.option(
    "--recipient",
    "recipients",
    multiple=True,
    required=True,
    help="age1… or SSH public key; may be repeated.",
)
@click.option("--keeper-directory", type=_DIRECTORY, help="With --dsn: what the keeper was started with.")
@click.option("--orchestrator-directory", type=_DIRECTORY, help="With --dsn: kms.json and what manages KEKs.")
@pass_context
def backup(
    context: Context,
    directory: Path,
    recipients: tuple[str, ...],
    keeper_directory: Path | None,
    orchestrator_directory: Path | None,
) -> None:
    """Back up database, keeper and orchestrator into a new DIRECTORY.

    The database as pg_dump writes it, sealed columns as ciphertext; what opens them is sealed with age
    (age-keygen makes a key). Tenants continue meanwhile.
    """
    from ..backup import making

    software, state = making.sources(context.home, context.dsn, keeper_directory, orchestrator_directory)
    say = lambda text: note(context, text)  # noqa: E731
    made = making.back_up(context.admin_dsn, software, state, directory, recipients, say)
    emit(
        context,
        asdict(made),
        lambda: click.echo(f"{made.directory}: {made.dump_bytes + made.state_bytes:,} bytes"),
    )


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The age key, a file.",
)
@click.option("--drill", is_flag=True, help="Only try it, beside what runs here; nothing of it stays.")
@click.option(
    "--rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows of a table to open."
)
@click.option("--all-rows", is_flag=True, help="Open every row.")
@pass_context
def restore(context: Context, directory: Path, identity: Path, drill: bool, rows: int, all_rows: bool) -> int:
    """Make an embedded server out of a backup, start it, and open every tenant.

    The home has to be a new one (--home). With --drill it lies beside the home, and is removed when every
    tenant was tried. Exit code 1 when something of a tenant does not open.
    """
    from ..backup import restoring

    say = lambda text: note(context, text)  # noqa: E731
    do = restoring.drill if drill else restoring.restore
    done = do(context.home, directory, identity, None if all_rows else rows, say)
    emit(context, {**asdict(done), "ok": done.ok}, lambda: _show(done))
    return 0 if done.ok else FAILED


def _show(done: Restored) -> None:
    table([asdict(one) for one in done.tenants], _COLUMNS, empty="the backup has no tenant")
    click.echo(
        f"the backup of {done.made_at}: {'every tenant opens' if done.ok else 'NOT every tenant opens'}"
    )
