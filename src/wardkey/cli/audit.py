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
from ._audit import Memory, ask_of_file, check_file, read_keys, read_known, show_report, snapshot, tenant_id
from ._context import Context, pass_context
from ._output import FINDINGS, details, emit, fail

if TYPE_CHECKING:
    pass

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
    from ..audit import exporter, flat
    from ..daemon.files import new_file

    period = questions.parse_period(bounds["begin"], bounds["end"])
    _end_by_exception()
    with new_file(output) as stream, context.connect(autocommit=True) as connection:
        tenant = tenant_id(connection, slug)
        questions.record(connection, tenant, "log exported", period, form)
        with snapshot(connection):
            if form == "jsonl":
                counts = exporter.export(connection, tenant, slug, period, stream)
            else:
                write = flat.write_csv if form == "csv" else flat.write_parquet
                counts = {"entries": write(flat.records(connection, tenant, period), stream)}
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
    key may have signed, and the key is named. Without --known a log that was written anew from its
    beginning and signed by the same key looks whole. That a log was cut off at its end, checkpoints too,
    tells the keeper, which remembers the last one it signed.
    """
    from ..audit import live as in_database
    from ..audit.verify import verify as verify_stream
    from ..daemon.files import write_atomically

    if (file is None) != live or (slug is None) == live:
        raise click.UsageError("name a FILE, or --live and --tenant")
    trusted, checkpoint = read_keys(keys), read_known(known)
    if file is not None and (proven := check_file(context, file, trusted)) is not None:
        return proven
    if file is not None:
        with file.open("rb") as stream:
            memory = Memory(None if keeper is None else ask_of_file(keeper, stream))
            report = verify_stream(stream, keys=trusted, known=checkpoint, remembered=memory.found)
        memory.compare(report, live=False)
    else:
        with context.connect(autocommit=True) as connection:
            tenant = tenant_id(connection, str(slug))
            socket = keeper or context.keeper_socket
            memory = Memory(lambda: in_database.ask_keeper(connection, socket, tenant))
            with snapshot(connection):
                report = in_database.verify_live(
                    connection, tenant, keys=trusted, known=checkpoint, remembered=memory.found
                )
            memory.compare(report, live=True)
    if remember is not None and report.ok and report.newest is not None:
        write_atomically(remember, report.newest.encode() + b"\n")
    show_report(context, report, live=live)
    return 0 if report.ok else FINDINGS


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
    from ..audit.live import prove_live
    from ..audit.prove import NotProven
    from ..audit.prove import prove as prove_export
    from ..daemon.files import write_atomically

    if (slug is None) == (source is None):
        raise click.UsageError("name the --tenant, or an --export")
    try:
        if source is not None:
            with source.open("rb") as stream:
                proof = prove_export(stream, str(entry))
        else:
            with context.connect(autocommit=True) as connection, snapshot(connection):
                proof = prove_live(connection, tenant_id(connection, str(slug)), entry)
    except NotProven as error:
        fail(str(error), "wardkey audit verify says more", FINDINGS)
    write_atomically(output, proof.encode(), exclusive=True)
    facts = {
        "file": output,
        "entry": entry,
        "position": proof.position,
        "key": proof.signed.checkpoint.key.hex(),
    }
    emit(context, facts, lambda: details(facts))


for _command in (*questions.COMMANDS, *retention.COMMANDS, *comparison.COMMANDS):
    audit.add_command(_command)


def _end_by_exception() -> None:
    # Whatever ends the command, nothing half made is to be left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
