"""``wardkey backup`` and ``wardkey restore``: database and keys together, and the proof that they open."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._context import Context, pass_context
from ._output import FAILED, emit, note, table

if TYPE_CHECKING:
    from ..backup.kms_seal import KmsChoice
    from ..backup.restoring import Opening, Restored

_COLUMNS = ("tenant", "status", "keys", "tables", "rows", "values", "entries", "error")
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_kms = click.option(
    "--kms", "uri", metavar="URI", help="A KMS that opens it, or `cell`: that of the tenants' keys."
)
_kms_directory = click.option(
    "--kms-directory", type=_DIRECTORY, help="Where its credential is; else the keeper's directory."
)


@click.command()
@click.argument("directory", type=_DIRECTORY)
@click.option("--recipient", "recipients", multiple=True, help="age1… or SSH public key; may be repeated.")
@_kms
@_kms_directory
@click.option("--dump", is_flag=True, help="With pg_dump instead of pg_basebackup.")
@click.option("--keeper-directory", type=_DIRECTORY, help="With --dsn: what the keeper was started with.")
@click.option("--orchestrator-directory", type=_DIRECTORY, help="With --dsn: kms.json and what manages KEKs.")
@pass_context
def backup(
    context: Context,
    directory: Path,
    recipients: tuple[str, ...],
    uri: str | None,
    kms_directory: Path | None,
    dump: bool,
    keeper_directory: Path | None,
    orchestrator_directory: Path | None,
) -> None:
    """Back up database, keeper and orchestrator into a new DIRECTORY.

    It is sealed with age, to recipients (age-keygen makes a key), a KMS or both; only a dump is not, where
    sealed columns are ciphertext. Tenants continue meanwhile.
    """
    from ..backup import making

    if not recipients and not uri:
        raise click.UsageError("say who is to open it: --recipient or --kms")
    _end_cleanly()
    source = making.source(context.home, context.dsn, keeper_directory, orchestrator_directory)
    kms = _kms_choice(context, uri, kms_directory, source.state) if uri else None
    made = making.back_up(source, directory, recipients, kms, _sayer(context), dump=dump)
    size = made.database_bytes + made.state_bytes
    emit(context, asdict(made), lambda: click.echo(f"{made.directory}: {size:,} bytes"))


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--identity", type=_FILE, help="The age key, a file.")
@_kms
@_kms_directory
@click.option(
    "--ledger", type=_FILE, help="A later ledger.jsonl of the keeper: whom it has shredded stays so."
)
@click.option("--drill", is_flag=True, help="Only try it, beside what runs here; nothing of it stays.")
@click.option(
    "--rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows of a table to open."
)
@click.option("--all-rows", is_flag=True, help="Open every row.")
@pass_context
def restore(
    context: Context, /, directory: Path, drill: bool, rows: int, all_rows: bool, **opening: Any
) -> int:
    """Make an embedded server out of a backup, start it, and open every tenant.

    The home has to be a new one (--home). With --drill it lies beside the home, and is removed when every
    tenant was tried. Exit code 1 when something of a tenant does not open, or of a shredded one does.
    """
    from ..backup import restoring

    _end_cleanly()
    by = _opening(context, drill, **opening)
    do = restoring.drill if drill else restoring.restore
    done = do(context.home, directory, by, None if all_rows else rows, _sayer(context))
    if drill:
        _record(context, done)
    emit(context, {**asdict(done), "ok": done.ok}, lambda: _show(done, by, drill))
    return 0 if done.ok else FAILED


def _end_cleanly() -> None:
    """Have a signal of systemd or of a closed terminal end the command as Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def _sayer(context: Context) -> Callable[[str], None]:
    return lambda text: note(context, text)


def _kms_choice(
    context: Context, uri: str, directory: Path | None, state: Mapping[str, Path] | None = None
) -> KmsChoice:
    from ..backup.kms_seal import chosen

    home, known = context.home, state or {}
    sides = known.get("keeper", home.keeper), known.get("orchestrator", home.orchestrator)
    return chosen(uri, directory, *sides)


def _opening(
    context: Context,
    drill: bool,
    identity: Path | None,
    uri: str | None,
    kms_directory: Path | None,
    ledger: Path | None,
) -> Opening:
    """Say what opens the backup. A drill knows of the home's own ledger."""
    from ..backup.restoring import Opening
    from ..keeper.ledger import LEDGER_FILE

    if (identity is None) == (uri is None):
        raise click.UsageError("say what opens it: --identity or --kms")
    own = context.home.keeper / LEDGER_FILE
    if drill and ledger is None and own.exists():
        ledger = own
    return Opening(identity or _kms_choice(context, uri or "", kms_directory), ledger)


def _record(context: Context, done: Restored) -> None:
    from ..backup.remembered import record_drill
    from ..errors import WardError

    try:
        with context.connect() as connection:
            is_ours = record_drill(connection, done.id, is_good=done.ok)
    except WardError:
        is_ours = False
    if not is_ours:
        note(context, "the drill is not recorded: no server here has made this backup")


def _show(done: Restored, by: Opening, drill: bool) -> None:
    table([asdict(one) for one in done.tenants], _COLUMNS, empty="the backup has no tenant")
    click.echo(
        f"the backup of {done.made_at}: {'every tenant opens' if done.ok else 'NOT every tenant opens'}"
    )
    if not drill and by.ledger is None:
        click.echo("Whom the keeper has shredded since lives again if KEKs are in local: (see --ledger).")
