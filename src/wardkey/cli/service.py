"""``wardkey service``: the processes of a server of your own under systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._context import Context, pass_context
from ._output import UNREACHABLE, emit, fail, table

_WHAT = click.Choice(["keeper", "scribe", "publisher", "invalidator", "gateway", "metrics", "timers"])
_COLUMNS = ("service", "state", "pid", "since", "restarts")


@click.group()
def service() -> None:
    """Run the processes of a server of your own under systemd."""


_what = click.argument(
    "what",
    metavar="[keeper|scribe|publisher|invalidator|gateway|metrics|timers]...",
    nargs=-1,
    required=True,
    type=_WHAT,
)
_kms = click.option(
    "--kms", metavar="URI", help="The cell's KMS, instead of what the keeper's kms.json says."
)
_log_format = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Of their logs.",
)


@service.command("print")
@_what
@_kms
@_log_format
@pass_context
def print_units(context: Context, /, what: tuple[str, ...], **options: str | None) -> None:
    """Print systemd units, hardened, and the OS users that they need.

    The database is the one of --dsn, without a user, or `host=/var/run/postgresql dbname=wardkey`. OS users:
    wardkey-keeper, ward-scribe, wardkey-publisher, wardkey-invalidator, wardkey-gateway, wardkey-metrics;
    group ward-socket may open the keeper's socket. The timers rotate keys that are due, prune audit logs and
    run the doctor, daily; with /etc/wardkey/backup.env and drill.env they back up daily and try that weekly.
    """
    files = _files(context, what, options)
    shown = "\n".join(f"# {name}\n{text}" for name, text in files.items())
    emit(context, files, lambda: click.echo(shown.rstrip()))


@service.command("install")
@_what
@_kms
@_log_format
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Instead of /etc/systemd/system and /etc/sysusers.d; systemd is not told.",
)
@pass_context
def install(
    context: Context, /, what: tuple[str, ...], directory: Path | None, **options: str | None
) -> None:
    """Write systemd units, make their OS users, and enable them.

    What is there as it is to be stays: run it again after an upgrade. It starts nothing: `systemctl start`.
    """
    from ..daemon import units

    files = _files(context, what, options)
    try:
        changed = units.install(files, directory)
    except (units.ServiceError, OSError) as error:
        fail(str(error), "run it as root, on a host that systemd runs")
    rows = [{"file": name, "state": "written" if name in changed else "unchanged"} for name in files]
    emit(context, rows, lambda: table(rows, ("file", "state")))


def _files(context: Context, what: tuple[str, ...], options: dict[str, str | None]) -> dict[str, str]:
    from ..daemon import units

    dsn, kms = context.dsn or units.DSN, options["kms"]
    log_format = options["log_format"] or "text"
    made = [units.units(each, dsn=dsn, kms=kms, log_format=log_format) for each in what]
    return {units.USERS: units.users()} | {name: text for files in made for name, text in files.items()}


@service.command("status")
@pass_context
def status(context: Context) -> int:
    """Say how the services are, and how often they began again.

    Exit code 3 unless all run.
    """
    if rows := states():
        return show(context, rows)
    hint = "wardkey service install keeper scribe"
    fail("systemd has no service of wardkey", hint, UNREACHABLE)


def states() -> list[dict[str, Any]]:
    """Return what systemd says of each service."""
    from ..daemon import units

    return [
        {
            "service": name,
            "state": facts["ActiveState"],
            "pid": int(facts["MainPID"]) or None,
            "since": facts["ActiveEnterTimestamp"],
            "restarts": int(facts["NRestarts"]),
        }
        for name, facts in units.states().items()
    ]


def show(context: Context, rows: list[dict[str, Any]]) -> int:
    emit(context, rows, lambda: table(rows, _COLUMNS))
    return 0 if all(row["state"] == "active" for row in rows) else UNREACHABLE
