"""``wardkey metrics``: numbers for Prometheus and Grafana, of each tenant and of the platform."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from ._context import Context, pass_context
from ._output import emit, note, table

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_COLUMNS = ("tenant", "path", "made_at", "made_by")


@click.group()
def metrics() -> None:
    """Serve numbers to Prometheus, of each tenant and the platform.

    No number tells of a patient, and no label has a subject, a row or SQL.
    """


@metrics.command("run")
@click.option("--port", type=click.IntRange(0, 65535), help="Where to listen, TCP (default 9188).")
@click.option("--host", metavar="ADDRESS", help="Of --port (default 127.0.0.1).")
@pass_context
def run(context: Context, port: int | None, host: str | None) -> int:
    """Serve in the foreground, on a server of your own.

    Tokens travel as they are: behind a --host that others reach, put a proxy with TLS in between.
    """
    from ..metrics.__main__ import SERVICE

    given = {"--dsn": context.admin_dsn, "--keeper": context.keeper_socket, "--port": port, "--host": host}
    sys.stdout.flush()
    return SERVICE.main(
        [text for name, value in given.items() if value is not None for text in (name, str(value))]
    )


@metrics.command("token")
@click.argument("slug", metavar="SLUG|platform")
@click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, mode 0600, and not out."
)
@click.option("--drop", "is_dropped", is_flag=True, help="Have nobody read these metrics any more.")
@pass_context
def token(context: Context, slug: str, file: Path | None, is_dropped: bool) -> None:
    """Make the token that reads a tenant's metrics.

    It is shown this once: the database has its digest only. The embedded server serves metrics from the first
    token on; one that is replaced or dropped is of no use 5 seconds later.
    """
    from ..metrics import tokens

    tenant = None if slug == "platform" else slug
    with context.connect() as connection:
        made = tokens.drop(connection, tenant) if is_dropped else tokens.make(connection, tenant, file)
    port = None if context.dsn or is_dropped else context.cluster.serve_metrics()
    path = tokens.path(tenant)
    facts = {"tenant": slug, "path": path, "port": port, "token": None if file else made, "file": file}
    text = f"{slug} has no token any more" if is_dropped else str(file) if file else made
    emit(context, facts, lambda: click.echo(text))
    if port is not None:
        note(context, f"http://127.0.0.1:{port}{path}")


@metrics.command("list")
@pass_context
def list_tokens(context: Context) -> None:
    """List whose metrics can be read, and since when each has its token."""
    from ..metrics import tokens

    with context.connect() as connection:
        rows = tokens.owners(connection)
    emit(context, rows, lambda: table(rows, _COLUMNS))


@metrics.command("config")
@click.option(
    "--dir", "directory", type=_DIRECTORY, required=True, help="Where to write, /etc/prometheus/wardkey."
)
@click.option(
    "--target", metavar="HOST:PORT", help="Where metrics are served (default: the embedded server)."
)
@click.option(
    "--runbooks", metavar="URL", default="runbooks", help="Where the pages of docs/runbooks can be read."
)
@click.option("--tenant", "slug", metavar="SLUG", help="For a Prometheus that reads this tenant only.")
@pass_context
def config(context: Context, directory: Path, target: str | None, runbooks: str, slug: str | None) -> None:
    """Write the configuration of Prometheus, with alerts.

    Those who have no token yet are given one, in a file below tokens/. Run it again when tenants have come or
    gone.
    """
    from ..monitoring import prometheus

    if target is None:
        target = "127.0.0.1:9188" if context.dsn else f"127.0.0.1:{context.cluster.serve_metrics()}"
    with context.connect() as connection:
        written = prometheus.write(connection, directory, target, runbooks, slug)
    text = f"{directory}: {len(written.tenants)} jobs, {len(written.made)} tokens made"
    emit(context, asdict(written), lambda: click.echo(text))
    for lacking in written.lacking:
        make = f"wardkey metrics token {lacking} --file {directory}/tokens/{lacking}"
        note(context, f"{lacking} has a token that is not here: {make}")
