"""``wardkey dashboard``: what is to be seen, in Grafana or on a page of its own."""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import click

from ._context import Context, pass_context
from ._output import emit, fail, note

_PROMETHEUS = "http://127.0.0.1:9090"


class _Dashboard(click.Group):
    """``wardkey dashboard --html`` is ``wardkey dashboard html``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["html" if each == "--html" else each for each in args])


@click.group(cls=_Dashboard)
@click.option("--html", is_flag=True, expose_value=False, help="The same as the command html.")
def dashboard() -> None:
    """Show the numbers, in Grafana or as one page."""


@dashboard.command("export")
@click.option(
    "--directory", type=click.Path(file_okay=False, path_type=Path), default="grafana", show_default=True,
    help="Where Grafana will read them.",
)  # fmt: skip
@click.option("--organisations", metavar="FILE", type=click.File(), help="What GET /api/orgs answered.")
@click.option("--prometheus", metavar="URL", default=_PROMETHEUS, show_default=True, help="The platform's.")
@click.option("--tenant-prometheus", metavar="URL", help="A tenant's own, with {tenant} for its slug.")
@click.option("--runbooks", metavar="URL", help="Where the pages of docs/runbooks can be read.")
@pass_context
def export(
    context: Context, directory: Path, organisations: TextIO | None, prometheus: str,
    tenant_prometheus: str | None, runbooks: str | None,
) -> None:  # fmt: skip
    """Write dashboards and provisioning for Grafana.

    An organisation of Grafana for each tenant, called by its slug, with a data source of that tenant's
    Prometheus: `wardkey metrics config --tenant`. Run it again when tenants have come or gone.
    """
    grafana, listed = _monitoring("grafana"), organisations.read() if organisations else None
    with context.connect() as connection:
        written = grafana.write(connection, directory, prometheus, tenant_prometheus, listed, runbooks)
    text = f"{written.directory}: dashboards of the platform and of {len(written.tenants)} tenants"
    emit(context, asdict(written), lambda: click.echo(text))
    if written.lacking:
        note(context, f"without an organisation in Grafana: {', '.join(written.lacking)}")


@dashboard.command("html")
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="Write it there, mode 0600, and not out.",
)  # fmt: skip
@click.option("--tenant", "slug", metavar="SLUG", help="The page of this tenant alone, to be given to it.")
@click.option("--prometheus", metavar="URL", help="Draw curves of what this Prometheus remembers.")
@pass_context
def html(context: Context, output: Path | None, slug: str | None, prometheus: str | None) -> None:
    """Write one page of HTML with the numbers as they are now.

    It loads nothing and runs nothing. The same is `wardkey dashboard --html`.
    """
    from ..daemon.files import write_atomically

    page = _monitoring("page")
    past = page.History(prometheus) if prometheus else None
    text = page.render(page.gather(context.admin_dsn, context.keeper, slug, past))
    if output is None:
        click.echo(text)
    else:
        write_atomically(output, text.encode())
        emit(context, {"output": output}, lambda: click.echo(str(output)))


def _monitoring(name: str) -> Any:
    try:
        return import_module(f"wardkey.monitoring.{name}")
    except ModuleNotFoundError as error:
        fail(f"dashboards need {error.name}", "pip install 'wardkey[dashboards]'")
