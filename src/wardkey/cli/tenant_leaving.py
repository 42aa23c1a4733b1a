"""``wardkey tenant export``: what a tenant takes along when it leaves."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._context import Context, pass_context
from ._output import emit, fail, note, table

if TYPE_CHECKING:
    import psycopg

_COLUMNS = ("table", "rows", "bytes", "file")


@click.command("export")
@click.argument("slug")
@click.option(
    "--to", "target", metavar="DIR", type=click.Path(path_type=Path), required=True, help="A new directory."
)
@click.option("--sealed", is_flag=True, help="As it is stored, with the wrapped keys; nothing is opened.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds a token of an ADMIN of the tenant (or WARDKEY_TOKEN); read again before each table.",
)
@pass_context
def export(context: Context, slug: str, target: Path, sealed: bool, token_file: Path | None) -> None:
    """Write a tenant's data into a new directory, which only you can read.

    In the clear, as the tenant's ADMIN reads it: a CSV per table, the tables as they were declared, and a
    manifest. Without a token the embedded issuer signs one for you. DIR is there when all of it is.
    """
    from ..export import Source, export_clear, export_sealed

    # Whatever ends the command, nothing in the clear is to be left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with context.connect(autocommit=True) as admin:
        done = lambda name, rows: note(context, f"{name}: {rows:,} rows")  # noqa: E731
        source = Source(admin, slug, operator(), done)
        if sealed:
            tables = export_sealed(source, target)
        else:
            token = _token(context, admin, slug, token_file)
            with _connect_as_tenant(context, admin, slug) as ward:
                tables = export_clear(source, ward, token, target)
    emit(context, {"directory": target, "tables": tables}, lambda: _show(target, tables))


def operator() -> str:
    """Return who runs this command: the name of the OS user."""
    return pwd.getpwuid(os.getuid()).pw_name


def _token(
    context: Context, admin: psycopg.Connection[Any], slug: str, file: Path | None
) -> Callable[[], str]:
    from .. import issuers

    if file is not None:
        return lambda: file.read_text().strip()
    if given := os.environ.get("WARDKEY_TOKEN"):
        return lambda: given
    if not context.home.exists:
        fail("no token of the tenant", "give one: --token-file FILE, or WARDKEY_TOKEN")
    tenant = issuers.tenant_id(admin, slug)
    signer, _ = issuers.embedded(admin, context.home)
    return lambda: signer.sign_token(tenant, operator(), "ADMIN")


def _connect_as_tenant(
    context: Context, admin: psycopg.Connection[Any], slug: str
) -> psycopg.Connection[tuple[Any, ...]]:
    import psycopg
    from psycopg.conninfo import make_conninfo

    from .. import tenants

    role = str(tenants.find(admin, slug)["login_role"])
    if context.dsn is None:
        dsn = context.cluster.dsn(user=role)
    else:
        dsn = make_conninfo(context.dsn, user=role, password=None)
    return psycopg.connect(dsn, autocommit=True, application_name="wardkey", connect_timeout=10)


def _show(target: Path, tables: list[dict[str, Any]]) -> None:
    table(tables, _COLUMNS, empty="no tables")
    click.echo(f"{sum(facts['rows'] for facts in tables):,} rows in {target}")
