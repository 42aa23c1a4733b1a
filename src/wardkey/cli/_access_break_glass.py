"""The group ``break-glass`` of ``wardkey access``: seeing more than one's role does, on another's word."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar
from uuid import UUID

import click
from wardkey_core.tokens import ROLES

from ._context import Context, pass_context
from ._output import details, emit, table
from .server import tenant_login

if TYPE_CHECKING:
    import psycopg

__all__ = ["COMMANDS"]

_F = TypeVar("_F", bound=Callable[..., Any])
_COLUMNS = ("id", "slug", "subject", "state", "classes", "requested_at", "approver", "until", "review_due")


def _who(role: str) -> Callable[[_F], _F]:
    """Give a command the options that say who takes the step."""

    roles = click.Choice(ROLES, case_sensitive=False)

    def add(command: _F) -> _F:
        for option in (
            click.option(
                "--token", type=click.File(), metavar="FILE", help="Your token; - is standard input."
            ),
            click.option("--role", type=roles, default=role, show_default=True),
            click.option("--subject", metavar="WHO", help="Who you are, for one of the embedded issuer."),
            click.option("--tenant", "slug", metavar="SLUG", required=True, help="Of which tenant."),
        ):
            command = option(command)
        return command

    return add


@contextmanager
def _ward(
    context: Context, slug: str, subject: str | None, role: str, token: TextIO | None
) -> Iterator[psycopg.Connection[Any]]:
    """Open the ward of a tenant, logged in as somebody."""
    from ..daemon import sessions

    if (subject is None) == (token is None):
        raise click.UsageError("who are you? --subject, or --token")
    dsn, signed = tenant_login(
        context, slug, subject or "-", role, {}, token.read().strip() if token else None
    )
    with sessions.connect(dsn, "wardkey", autocommit=True) as connection:
        connection.execute("select ward.login_session(%s)", [signed])
        yield connection


@click.group("break-glass")
def break_glass() -> None:
    """See more than your role does, on an ADMIN's word.

    Who asks and who approves show the keeper a token each; it keeps its own ledger. Every entry of the log
    that comes of it names the grant.
    """


@break_glass.command("request")
@_who("ANALYST")
@click.option("--reason", metavar="TEXT", required=True, help="Why: it stands in the log.")
@click.option(
    "--class", "classes", metavar="CLASS", multiple=True, help="Of columns; may be repeated. Default: all."
)
@click.option("--minutes", type=click.IntRange(1, 60), default=60, show_default=True)
@click.option("--emergency", is_flag=True, help="At once, without an approver, where the tenant allows that.")
@pass_context
def request(
    context: Context, /, reason: str, classes: tuple[str, ...], minutes: int, emergency: bool, **who: Any
) -> None:
    """Ask to see classes of columns in the clear."""
    from ..access import break_glass as use

    with _ward(context, **who) as connection:
        made = use.request(connection, reason, classes, minutes, emergency=emergency)
    fix = f"to be approved within 15 minutes: wardkey access break-glass approve {made['id']}"
    emit(
        context,
        made,
        lambda: click.echo(_told(made) if made.get("until") else f"request {made['id']}, {fix}"),
    )


@break_glass.command("approve")
@click.argument("id", type=click.UUID)
@_who("ADMIN")
@pass_context
def approve(context: Context, /, id: UUID, **who: Any) -> None:
    """Grant a request that is not your own."""
    _take(context, "approve", id, who)


@break_glass.command("deny")
@click.argument("id", type=click.UUID)
@_who("ADMIN")
@pass_context
def deny(context: Context, /, id: UUID, **who: Any) -> None:
    """Refuse a request for good."""
    _take(context, "deny", id, who)


@break_glass.command("end")
@click.argument("id", type=click.UUID)
@_who("ADMIN")
@pass_context
def end(context: Context, /, id: UUID, **who: Any) -> None:
    """End a grant now: your own, or as an ADMIN of the tenant."""
    _take(context, "end", id, who)


@break_glass.command("review")
@click.argument("id", type=click.UUID)
@_who("ADMIN")
@click.option("--finding", metavar="TEXT", required=True, help="What you found: it stands in the log.")
@pass_context
def review(context: Context, /, id: UUID, finding: str, **who: Any) -> None:
    """Record what you found when you looked at what was seen."""
    _take(context, "review", id, who, finding)


@break_glass.command("allow")
@_who("ADMIN")
@click.option("--unapproved/--approved", required=True, help="Whether an emergency does without an approver.")
@pass_context
def allow(context: Context, /, unapproved: bool, slug: str, **who: Any) -> None:
    """Say whether an emergency of the tenant does without an approver."""
    with _ward(context, slug, **who) as connection:
        connection.execute("select ward.allow_break_glass(%s)", [unapproved])
    text = "at once, with an alarm and a review in 72 hours" if unapproved else "on an ADMIN's word only"
    emit(context, {"tenant": slug, "unapproved": unapproved}, lambda: click.echo(f"{slug}: {text}"))


@break_glass.command("list")
@click.option("--tenant", "slug", metavar="SLUG", help="Those of one tenant.")
@pass_context
def list_(context: Context, slug: str | None) -> None:
    """List requests and grants, the last first, also of tenants gone."""
    from ..access import break_glass as use

    with context.connect() as connection:
        rows = use.every(connection, slug)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="nobody has asked"))


def _take(context: Context, step: str, made: UUID, who: dict[str, Any], *values: str) -> None:
    from ..access import break_glass as use

    with _ward(context, **who) as connection:
        row = use.take(connection, step, made, *values)
    emit(context, row, lambda: details(row))


def _told(made: dict[str, Any]) -> str:
    if made.get("until"):
        return f"{made['id']}: granted until {made['until']:%H:%M:%S %Z}; to be reviewed within 72 hours"
    return f"to be approved within 15 minutes: wardkey access break-glass approve {made['id']}"


COMMANDS = (break_glass,)
