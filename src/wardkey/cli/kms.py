"""``wardkey kms``: where the keys that wrap tenants' data keys are kept, and with which credentials."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import click

from ._context import Context, pass_context
from ._output import FAILED, details, emit, fail, note, table

if TYPE_CHECKING:
    from ..embedded.kms_choice import Choice
    from ..keys.kek import Keks

__all__ = ["choice_options", "choose", "kms", "make_choice", "own_kms", "use_for_cell"]

_F = TypeVar("_F", bound=Callable[..., Any])
_CELL = "cell"  # in the place of a URI: the cell's KMS, for a tenant that had its own
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def choice_options(command: _F) -> _F:
    """Give a command the options that go with a KMS's URI."""
    for option in (
        click.option(
            "--env",
            "variables",
            metavar="NAME=TEXT",
            multiple=True,
            help="For what the KMS's own tools read, such as SOFTHSM2_CONF.",
        ),
        click.option("--ca", metavar="FILE", type=_FILE, help="Certificates to check the KMS's with."),
        click.option(
            "--admin-credential", metavar="FILE", type=_FILE, help="With it the orchestrator manages KEKs."
        ),
        click.option(
            "--credential", metavar="FILE", type=_FILE, help="With it the keeper wraps and unwraps."
        ),
        click.option("--admin-uri", metavar="URI", help="For the orchestrator, where its URI differs."),
        click.option(
            "--in-region",
            "regions",
            metavar="REGION=ADDRESS",
            multiple=True,
            help="What stands in the place of the URI's address for tenants of a region.",
        ),
    ):
        command = option(command)
    return command


def make_choice(uri: str, options: dict[str, Any]) -> Choice:
    """Return what ``choice_options`` were given as."""
    from ..embedded.kms_choice import Choice

    environment = _pairs(options.pop("variables"), "--env is NAME=TEXT")
    regions = _pairs(options.pop("regions"), "--in-region is REGION=ADDRESS")
    return Choice(uri, environment=environment, regions=regions, **options)


def _pairs(texts: Sequence[str], usage: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not name or not equals for name, equals, _ in pairs):
        raise click.UsageError(usage)
    return {name: text for name, _, text in pairs}


def use_for_cell(context: Context, choice: Choice) -> Collection[str]:
    """Let the cell use a KMS; the ones before go on unwrapping. Return the schemes keys are wrapped under."""
    from ..embedded.kms_choice import sides
    from ..kms import is_same, may_hold, scheme_of

    wrapped_under, needed = _keks(context)
    for cells in sides(context.home)[1].read().owned(None) if context.home.exists else ():
        replaced = scheme_of(cells.uri) == scheme_of(choice.uri) and not is_same(cells.uri, choice.uri)
        if replaced and any(may_hold(cells.uri, kek) for kek in needed or ()):
            fail(
                f"keys of the cell are wrapped in {cells.uri}, or were and are not destroyed yet",
                "the cell has one KMS of each scheme: go by way of one of another scheme",
            )
    choose(context, choice, None, needed)
    return {scheme_of(kek) for kek in wrapped_under}


def choose(
    context: Context, choice: Choice, tenant: UUID | None, needed: Collection[str] | None = None
) -> None:
    """Write the choice down for keeper and orchestrator, and see that a running keeper takes it up."""
    from ..embedded import kms_choice

    context.home.make_directories()
    must_restart = kms_choice.use(context.home, choice, tenant, needed=needed)
    if must_restart and context.cluster.restart_keeper():
        note(context, "keeper restarted")


@contextmanager
def own_kms(context: Context, choice: Choice | None) -> Iterator[tuple[UUID | None, Keks]]:
    """Give a tenant that is to be made its own KMS if it brings one; undone when it is not made."""
    from ..keys.kek import Keks

    home = context.home
    if choice is None:
        yield None, Keks(home.orchestrator, context.keeper_socket)
        return
    from ..embedded import kms_choice

    tenant = uuid4()
    try:
        choose(context, choice, tenant)
        yield tenant, Keks(home.orchestrator, context.keeper_socket)
    except BaseException:
        with suppress(Exception), context.connect() as connection:
            there = connection.execute("select from ward.tenants where id = %s", [tenant]).fetchone()
            if there is None:
                kms_choice.forget(home, tenant)
        raise


@click.group()
def kms() -> None:
    """Choose, show and check the KMS of the embedded server.

    The keeper wraps and unwraps data keys with its own credential. With a second one, the orchestrator's,
    this command makes, rotates and destroys the KEKs; without it, the keeper does that too.
    """


@kms.command("use")
@click.argument("uri", metavar="URI")
@click.option("--tenant", metavar="SLUG", help="This tenant brings its own KMS; nobody else uses it.")
@choice_options
@pass_context
def use(context: Context, /, uri: str, tenant: str | None, **options: Any) -> None:
    """Use the KMS at URI: for the cell, or for one tenant.

    URI: gcpkms://projects/P/locations/L, vault://HOST:PORT/MOUNT, awskms://REGION,
    azure://NAME.vault.azure.net, pkcs11:token=LABEL?module-path=FILE or local:; with --tenant also the word
    cell, which takes it back to the cell's KMS. Keys stay where they are wrapped, and readable, until
    `wardkey keys rewrap` takes them along. The same KMS again renews its credential or address.
    """
    from ..embedded.kms_choice import sides
    from ..kms import may_hold, scheme_of

    choice = make_choice(uri, options)
    if tenant is None:
        wrapped_under = use_for_cell(context, choice)
        left = {*wrapped_under} - {scheme_of(uri)}
    else:
        left = {kek for kek in _use_for_tenant(context, choice, tenant) if not may_hold(uri, kek)}
        if uri == _CELL:
            uri = sides(context.home)[1].read().cell.uri
            left = {kek for kek in left if not may_hold(uri, kek)}
        left = {scheme_of(kek) for kek in left}
    facts = {"kms": uri, "tenant": tenant, "rewrap": sorted(left)}
    emit(context, facts, lambda: _used(context, facts))


@kms.command("show")
@pass_context
def show(context: Context) -> None:
    """Show the KMSes in use, and where their credentials are."""
    from ..embedded.kms_in_use import in_use

    if not context.home.keeper.exists():
        fail(f"there is no server in {context.home.path}", "make one: wardkey up")
    slugs, counts = _registry(context)
    rows, environment = in_use(context.home, slugs)
    facts = {"kms": rows, "environment": environment, "data_keys_by_scheme": counts}
    emit(context, facts, lambda: _show(rows, counts))


@kms.command("check")
@click.argument("slug", metavar="[SLUG]", required=False)
@pass_context
def check(context: Context, slug: str | None) -> int:
    """Try each tenant's key; changes nothing.

    Can the keeper use its KEK, can the orchestrator manage it?

    Exit code 1 when something cannot be done.
    """
    from ..keys.kek import Keks
    from ..keys.kms_check import check as try_keys

    keks = Keks(context.home.orchestrator, context.keeper_socket)
    with context.connect() as connection:
        if slug is not None:
            from ..tenants.provisioning import find

            find(connection, slug)
        results = list(try_keys(connection, keks, context.keeper_socket, slug))
    rows = [asdict(each) for each in results]
    emit(context, rows, lambda: table(rows, ("tenant", "kek", "keeper", "orchestrator"), empty="no keys yet"))
    return 0 if all(each.ok for each in results) else FAILED


def _use_for_tenant(context: Context, choice: Choice, slug: str) -> set[str]:
    """Let a tenant use the KMS it brings, or the cell's; return the KEKs its keys are wrapped under."""
    from ..embedded import kms_choice
    from ..identity.issuers import tenant_id
    from ..keys.registry import keks_of

    with context.connect() as connection:
        tenant = tenant_id(connection, slug)
        wrapped_under, needed = keks_of(connection, tenant)
    if choice.uri != _CELL:
        kms_choice.check_move(context.home, choice.uri, tenant)
        choose(context, choice, tenant, needed)
        return wrapped_under
    if choice != kms_choice.Choice(_CELL):
        raise click.UsageError("cell takes no options: its credentials are there")
    kms_choice.use_cells(context.home, tenant, needed=needed)
    return wrapped_under


def _keks(context: Context) -> tuple[set[str], set[str] | None]:
    """Return the KEKs that keys are wrapped under, and those that may be needed; None: not known."""
    import psycopg

    from ..errors import NotRunning
    from ..keys.registry import keks_of

    if not context.home.exists:
        return set(), set()
    with suppress(NotRunning, psycopg.Error), context.connect() as connection:
        return keks_of(connection)
    return set(), None


def _registry(context: Context) -> tuple[dict[UUID, str], dict[str, int] | None]:
    """Return the tenants' slugs, and how many data keys are wrapped under each scheme if that is known."""
    import psycopg

    from ..errors import NotRunning
    from ..keys.kms_check import schemes_in_use

    with suppress(NotRunning, psycopg.Error), context.connect() as connection:
        slugs = dict(connection.execute("select id, slug from ward.tenants").fetchall())
        return slugs, schemes_in_use(connection)
    return {}, None


def _used(context: Context, facts: dict[str, Any]) -> None:
    whose = facts["tenant"] or "the cell"
    click.echo(f"{whose} uses {facts['kms']}")
    if facts["rewrap"]:
        target = facts["tenant"] or "--all"
        click.echo(f"keys are still wrapped under {', '.join(facts['rewrap'])}: wardkey keys rewrap {target}")
    click.echo("try it: wardkey kms check" if context.cluster.keeper.process else "start it: wardkey up")


def _show(rows: list[dict[str, Any]], counts: dict[str, int] | None) -> None:
    for row in rows:
        if row["kms"] == "local:":
            manages = "the keeper"
        else:
            manages = f"{row['managed_with']}" if row["managed_with"] else "the keeper, with its credential"
        details(
            {
                row["for"]: row["kms"],
                "  credential": row["credential"],
                "  KEKs made by": manages,
                "  its credential": row["admin_credential"],
            }
        )
    if counts:
        click.echo(
            "data keys: " + ", ".join(f"{number} under {scheme}:" for scheme, number in counts.items())
        )
