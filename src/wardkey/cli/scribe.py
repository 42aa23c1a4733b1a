"""``wardkey scribe``: the process that seals the audit log. ``wardkey up`` starts it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ._audit import log_id
from ._context import Context, pass_context
from ._output import UNREACHABLE, details, emit, fail, note
from .tenant_leaving import operator


@click.group()
def scribe() -> None:
    """Run and ask the scribe, the process that seals the audit log."""


@scribe.command("run")
@click.option("--slot", metavar="NAME", help="Replication slot (default wardkey_audit).")
@click.option(
    "--status",
    "status_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where to tell how it is.",
)
@pass_context
def run(context: Context, slot: str | None, status_file: Path | None) -> int:
    """Work in the foreground until SIGTERM or Ctrl-C.

    For a server of your own.

    Slot and publication are made when they are missing. One scribe works for a database; a second one is
    refused.
    """
    from ..scribe.__main__ import SERVICE

    arguments = ["--dsn", context.admin_dsn, "--keeper", str(context.keeper_socket)]
    if slot:
        arguments += ["--slot", slot]
    if status_file:
        arguments += ["--status", str(status_file)]
    sys.stdout.flush()
    return SERVICE.main(arguments)


@scribe.command("status")
@pass_context
def status(context: Context) -> int:
    """Say how far the scribe has come and what troubles it. Exit code 3: none is at work."""
    from ..scribe.report import how_it_is

    with context.connect(autocommit=True) as connection:
        connection.execute("set search_path = pg_catalog, pg_temp")
        facts = how_it_is(connection, None if context.dsn else context.home.path)
    if facts is None:
        start = "wardkey up" if context.dsn is None else "wardkey scribe run"
        fail("no scribe has worked for this database yet", f"start it with: {start}", UNREACHABLE)
    if context.dsn is None and (status := context.cluster.scribe.status()):
        facts |= {"trouble": status.get("trouble"), "pid": status.get("pid")}
    emit(context, facts, lambda: details(facts))
    return 0 if facts["at_work"] else UNREACHABLE


@scribe.command("readmit")
@click.argument("slug", metavar="[SLUG|UUID|platform]", required=False)
@click.option(
    "--all", "every", is_flag=True, help="Each log of which the keeper refuses the next checkpoint."
)
@pass_context
def readmit(context: Context, slug: str | None, every: bool) -> None:
    """After a restore: let a log go on from an older checkpoint.

    Older than the last one the keeper signed, that is.

    The keeper signs one history of each tenant's log. A database that comes back from a backup has lost the
    end of it, and would begin a second one; this allows that, and the keeper's own log says so, and the log
    itself has an entry: reads may be missing. Its Kafka topic, if it has one, is left as it is: the publisher
    makes another and fills it from the first entry.
    """
    from ..audit import readmitting

    if (slug is None) != every:
        raise click.UsageError("name a log, or --all")
    keeper = context.keeper_socket
    with context.connect(autocommit=True) as connection:
        if slug is None:
            logs = list(readmitting.forked(connection, keeper))
        else:
            logs = [readmitting.find(connection, keeper, log_id(connection, slug), slug)]
        for each in logs:
            readmitting.readmit(connection, keeper, each, operator())
            note(context, f"{each.name}: the next checkpoint may be any")
    rows = [{"tenant": each.tenant, "log": each.name, "readmitted": True} for each in logs]
    emit(context, rows, lambda: click.echo(f"{len(rows)} readmitted"))
