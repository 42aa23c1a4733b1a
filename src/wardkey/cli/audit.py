"""``wardkey audit``: the log taken along, verified, proven.

Questions to it are in _audit_questions, how long it is kept in _audit_retention.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import _audit_compare as comparison
from . import _audit_questions as questions
from . import _audit_retention as retention
from ._audit import check_proof, log_id, read_keys, read_known, show_report, snapshot
from ._context import Context, pass_context
from ._output import details, emit

if TYPE_CHECKING:
    from wardkey_core.log.checkpoint import Checkpoint

    from ..audit.prove import Proof
    from ..audit.report import Report

_FILE = click.Path(dir_okay=False, path_type=Path)
_key = click.option(
    "--key", "keys", metavar="KEY", multiple=True,
    help="A key that may sign: its fingerprint (64 hexadecimal digits), or a file that holds it.",
)  # fmt: skip
_tenant = click.option("--tenant", "slug", metavar="SLUG", required=True, help="Whose log.")


@click.group()
def audit() -> None:
    """Export, verify, prove, compare and prune the audit log, and answer questions to it.

    Values that are sealed in the tables are sealed in the log, and stay so in whatever is printed here.
    WHEN is 2026-03-01, 2026-03-01T08:30 (UTC, or with another zone: +02:00), 7d, 12h; --from is inclusive,
    --to is not.
    """


@audit.command("export")
@_tenant
@questions.period
@click.option(
    "--format", "form", type=click.Choice(("jsonl", "csv", "parquet")), default="jsonl", show_default=True,
    help="jsonl can be verified, by anybody; csv and parquet are for reading.",
)  # fmt: skip
@click.option("--output", metavar="FILE", type=_FILE, required=True, help="A new file.")
@pass_context
def export(context: Context, /, slug: str, output: Path, form: str, **bounds: str | None) -> None:
    """Write a tenant's log into a new file.

    With checkpoints and public keys; only you can read it. The file is there when all of it is. That it
    was exported is an entry of the log.
    """
    from ..audit.flat import write
    from ..daemon.files import new_file

    period = questions.parse_period(bounds["begin"], bounds["end"])
    _end_by_exception()
    with new_file(output) as stream, context.connect(autocommit=True) as connection:
        tenant = log_id(connection, slug)
        questions.record(connection, tenant, "log exported", period, form)
        counts = write(connection, tenant, slug, period, form, stream)
    facts = {"file": output, "format": form, **counts}
    emit(context, facts, lambda: details(facts))


@audit.command("verify")
@click.argument("file", metavar="[FILE]", type=_FILE, required=False)
@click.option("--live", is_flag=True, help="The log in the database, of --tenant.")
@click.option("--tenant", "slug", metavar="SLUG", help="With --live: whose log.")
@_key
@click.option("--known", metavar="FILE", type=_FILE, help="A checkpoint that --remember wrote before.")
@click.option("--remember", metavar="FILE", type=_FILE, help="Write the newest checkpoint, if all is well.")
@click.option(
    "--keeper", metavar="SOCKET", type=click.Path(path_type=Path),
    help="Compare with what this keeper signed last; with --live that of the home, if no other.",
)  # fmt: skip
@pass_context
def verify(
    context: Context,
    file: Path | None,
    live: bool,
    slug: str | None,
    keys: tuple[str, ...],
    known: Path | None,
    remember: Path | None,
    keeper: Path | None,
) -> int:
    """Verify an export, a proof, or the log in the database.

    The first thing that is bad is named; exit code 4. For a FILE no database is needed. Without --key any
    key may have signed, and the key is named. Without --known a log that was written again from its
    beginning and signed by the same key looks whole. That a log was cut off at its end, checkpoints too,
    tells the keeper, which remembers the last one it signed.
    """
    from ..audit import checking
    from ..audit.prove import is_proof

    if (file is None) != live or (slug is None) == live:
        raise click.UsageError("name a FILE, or --live and --tenant")
    trusted, checkpoint = read_keys(keys), read_known(known)
    if file is not None and is_proof(file):
        return check_proof(context, file, trusted)
    if file is not None:
        report = checking.check_export(file, keys=trusted, known=checkpoint, keeper=keeper)
    else:
        report = _check_log(context, str(slug), trusted, checkpoint, keeper)
    if remember is not None:
        checking.remember(remember, report)
    return show_report(context, report, live=live)


def _check_log(
    context: Context, slug: str, keys: set[bytes] | None, known: Checkpoint | None, keeper: Path | None
) -> Report:
    from ..audit.checking import check_log

    with context.connect(autocommit=True) as connection:
        tenant, socket = log_id(connection, slug), keeper or context.keeper_socket
        return check_log(connection, tenant, socket, keys=keys, known=known)


@audit.command("prove")
@click.argument("entry", metavar="ID", type=click.IntRange(1))
@click.option("--tenant", "slug", metavar="SLUG", help="Whose log, in the database.")
@click.option("--export", "source", metavar="FILE", type=_FILE, help="Or an export that holds the entry.")
@click.option("--output", metavar="FILE", type=_FILE, required=True, help="A new file.")
@pass_context
def prove(context: Context, entry: int, slug: str | None, source: Path | None, output: Path) -> None:
    """Write the proof that one entry is in the log.

    It tells nothing of the others. `wardkey audit verify FILE` checks it, anywhere.
    """
    from ..daemon.files import write_atomically

    if (slug is None) == (source is None):
        raise click.UsageError("name the --tenant, or an --export")
    proof = _prove_log(context, str(slug), entry) if source is None else _prove_export(source, entry)
    write_atomically(output, proof.encode(), exclusive=True)
    facts = {"file": output, "entry": entry, "position": proof.position}
    facts |= {"key": proof.signed.checkpoint.key.hex()}
    emit(context, facts, lambda: details(facts))


def _prove_log(context: Context, slug: str, entry: int) -> Proof:
    from ..audit.live import prove_live

    with context.connect(autocommit=True) as connection, snapshot(connection):
        return prove_live(connection, log_id(connection, slug), entry)


def _prove_export(path: Path, entry: int) -> Proof:
    from ..audit.prove import prove

    with path.open("rb") as stream:
        return prove(stream, str(entry))


for _command in (*questions.COMMANDS, *retention.COMMANDS, *comparison.COMMANDS):
    audit.add_command(_command)


def _end_by_exception() -> None:
    # Whatever ends the command, nothing half made is to be left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
