"""``wardkey keys``: the life of tenants' keys, from one version to the next and to their end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._context import Context, pass_context
from ._keys import Job, accessed, open_job, open_orchestrator
from ._keys_view import key_facts, show_status, tenant_facts
from ._output import emit, table

if TYPE_CHECKING:
    from ..keys.orchestrator import Request
    from ..keys.policy import TenantKeys

_F = TypeVar("_F", bound=Callable[..., Any])

_LIST = (
    "slug",
    "status",
    "mode",
    "version",
    "age_days",
    "kek_version",
    "kek_age_days",
    "old_versions",
    "due",
)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_slug = click.argument("slug", metavar="SLUG")
_slugs = click.argument("slugs", metavar="[SLUG]...", nargs=-1)
_all = click.option("--all", "every", is_flag=True, help="All tenants.")
_version = click.option("--version", type=click.IntRange(1), metavar="N", help="This version of the key.")


def _resealing(command: _F) -> _F:
    """Give a command the options of resealing."""
    rate = "At most so many; 0: as fast as it goes. Without, it works 6 % of the time and rests."
    wait = "How long to wait for older transactions, for rows that are locked, for the keeper."
    for option in (
        click.option(
            "--wait",
            "patience",
            metavar="SECONDS",
            type=click.FloatRange(0),
            default=60,
            show_default=True,
            help=wait,
        ),
        click.option("--rate", metavar="VALUES/S", type=click.IntRange(0), help=rate),
    ):
        command = option(command)
    return command


@click.group()
def keys() -> None:
    """List, rotate, rewrap, retire and destroy the keys of tenants.

    A data key is active, then decrypt-only, retired, destroyed. `rotate` gives a tenant a new one and reseals
    its rows; `rewrap` rotates the KEKs in the KMS and touches no row; `rotate --due` does whatever is due,
    for cron or a timer. An interrupted run continues when it is called again.
    """


@keys.command("list")
@pass_context
def list_(context: Context) -> None:
    """List tenants, versions and ages of their keys, what is due."""
    with open_orchestrator(context) as orchestrator:
        tenants = orchestrator.tenants(master=True)
        rows = [tenant_facts(tenant, orchestrator.due(tenant)) for tenant in tenants]
    emit(context, rows, lambda: table(rows, _LIST, empty="no tenants"))


@keys.command("status")
@_slug
@click.option("--count", is_flag=True, help="Count the values under each version, by reading all rows.")
@pass_context
def status(context: Context, slug: str, count: bool) -> None:
    """Show a tenant's keys, its rotation, and what is due."""
    with open_orchestrator(context) as orchestrator:
        (tenant,) = orchestrator.tenants([slug])
        facts = tenant_facts(tenant, orchestrator.due(tenant))
        facts["versions"] = key_facts(tenant, orchestrator.count(slug) if count else None)
        facts |= {"rotation": orchestrator.rotation(tenant.id), "request": tenant.request}
    emit(context, facts, lambda: show_status(facts))


@keys.command("rotate")
@_slugs
@_all
@click.option("--due", is_flag=True, help="Whatever is due: rewrap, rotate, reseal, retire, destroy.")
@click.option("--requested", is_flag=True, help="Where an ADMIN of the tenant asked: ward.request_rotation.")
@click.option("--accessed-by", "who", metavar="WHO", help="Where the active key was released to WHO.")
@click.option(
    "--since", metavar="WHEN", help="With --accessed-by: 2026-03-01, 2026-03-01T08:30 (UTC), 7d, 12h."
)
@click.option(
    "--release-log", "logs", metavar="FILE", multiple=True, type=_FILE, help="Not the embedded keeper's."
)
@click.option("--master", is_flag=True, help="The master secret, then all tenants of mode derived.")
@click.option("--reason", metavar="TEXT", help="For the record: 1 to 200 printable characters.")
@click.option("--incident", is_flag=True, help="Also where a rotation is under way.")
@click.option("--no-reseal", is_flag=True, help="New versions only; later: wardkey keys reseal.")
@_resealing
@pass_context
def rotate(
    context: Context,
    /,
    slugs: tuple[str, ...],
    due: bool,
    no_reseal: bool,
    rate: int | None,
    patience: float,
    **choice: Any,
) -> int:
    """Give tenants a new data key and reseal their rows under it.

    The new version seals at once. Rows are moved to it while readers and writers go on, then the old one is
    retired. WHO is the subject of a token, or a token's id (jti).
    """
    _one_of(SLUG=slugs, due=due, **{name: choice[name] for name in ("every", "requested", "who", "master")})
    if (choice["since"] or choice["logs"]) and choice["who"] is None:
        raise click.UsageError("--since and --release-log go with --accessed-by")
    with open_job(context, rate=rate, patience=patience) as job:
        if due:
            job.do_what_is_due()
        else:
            wanted = _wanted(context, job, slugs, **choice)
            job.rotate(wanted, named=bool(slugs), reseal=not no_reseal)
        return job.end()


@keys.command("reseal")
@_slugs
@_all
@_resealing
@pass_context
def reseal(context: Context, slugs: tuple[str, ...], every: bool, rate: int | None, patience: float) -> int:
    """Go on with rotations: move rows, then retire old versions."""
    _one_of(SLUG=slugs, every=every)
    with open_job(context, rate=rate, patience=patience) as job:
        tenants = job.orchestrator.tenants(slugs or None)
        job.reseal([tenant.slug for tenant in tenants if tenant.slug and tenant.is_rotating])
        return job.end()


@keys.command("pause")
@_slug
@pass_context
def pause(context: Context, slug: str) -> None:
    """Stop a rotation before its next batch, until it is resumed."""
    _call(context, slug, "paused", "select ward.pause_rotation(%s)", slug)


@keys.command("resume")
@_slug
@pass_context
def resume(context: Context, slug: str) -> None:
    """Let a paused rotation go on; then: wardkey keys reseal."""
    _call(context, slug, "resumed", "select ward.pause_rotation(%s, false)", slug)


@keys.command("rewrap")
@_slugs
@_all
@click.option("--due", is_flag=True, help="Tenants whose KEK is as old as may be.")
@click.option("--master", is_flag=True, help="The master secret of mode derived.")
@pass_context
def rewrap(context: Context, slugs: tuple[str, ...], every: bool, due: bool, master: bool) -> int:
    """Rotate KEKs: new versions in the KMS, data keys rewrapped.

    Old versions are disabled. No row is touched. It also takes keys along to another KMS, after `wardkey kms
    use`.
    """
    _one_of(SLUG=slugs, every=every, due=due, master=master)
    with open_job(context) as job:
        if due:
            job.do_what_is_due("rewrap")
        elif tenants := job.orchestrator.tenants([] if master else slugs or None, master=master or every):
            job.rewrap(tenants, "all" if every else " ".join(slugs) or "master")
        return job.end()


@keys.command("retire")
@_slugs
@_all
@pass_context
def retire(context: Context, slugs: tuple[str, ...], every: bool) -> int:
    """Retire versions no row refers to; resealing ends with it."""
    _one_of(SLUG=slugs, every=every)
    with open_job(context) as job:
        for tenant in job.orchestrator.tenants(slugs or None):
            if tenant.is_rotating:
                job.retire(tenant)
        return job.end()


@keys.command("destroy")
@click.argument("slug", metavar="[SLUG]", required=False)
@click.option("--due", is_flag=True, help="What is retired, and KEK versions disabled, for the grace.")
@click.option("--master", is_flag=True, help="A version of the master secret.")
@_version
@click.option("--now", is_flag=True, help="Before the grace is over.")
@click.option(
    "--old-keks",
    is_flag=True,
    help="With --now: KEK versions, too, that now wrap nothing but keys in backups.",
)
@pass_context
def destroy(
    context: Context,
    slug: str | None,
    due: bool,
    master: bool,
    version: int | None,
    now: bool,
    old_keks: bool,
) -> int:
    """Destroy retired keys: what they sealed is gone for good.

    Backups that need them cannot be opened any more either.

    A KEK version that rewrapping left behind is destroyed after the same grace: backups from before, whatever
    data keys they need, cannot be opened any more then.
    """
    _one_of(SLUG=slug, due=due, master=master)
    if (version is None) != due or (now and due) or (old_keks and not now):
        raise click.UsageError("name a --version, with --now and --old-keks if so, or use --due")
    with open_job(context) as job:
        if version is None:
            job.do_what_is_due("destroy")
        for tenant in [] if due else job.orchestrator.tenants([slug] if slug else [], master=master):
            if version is not None and job.destroy(tenant, version, now=now):
                job.destroy_keks(tenant, now=old_keks)
        return job.end()


@keys.command("readmit")
@_slug
@_version
@click.option("--reason", metavar="TEXT", required=True, help="For the record.")
@pass_context
def readmit(context: Context, slug: str, version: int | None, reason: str) -> None:
    """Let a retired version open values again: rows were restored.

    Reseal them then.
    """
    if version is None:
        raise click.UsageError("which --version?")
    _call(
        context,
        slug,
        f"version {version} readmitted",
        "select ward.readmit_key(%s, %s, %s)",
        slug,
        version,
        reason,
    )


def _call(context: Context, slug: str, state: str, query: str, *values: object) -> None:
    with open_orchestrator(context) as orchestrator:
        orchestrator.call(query, *values)
    emit(context, {"slug": slug, "state": state}, lambda: click.echo(f"{slug}: {state}"))


def _wanted(
    context: Context,
    job: Job,
    slugs: tuple[str, ...],
    every: bool,
    requested: bool,
    who: str | None,
    since: str | None,
    logs: tuple[Path, ...],
    master: bool,
    reason: str | None,
    incident: bool,
) -> list[tuple[TenantKeys, Request]]:
    """Return which tenants' keys are to be rotated and why."""
    from ..keys.orchestrator import Request

    tenants = job.orchestrator.tenants(slugs or None, master=master)
    if requested:
        asked = [(tenant, tenant.request) for tenant in tenants if tenant.request is not None]
        return [(tenant, Request(f"requested: {request}"[:200], incident)) for tenant, request in asked]
    if who is not None:  # what leaked is the active version, whatever rotation is under way
        leaked = accessed(context, tenants, who, since, logs)
        return [(tenant, Request(reason or f"accessed by {who}"[:200], True)) for tenant in leaked]
    if reason is None:
        raise click.UsageError("--reason: why?")
    if master:
        tenants = [tenant for tenant in tenants if tenant.mode != "envelope"]
    return [(tenant, Request(reason, incident)) for tenant in tenants]


def _one_of(**given: object) -> None:
    names = {"SLUG": "SLUG", "every": "--all", "who": "--accessed-by"}
    if sum(map(bool, given.values())) != 1:
        raise click.UsageError(f"give one of {', '.join(names.get(name, f'--{name}') for name in given)}")
