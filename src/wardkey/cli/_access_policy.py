"""The groups ``policy`` and ``class`` of ``wardkey access``: what roles see of which columns."""

from __future__ import annotations

from pathlib import Path

import click

from ._context import Context, pass_context
from ._output import emit, table
from ._places import keeper_directory, only, places

__all__ = ["COMMANDS"]

_ACCESS = click.Choice(("clear", "mask", "none"))
_COLUMNS = ("role", "class", "access", "writes", "keeper", "decided_by", "decided_at")


@click.group()
def policy() -> None:
    """Say what each role sees of each class of columns.

    The database and the keeper have it; the keeper gives no key beyond its own copy. A tenant's ADMIN narrows
    it in SQL, on a token: ward.narrow_policy(role, class, access), and ward.restore_policy().
    """


@policy.command("show")
@keeper_directory
@only
@pass_context
def show(context: Context, keeper_directory: Path | None, only: str | None) -> None:
    """Show the platform's policy, and what the keeper has."""
    from ..access import policy as use

    with places(context, keeper_directory, only) as (connection, keeper):
        rows = use.platform(connection, keeper)
    emit(context, rows, lambda: table(rows, _COLUMNS if only != "keeper" else ("role", "class", "keeper")))


@policy.command("set")
@click.argument("role")
@click.argument("name", metavar="CLASS")
@click.argument("access", type=_ACCESS)
@click.option("--write/--no-write", default=None, help="Whether the role writes such columns.")
@keeper_directory
@only
@pass_context
def set_(
    context: Context,
    /,
    role: str,
    name: str,
    access: str,
    write: bool | None,
    keeper_directory: Path | None,
    only: str | None,
) -> None:
    """Say what a role sees of a class, from the next transaction on. It is an event of the log."""
    from ..access import policy as use

    with places(context, keeper_directory, only) as (connection, keeper):
        cell = use.set_cell(connection, keeper, role, name, access, write)
    facts = {"role": role, "class": name, "access": cell.access, "write": cell.write}
    writes = ", writes" if cell.write else ""
    emit(context, facts, lambda: click.echo(f"{role} sees {name}: {cell.access}{writes}"))


@policy.command("diff")
@keeper_directory
@pass_context
def diff(context: Context, keeper_directory: Path | None) -> None:
    """List where database and keeper differ: no key beyond the keeper's. Exit code 1 if they do."""
    from ..access import policy as use

    with places(context, keeper_directory, None) as (connection, keeper):
        rows = use.differences(connection, keeper)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="database and keeper agree"))
    if rows:
        raise click.exceptions.Exit(1)


@policy.command("export")
@click.argument("slug")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page; else JSON.")
@pass_context
def export(context: Context, slug: str, html: Path | None) -> None:
    """Write a tenant's matrix of roles and classes.

    Who sees what, and who decided it: the document of minimum necessary uses of 45 CFR 164.514(d)(2).
    """
    from ..access import policy as use

    with context.connect() as connection:
        facts = use.matrix(connection, slug)
    if html is not None:
        from ..access import matrix

        html.write_text(matrix.render(facts), encoding="utf-8")
        emit(context, {"file": str(html)}, lambda: click.echo(f"{html} written"))
    else:
        click.echo(use.to_json(facts))


@click.group("class")
def class_() -> None:
    """Add and list classes of columns, and say how they are masked."""


@class_.command("list")
@pass_context
def list_(context: Context) -> None:
    """List the classes, with their columns and masks."""
    from ..access import policy as use

    with context.connect() as connection:
        rows = use.classes(connection)
    emit(context, rows, lambda: table(rows, ("name", "description", "mask", "columns")))


@class_.command("add")
@click.argument("name")
@click.argument("description")
@click.option("--mask", default="redact", show_default=True)
@pass_context
def add(context: Context, name: str, description: str, mask: str) -> None:
    """Add a class. No role sees it before `access policy set` says so."""
    with context.connect() as connection:
        connection.execute("select ward.add_class(%s, %s, %s)", [name, description, mask])
    emit(context, {"class": name, "mask": mask}, lambda: click.echo(f"class {name} added"))


@class_.command("assign")
@click.argument("table_name", metavar="TABLE")
@click.argument("column")
@click.argument("name", metavar="CLASS")
@pass_context
def assign(context: Context, table_name: str, column: str, name: str) -> None:
    """Give a sealed column another class. Then reseal: `wardkey keys reseal`, tenant by tenant."""
    from ..access import policy as use

    with context.connect() as connection:
        tenants = use.classify(connection, table_name, column, name)
    text = f"{table_name}.{column} is of class {name}; to reseal in {tenants} tenants: wardkey keys reseal"
    emit(context, {"column": column, "class": name, "tenants": tenants}, lambda: click.echo(text))


@class_.command("mask")
@click.argument("table_name", metavar="TABLE")
@click.argument("column")
@click.argument("mask")
@pass_context
def mask(context: Context, table_name: str, column: str, mask: str) -> None:
    """Say how a column is masked.

    MASK is redact, null, last4, year, zip3, age90 or initial; class: as its class says.
    """
    with context.connect() as connection:
        given = None if mask == "class" else mask
        connection.execute("select ward.set_mask(%s::regclass, %s, %s)", [table_name, column, given])
    facts = {"table": table_name, "column": column, "mask": mask}
    emit(context, facts, lambda: click.echo(f"{table_name}.{column} is masked: {mask}"))


COMMANDS = (policy, class_)
