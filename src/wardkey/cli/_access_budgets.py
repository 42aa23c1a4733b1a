"""The groups ``budget`` and ``honey`` of ``wardkey access``: how much is opened, and what should not be."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from wardkey_core.tokens import ROLES

from ._context import Context, pass_context
from ._output import emit, table
from ._places import keeper_directory

__all__ = ["COMMANDS"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BUDGETS = ("slug", "role", "table", "database", "keeper", "decided_by", "decided_at")
_USAGE = ("subject", "role", "table", "opened", "of", "until")
_HONEY = ("slug", "table", "key", "ends_logins", "made_by", "made_at")

_tenant = click.option("--tenant", "slug", metavar="SLUG", required=True, help="Of which tenant.")
_role = click.option("--role", type=click.Choice(ROLES), required=True)
_table = click.argument("table_", metavar="TABLE")
_key = click.argument("key", nargs=-1, required=True)


class _Window(click.ParamType):  # type: ignore[type-arg]
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", value)
        if match is None:
            self.fail("give a number and s, m, h or d: 30m, 8h, 1d", param, ctx)
        return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@click.group()
def budget() -> None:
    """Say how many rows of a table a role opens.

    Of each subject with that role, in a window that begins with the first row. The keeper counts, by a copy
    of its own, over all transactions and connections.
    """


@budget.command("set")
@_table
@click.argument("rows", type=int)
@_tenant
@_role
@click.option("--distinct", is_flag=True, help="Count a row once in a window.")
@click.option("--window", type=_Window(), default="1d", show_default=True, help="30m, 8h, 1d.")
@keeper_directory
@pass_context
def set_(
    context: Context,
    /,
    table_: str,
    rows: int,
    slug: str,
    role: str,
    distinct: bool,
    window: timedelta,
    keeper_directory: Path | None,
) -> None:
    """Set a budget, from the next transaction on."""
    from ..access import budgets as use

    keeper = keeper_directory or context.home.keeper
    with context.connect() as connection:
        use.set_(connection, keeper, slug, role, table_, rows, distinct=distinct, window=window)
    facts = {"slug": slug, "role": role, "table": table_, "rows": rows, "distinct": distinct}
    kind = " distinct" if distinct else ""
    text = f"{slug}: {role} opens {rows:,}{kind} rows of {table_} in {window}"
    emit(context, {**facts, "window": window.total_seconds()}, lambda: click.echo(text))


@budget.command("drop")
@_table
@_tenant
@_role
@keeper_directory
@pass_context
def drop(context: Context, table_: str, slug: str, role: str, keeper_directory: Path | None) -> None:
    """Take a budget away."""
    from ..access import budgets as use

    with context.connect() as connection:
        use.drop(connection, keeper_directory or context.home.keeper, slug, role, table_)
    facts = {"slug": slug, "role": role, "table": table_}
    emit(context, facts, lambda: click.echo(f"{slug}: {role} has no budget of {table_} any more"))


@budget.command("list")
@keeper_directory
@pass_context
def list_(context: Context, keeper_directory: Path | None) -> None:
    """List the budgets of database and keeper."""
    from ..access import budgets as use

    with context.connect() as connection:
        rows = use.every(connection, keeper_directory or context.home.keeper)
    emit(context, rows, lambda: table(rows, _BUDGETS, empty="no budgets"))


@budget.command("usage")
@_tenant
@pass_context
def usage(context: Context, slug: str) -> None:
    """Show what subjects have opened in windows that last.

    Rows that are leased to a backend and not opened yet are among them.
    """
    from ..access import budgets as use

    with context.connect() as connection:
        rows = use.usage(connection, context.keeper_socket, slug)
    emit(context, rows, lambda: table(rows, _USAGE, empty="nothing was opened under a budget"))


@click.group()
def honey() -> None:
    """Name rows that nobody has a reason to open.

    Opening one is an alarm in the platform's log, and ends the logins of who did.
    """


@honey.command("add")
@_table
@_key
@_tenant
@click.option("--alarm-only", is_flag=True, help="End nobody's logins.")
@pass_context
def add(context: Context, table_: str, key: tuple[str, ...], slug: str, alarm_only: bool) -> None:
    """Make the row with primary key KEY a honey row."""
    from ..access import budgets as use

    with context.connect() as connection:
        use.add_honey(connection, slug, table_, key, ends_logins=not alarm_only)
    facts = {"slug": slug, "table": table_, "key": key, "ends_logins": not alarm_only}
    emit(context, facts, lambda: click.echo(f"{slug}: a honey row of {table_}"))


@honey.command("drop")
@_table
@_key
@_tenant
@pass_context
def drop_honey(context: Context, table_: str, key: tuple[str, ...], slug: str) -> None:
    """Make a honey row a row like others again."""
    from ..access import budgets as use

    with context.connect() as connection:
        use.drop_honey(connection, slug, table_, key)
    facts = {"slug": slug, "table": table_, "key": key}
    emit(context, facts, lambda: click.echo(f"{slug}: no honey row of {table_} any more"))


@honey.command("list")
@pass_context
def list_honey(context: Context) -> None:
    """List honey rows."""
    from ..access import budgets as use

    with context.connect() as connection:
        rows = use.honey(connection)
    emit(context, rows, lambda: table(rows, _HONEY, empty="no honey rows"))


@honey.command("ended")
@_tenant
@pass_context
def ended(context: Context, slug: str) -> None:
    """List the subjects whose logins were ended."""
    from ..access import budgets as use

    with context.connect() as connection:
        rows = use.ended(connection, context.keeper_socket, slug)
    emit(context, rows, lambda: table(rows, ("subject", "issuer", "since"), empty="nobody's"))


@honey.command("lift")
@click.argument("subject")
@_tenant
@click.option("--issuer", metavar="NAME", help="Of its tokens; any unless given.")
@pass_context
def lift(context: Context, subject: str, slug: str, issuer: str | None) -> None:
    """Let a subject in again."""
    from ..access import budgets as use

    with context.connect() as connection:
        use.lift(connection, context.keeper_socket, slug, subject, issuer)
    emit(context, {"slug": slug, "subject": subject}, lambda: click.echo(f"{subject} may log in again"))


COMMANDS = (budget, honey)
