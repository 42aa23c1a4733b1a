"""``wardkey up``, ``down``, ``status``, ``logs`` and ``psql``: the embedded server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from . import service
from ._claims import claims_option
from ._context import Context, pass_context
from ._output import UNREACHABLE, emit, fail, note
from .kms import choice_options, make_choice, use_for_cell

if TYPE_CHECKING:
    from ..embedded import Status

_LOGS = ("postgres", "keeper", "scribe", "publisher", "invalidator", "metrics", "supervisor")
ROLES = ("SUPER_ADMIN", "ADMIN", "EVALUATOR", "ANALYST", "VIEWER")


@click.command()
@click.option("--kms", "uri", metavar="URI", help="Use this KMS, as with: wardkey kms use URI")
@click.option(
    "--region",
    "served",
    metavar="REGION",
    multiple=True,
    help="Region whose keys the keeper serves, such as eu-de; the first is that of new tenants.",
)
@choice_options
@pass_context
def up(context: Context, /, uri: str | None, served: tuple[str, ...], **options: Any) -> None:
    """Start the private PostgreSQL, the keeper and the scribe, made first if missing.

    With Kafka configured (`wardkey kafka use`) the publisher too, with a cache (`wardkey cache use`) the
    invalidator, and the metrics service once somebody has a token for it (`wardkey metrics token`). Running
    it again does no harm: it starts what does not run and repairs what a crash left.
    """
    from ..embedded import Cluster

    if uri is not None:
        use_for_cell(context, make_choice(uri, options))
    elif any(options.values()):
        raise click.UsageError("options for a KMS go with --kms URI")
    status = Cluster(context.home, regions=served, say=lambda text: note(context, text)).start()
    emit(context, _facts(status), lambda: _show(status))


@click.command()
@pass_context
def down(context: Context) -> None:
    """Stop PostgreSQL and all that runs beside it; the data stays."""
    stopped = context.cluster.stop()
    text = "stopped" if stopped else "nothing was running"
    emit(context, {"home": context.home.path, "stopped": stopped}, lambda: click.echo(text))


@click.command()
@pass_context
def status(context: Context) -> int:
    """Say what runs, where, and for how long. Exit code 3 unless all of it runs.

    With --dsn the services of systemd, where there are some.
    """
    if context.dsn and (services := service.states()):
        return service.show(context, services)
    status = context.cluster.status()
    backup = _last_backup(context) if status.dsn else None
    emit(context, {**_facts(status), "backup": backup}, lambda: _show(status, backup))
    return 0 if status.running else UNREACHABLE


@click.command()
@click.option("-n", "lines", type=click.IntRange(1), default=40, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what comes.")
@click.option("--only", type=click.Choice(_LOGS), help="One of the logs.")
@pass_context
def logs(context: Context, lines: int, follow: bool, only: str | None) -> None:
    """Show the logs of PostgreSQL and of all that runs beside it.

    They hold no data, parameter or key.
    """
    import subprocess

    home = context.home
    files = [home.log / f"{name}.log" for name in _LOGS if only in (None, name)]
    if not home.exists:
        fail(f"there is no server in {home.path}", "make one: wardkey up", UNREACHABLE)
    follow_option = ["-F"] if follow else []
    subprocess.run(["tail", *follow_option, f"--lines={lines}", "--", *map(str, files)], check=True)


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--tenant", metavar="SLUG", help="Inside this tenant's ward, as its login role.")
@click.option("--subject", metavar="WHO", help="Who you are, for the context (with --tenant).")
@click.option("--role", type=click.Choice(ROLES, case_sensitive=False), default="ADMIN", show_default=True)
@claims_option
@click.argument("arguments", metavar="[PSQL ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@pass_context
def psql(
    context: Context,
    /,
    tenant: str | None,
    subject: str | None,
    role: str,
    claims: dict[str, str],
    arguments: tuple[str, ...],
) -> None:
    """Open psql, as superuser or inside a tenant's ward.

    With --tenant it logs in with a token of the embedded issuer, which lasts 15 minutes. Anything else goes
    to psql: wardkey psql --tenant acme --subject me -c 'select count(*) from patients'
    """
    from ._psql import run_psql

    bindir = str(context.cluster.software.bindir) if context.dsn is None else None
    if tenant is None:
        run_psql(context.admin_dsn, arguments, bindir=bindir)
    if subject is None:
        raise click.UsageError("--tenant needs --subject: who are you?")
    dsn, token = tenant_login(context, tenant, subject, role, claims)
    run_psql(dsn, arguments, bindir=bindir, token=token, prompt=tenant)


def tenant_login(
    context: Context,
    slug: str,
    subject: str,
    role: str,
    claims: dict[str, str],
    token: str | None = None,
) -> tuple[str, str]:
    """Return the DSN of a tenant's login role, and ``token``, else one of the embedded issuer for them."""
    from psycopg.conninfo import make_conninfo

    from ..daemon import sessions
    from ..embedded.issuer import embedded_issuer
    from ..identity import issuers

    with context.connect() as connection:
        tenant = issuers.tenant_id(connection, slug)
        if token is None:
            issuer, _ = embedded_issuer(connection, context.home)
            token = issuer.sign_token(tenant, subject, role, further=claims)
    user = f"tenant_{slug}"
    if context.dsn is not None:
        return make_conninfo(context.dsn, user=user, password=None), token
    dsn = context.cluster.dsn(user=user)
    with sessions.connect(dsn, "wardkey") as trial:  # psql would only print a refusal and go on
        trial.execute("select ward.login(%s)", [token])
    return dsn, token


def _last_backup(context: Context) -> dict[str, Any] | None:
    """Return what the database remembers of its newest backup; that it has none is a fact, too."""
    from ..backup.remembered import last
    from ..errors import WardError

    try:
        with context.connect() as connection:
            return last(connection) or {"made_at": None, "drilled_at": None, "drill_is_good": None}
    except WardError:  # it starts, or stops
        return None


def _facts(status: Status) -> dict[str, Any]:
    return {
        "home": status.home,
        "running": status.running,
        "made": status.made,
        "dsn": status.dsn,
        "port": status.port,
        "socket_directory": status.socket_directory,
        "supervisor": {"pid": status.supervisor_pid, "seconds": status.supervisor_seconds},
        "restarts": status.restarts,
        "postgres": {"pid": status.postgres_pid, "seconds": status.postgres_seconds},
        "keeper": {"pid": status.keeper_pid, "seconds": status.keeper_seconds, **(status.keeper or {})},
        "scribe": {**(status.scribe or {}), "pid": status.scribe_pid, "seconds": status.scribe_seconds},
        "publisher": {
            **(status.publisher or {}),
            "configured": status.publishes,
            "pid": status.publisher_pid,
            "seconds": status.publisher_seconds,
        },
        "invalidator": {
            **(status.invalidator or {}),
            "configured": status.caches,
            "pid": status.invalidator_pid,
            "seconds": status.invalidator_seconds,
        },
        "metrics": {
            "port": status.metrics_port,
            "pid": status.metrics_pid,
            "seconds": status.metrics_seconds,
        },
    }


def _show(status: Status, backup: Mapping[str, Any] | None = None) -> None:
    click.echo(f"home        {status.home}")
    if not status.made:
        click.echo("            not made yet: wardkey up")
        return
    for name, pid, seconds in (
        ("PostgreSQL", status.postgres_pid, status.postgres_seconds),
        ("supervisor", status.supervisor_pid, status.supervisor_seconds),
        ("keeper", status.keeper_pid, status.keeper_seconds),
        ("scribe", status.scribe_pid, status.scribe_seconds),
    ):
        click.echo(f"{name:<12}{_running(pid, seconds)}{_restarted(status.restarts.get(name))}")
    for trouble in (*(status.scribe or {}).get("warnings", ()), (status.scribe or {}).get("trouble")):
        if trouble:
            click.echo(f"            {trouble}")
    for name, is_used, pid, seconds, told in (
        ("publisher", status.publishes, status.publisher_pid, status.publisher_seconds, status.publisher),
        (
            "invalidator",
            status.caches,
            status.invalidator_pid,
            status.invalidator_seconds,
            status.invalidator,
        ),
    ):
        if is_used:
            click.echo(f"{name:<12}{_running(pid, seconds)}{_restarted(status.restarts.get(name))}")
            if trouble := (told or {}).get("trouble"):
                click.echo(f"            {trouble}")
    if status.metrics_port is not None:
        restarted = _restarted(status.restarts.get("metrics"))
        click.echo(f"metrics     {_running(status.metrics_pid, status.metrics_seconds)}{restarted}")
        click.echo(f"            http://127.0.0.1:{status.metrics_port}/metrics")
    click.echo(f"listens     127.0.0.1:{status.port} and {status.socket_directory}")
    if backup:
        click.echo(f"backup      {_age(backup)}")
    if status.dsn:
        click.echo(f"DSN         {status.dsn}")


def _age(backup: Mapping[str, Any]) -> str:
    """Say how old the newest backup is, and whether a drill has opened it."""
    if (made_at := backup["made_at"]) is None:
        return "none yet: wardkey backup DIR --recipient age1…"
    old = timedelta(seconds=int((datetime.now(UTC) - made_at).total_seconds()))
    tried = {None: "no drill of it", True: "proven to open", False: "did NOT open in the drill"}
    return f"{old} old, {tried[backup['drill_is_good']]}"


def _running(pid: int | None, seconds: float | None) -> str:
    if pid is None or seconds is None:
        return "not running"
    return f"running for {timedelta(seconds=int(seconds))}, process {pid}"


def _restarted(seen: Mapping[str, Any] | None) -> str:
    """Say how often the supervisor has started it again, and why last."""
    if not seen or "last_exit" not in seen:
        return ""
    times = "once" if seen["restarts"] == 1 else f"{seen['restarts']} times"
    return f", restarted {times}, last end {seen['ended_at']}: {seen['last_exit']}"
