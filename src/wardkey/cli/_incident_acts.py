"""``wardkey incident scope --act``: what is to be done is shown, asked for and done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from uuid import UUID

import click

from ._context import Context
from ._keys import open_job
from ._output import fail, note, table

if TYPE_CHECKING:
    from ..incident.acts import Act, Hand

_COLUMNS = ("act", "tenant", "what", "why", "is_done")


def act_on(context: Context, identity: UUID, *, suspends: bool, yes: bool) -> int:
    """Do what the last scope asks for, once each, and return the exit code. Raises WardError."""
    from ..incident import acts, store

    with context.connect() as connection:
        planned = acts.plan(store.load(connection, identity), suspends=suspends)
    pending = [act for act in planned if not act.is_done]
    if not context.json:
        click.echo()
        table([act.document() for act in planned], _COLUMNS, empty="nothing is to be done")
    if not pending or not (yes or _asked(len(pending))):
        return 0

    def record(act: Act) -> None:
        with context.connect() as connection:
            store.record_act(connection, identity, act.kind, act.tenant, act.what)
        note(context, f"{act.slug}: {act.kind} {act.what}".strip())

    acts.perform(pending, _hands(context, identity), record)
    return 0


def _asked(number: int) -> bool:
    if not sys.stdin.isatty():
        fail("not confirmed; nothing was done", "add: --yes")
    return click.confirm(f"Do {number} of these now?", err=True)


def _hands(context: Context, identity: UUID) -> dict[str, Hand]:
    from ..access import budgets
    from ..errors import KeyInUse
    from ..keys.orchestrator import Request
    from ..tenants import provisioning
    from .tenant import remembering

    def suspend(act: Act) -> None:
        with context.connect() as connection:
            connection.execute("select ward.suspend_tenant(%s)", [act.slug])

    def revoke(act: Act) -> None:
        with context.connect() as connection:
            budgets.end(connection, context.keeper_socket, act.slug, act.what, act.issuer)

    def password(act: Act) -> None:
        passwords, remember = remembering(context)
        with context.connect() as connection:
            provisioning.set_password(connection, act.slug, remember)
        for slug, text in passwords.items():
            click.echo(f"{slug}: new password (shown this once): {text}")

    def rotate(act: Act) -> None:
        with open_job(context) as job:
            tenants = job.orchestrator.tenants([act.slug])
            job.rotate(
                [(each, Request(f"incident {identity}", incident=True)) for each in tenants], named=True
            )
            if job.end():
                raise KeyInUse(f"{act.slug}: the rotation did not end", "wardkey keys reseal, then again")

    return {"suspend": suspend, "revoke": revoke, "password": password, "rotate": rotate}
