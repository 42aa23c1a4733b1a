"""``wardkey tenant``: wards and their login roles."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ._context import Context, pass_context
from ._output import emit, fail, progress, table
from .kafka import make_topics
from .kms import choice_options, make_choice, own_kms
from .tenant_leaving import check_certificate, export, shred
from .tenant_restore import restore

if TYPE_CHECKING:
    from ..tenants.provisioning import Remember

_COLUMNS = ("slug", "name", "status", "region", "login_role", "key_version", "created_at")


@click.group()
def tenant() -> None:
    """Create, list, suspend, resume, restore, export, shred and drop tenants.

    A tenant has a ward: a schema of its own, a login role, and a data key that seals its protected columns.
    """


for command in (export, shred, check_certificate, restore):
    tenant.add_command(command)


@tenant.command("create")
@click.argument("slugs", metavar="SLUG...", nargs=-1, required=True)
@click.option("--name", help="Its full name (with a single SLUG).")
@click.option(
    "--mode",
    type=click.Choice(["envelope", "derived"]),
    default="envelope",
    show_default=True,
    help="Its data key: random and wrapped by its own KEK, or derived from the cell's master secret.",
)
@click.option(
    "--region",
    metavar="REGION",
    help="Where its keys are kept, for good, such as eu-de; the server's if none.",
)
@click.option("--kms", "uri", metavar="URI", help="It brings its own KMS (with a single SLUG).")
@click.option(
    "--connections",
    type=click.IntRange(min=-1),
    metavar="N",
    help="How many its login role may have; half of the server's unless given, -1: no limit.",
)
@choice_options
@pass_context
def create_(
    context: Context,
    /,
    slugs: tuple[str, ...],
    name: str | None,
    mode: str,
    region: str | None,
    uri: str | None,
    connections: int | None,
    **options: Any,
) -> None:
    """Create one or more tenants.

    SLUG: a lower-case letter, then letters, digits and underscores. The login role is tenant_SLUG. The
    embedded server's home keeps its password; for another server (--dsn) it is printed, once.

    With --kms URI its KEK is in a KMS of its own, as with `wardkey kms use URI --tenant SLUG`.
    """
    from ..tenants.provisioning import create

    _check_create(slugs, name, mode, uri, options)
    passwords, remember = remembering(context)
    own = own_kms(context, make_choice(uri, options) if uri else None)
    made: list[dict[str, Any]] = []
    with context.connect(autocommit=True) as connection, own as (id_, keks), progress(context) as bar:
        make = partial(create, connection, mode=mode, tenant=id_, keks=keks, connections=connections)
        for slug in bar.track(slugs, description="tenants"):
            row = make(slug, name, remember, region=region)
            made.append(row | ({"password": passwords[slug]} if slug in passwords else {}))
            if not context.json:
                bar.console.print(_created(made[-1]), soft_wrap=True)
    make_topics(context, made)
    emit(context, made, lambda: None)


def _check_create(
    slugs: tuple[str, ...], name: str | None, mode: str, uri: str | None, options: dict[str, Any]
) -> None:
    if (name or uri) and len(slugs) > 1:
        raise click.UsageError("--name and --kms go with a single SLUG")
    if uri and mode == "derived":
        raise click.UsageError("derived keys have no KEK of their own: --kms goes with --mode envelope")
    if not uri and any(options.values()):
        raise click.UsageError("options for a KMS go with --kms URI")


@tenant.command("list")
@pass_context
def list_(context: Context) -> None:
    """List the tenants."""
    from ..tenants import provisioning as tenants

    with context.connect() as connection:
        rows = tenants.list_all(connection)
    emit(
        context, rows, lambda: table(rows, _COLUMNS, empty="no tenants; make one: wardkey tenant create acme")
    )


@tenant.command("bound")
@click.argument("slug")
@click.argument("name")
@click.argument("value", required=False)
@pass_context
def bound(context: Context, slug: str, name: str, value: str | None) -> None:
    """Set a bound of a tenant's role, or its default.

    NAME: connections, or a setting that its sessions begin with: work_mem, statement_timeout, lock_timeout,
    idle_in_transaction_session_timeout, idle_session_timeout, transaction_timeout (PostgreSQL 17). A tenant
    can change these settings, but not connections. Open connections stay as they are.
    """
    from ..tenants import provisioning as tenants

    with context.connect() as connection:
        tenants.bound(connection, slug, name, value)
    shown = f"{slug}: {name} is {'the default' if value is None else value}"
    emit(context, {"slug": slug, "name": name, "value": value}, lambda: click.echo(shown))


@tenant.command("suspend")
@click.argument("slug")
@pass_context
def suspend(context: Context, slug: str) -> None:
    """Refuse a tenant every login, from now on.

    A query that runs may end; no other begins.
    """
    with context.connect() as connection:
        connection.execute("select ward.suspend_tenant(%s)", [slug])
    emit(context, {"slug": slug, "status": "suspended"}, lambda: click.echo(f"{slug} suspended"))


@tenant.command("resume")
@click.argument("slug")
@pass_context
def resume(context: Context, slug: str) -> None:
    """Let a suspended tenant in again."""
    with context.connect() as connection:
        connection.execute("select ward.resume_tenant(%s)", [slug])
    emit(context, {"slug": slug, "status": "active"}, lambda: click.echo(f"{slug} resumed"))


@tenant.command("drop")
@click.argument("slug")
@click.option("--yes", "confirmed", metavar="SLUG", help="The slug again, instead of being asked for it.")
@click.option("--force", is_flag=True, help="Even if it still has data.")
@pass_context
def drop(context: Context, slug: str, confirmed: str | None, force: bool) -> None:
    """Drop a tenant: its ward, its role and its keys. Refuses while there is data, unless forced."""
    from ..embedded import kms_choice
    from ..tenants import provisioning as tenants

    _, remember = remembering(context)
    with context.connect() as connection:
        tenant_id = tenants.find(connection, slug)["id"]
        if (confirmed or _asked(slug)) != slug:
            fail("the slug was not repeated; nothing was dropped", f"wardkey tenant drop {slug} --yes {slug}")
        tenants.drop(connection, slug, force=force, remember=remember)
    if context.home.exists:
        kms_choice.forget(context.home, tenant_id)
    emit(context, {"slug": slug, "status": "dropped"}, lambda: click.echo(f"{slug} dropped"))


@tenant.command("reset-password")
@click.argument("slug")
@pass_context
def reset_password(context: Context, slug: str) -> None:
    """Give a tenant's login role a new password. Open connections stay."""
    from ..tenants import provisioning as tenants

    passwords, remember = remembering(context)
    with context.connect() as connection:
        tenants.set_password(connection, slug, remember)
    facts = {"slug": slug, "login_role": f"tenant_{slug}", "password": passwords.get(slug)}
    shown = passwords.get(slug) or f"new password of tenant_{slug} in {context.home.pgpass}"
    emit(context, facts, lambda: click.echo(shown))


def remembering(context: Context) -> tuple[dict[str, str], Remember]:
    """Return where passwords are put to be printed, and what to call with each."""
    passwords: dict[str, str] = {}
    if context.dsn is None:
        from ..tenants.provisioning import passfile_keeper

        return passwords, passfile_keeper(context.home.pgpass)

    def collect(role: str, password: str | None) -> None:
        if password is not None:
            passwords[role.removeprefix("tenant_")] = password

    return passwords, collect


def _created(row: dict[str, Any]) -> str:
    text = f"{row['slug']}: schema and login role {row['login_role']}, key version {row['key_version']}"
    if row["status"] == "suspended":
        text += f"\n  suspended: record its agreement (wardkey baa add {row['slug']}), then resume it"
    return f"{text}\n  password (shown this once): {row['password']}" if "password" in row else text


def _asked(slug: str) -> str:
    if not sys.stdin.isatty():
        fail("not confirmed", f"add: --yes {slug}")
    return str(
        click.prompt(
            f"This drops the ward of {slug}. Type its slug to go on", default="", show_default=False, err=True
        )
    )
