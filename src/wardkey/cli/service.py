"""``wardkey service``: keeper, scribe and publisher under systemd, on a server of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._context import Context, pass_context
from ._output import UNREACHABLE, emit, fail, table

_WHAT = click.Choice(["keeper", "scribe", "publisher", "invalidator", "gateway", "timers"])
_COLUMNS = ("service", "state", "pid", "since", "restarts")


@click.group()
def service() -> None:
    """Run keeper, scribe, publisher and gateway under systemd, on a server of your own."""


@service.command("print")
@click.argument(
    "what",
    metavar="[keeper|scribe|publisher|invalidator|gateway|timers]...",
    nargs=-1,
    required=True,
    type=_WHAT,
)
@click.option("--kms", metavar="URI", help="The cell's KMS, instead of what the keeper's kms.json says.")
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Write the files there: /etc/systemd/system",
)
@pass_context
def print_units(context: Context, what: tuple[str, ...], kms: str | None, into: Path | None) -> None:
    """Print systemd units, hardened.

    The database is the one of --dsn, without a user, or `host=/var/run/postgresql dbname=wardkey`. OS users:
    wardkey-keeper, ward-scribe, wardkey-publisher, wardkey-invalidator, wardkey-gateway; group ward-socket
    may open the keeper's socket. The timers rotate keys that are due, prune audit logs and run the doctor,
    daily.
    """
    from ..daemon import units

    dsn = context.dsn or units.DSN
    files = {name: text for each in what for name, text in units.units(each, dsn=dsn, kms=kms).items()}
    for name, text in files.items() if into else ():
        (into / name).write_text(text)  # type: ignore[operator]
    shown = "\n".join(f"# {name}\n{text}" for name, text in files.items())
    emit(context, files, lambda: click.echo("\n".join(map(str, files)) if into else shown.rstrip()))


@service.command("status")
@pass_context
def status(context: Context) -> int:
    """Say how the services are and how often systemd started them again. Exit code 3 unless all run."""
    if rows := states():
        return show(context, rows)
    hint = "wardkey service print keeper scribe --into /etc/systemd/system"
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
