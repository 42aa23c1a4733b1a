"""``wardkey install``: a PostgreSQL server of one's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import FAILED, emit

if TYPE_CHECKING:
    from ..install import requirements


@click.command()
@click.option("--check", is_flag=True, help="Check only; change nothing.")
@click.option("--keeper-socket", metavar="PATH", help="Where the keeper listens, on the server's host.")
@pass_context
def install(context: Context, check: bool, keeper_socket: str | None) -> int:
    """Check and prepare a PostgreSQL server of your own.

    Name it with --dsn, as superuser. Creates or updates the extension where the server has its files, then
    says what is there and, for what is missing, the command that fixes it. Exit code 1 while something is
    missing, or reads are not journalled. Safe to repeat.
    """
    from ..install import requirements

    with context.connect() as connection:
        if check:
            findings = requirements.check_all(connection)
        else:
            findings = requirements.install(connection, keeper_socket)
    rows = [asdict(finding) for finding in findings]
    emit(context, rows, lambda: _show(findings))
    return 0 if all(finding.ok for finding in findings) else FAILED


def _show(findings: list[requirements.Finding]) -> None:
    for finding in findings:
        mark = "ok     " if finding.ok else "MISSING"
        click.echo(f"{mark}  {finding.requirement}: {finding.detail}")
        if not finding.ok:
            click.echo(f"         {finding.fix}")
