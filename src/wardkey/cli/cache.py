"""``wardkey cache``: what clients cache in Redis. ``wardkey up`` starts the invalidator."""

from __future__ import annotations

import sys
from typing import Any

import click
from psycopg.rows import dict_row

from ._context import Context, pass_context
from ._output import UNREACHABLE, details, emit, fail, table

__all__ = ["cache"]

_COLUMNS = ("slug", "ttl", "phi", "decided_by", "decided_at")
_PHI = {True: "journalled", False: "refused"}


@click.group()
def cache() -> None:
    """Let clients cache in Redis, sealed, a user per tenant.

    Redis sees no plaintext, and each tenant's user there reaches its own values only. What applications call
    is `wardkey.cache`.
    """


@cache.command("use")
@click.argument("url", metavar="redis://HOST:PORT")
@pass_context
def use(context: Context, url: str) -> None:
    """Cache in the Redis at this URL.

    redis://, rediss:// (TLS) or unix://, with USER:PASSWORD@ if Redis wants them; Redis 7 or newer, with
    nothing else in it. Its user `default` is turned off; one for the invalidator and one for each tenant are
    made. Clients get the URL without user and password.
    """
    from ..cache import config, users
    from ..cache.invalidator import owner_of

    invalidator = context.cluster.invalidator
    configuration = config.parse(url, invalidator.configuration())
    with context.connect(autocommit=True) as connection:
        users.join(configuration, owner_of(connection)).close()
        context.home.make_directories()
        invalidator.configure(configuration)
        connection.execute("select ward.set_cache(%s)", [configuration.public_url])
    facts = {"url": configuration.public_url, "started": context.cluster.restart_invalidator()}
    then = "invalidator started" if facts["started"] else "start the invalidator: wardkey up"
    emit(context, facts, lambda: click.echo(f"clients may cache at {facts['url']}\n{then}"))


@cache.command("show")
@pass_context
def show(context: Context) -> None:
    """Show where clients cache."""
    facts = _state(context)
    if facts is None:
        fail("there is no cache", "wardkey cache use redis://HOST:PORT")
    emit(context, facts, lambda: details(facts))


@cache.command("off")
@pass_context
def off(context: Context) -> None:
    """Cache no more.

    Tenants' users in Redis go; what is in it opens for nobody and expires within minutes.
    """
    from ..cache import users

    invalidator = context.cluster.invalidator
    configuration = invalidator.configuration()
    with context.connect(autocommit=True) as connection:
        connection.execute("select ward.set_cache(null)")
    invalidator.configure(None)
    context.cluster.restart_invalidator()
    if configuration:
        users.leave(configuration)
    text = "clients cache no more" if configuration else "there was no cache"
    emit(context, {"was_configured": configuration is not None}, lambda: click.echo(text))


@cache.command("status")
@pass_context
def status(context: Context) -> int:
    """Say whether the invalidator is at work, and what is wrong. Exit code 3: it is not."""
    from ..cache.lock import is_at_work

    with context.connect(autocommit=True) as connection:
        at_work = is_at_work(connection)
    told = (context.cluster.invalidator.status() if context.dsn is None else None) or {}
    facts = {"at_work": at_work, "url": (_state(context) or {}).get("url")}
    facts |= {name: told.get(name) for name in ("trouble", "tenants", "marked", "at")}
    emit(context, facts, lambda: details(facts))
    return 0 if at_work and not facts["trouble"] else UNREACHABLE


@cache.command("policy")
@click.argument("slug", required=False)
@click.option("--ttl", type=click.IntRange(1, 300), help="Seconds that a value is cached at most.")
@click.option(
    "--phi",
    type=click.Choice([*_PHI.values()]),
    help="Of what was opened from sealed columns: nothing, or each hit is in the log as reads.",
)
@pass_context
def policy(context: Context, slug: str | None, ttl: int | None, phi: str | None) -> None:
    """Set or show what clients may cache of a tenant.

    Without SLUG those of all tenants are shown. A tenant without a policy has 300 seconds, and nothing that
    was sealed.
    """
    if slug is None and (ttl or phi):
        fail("a policy is a tenant's", "name the tenant: wardkey cache policy SLUG --ttl 60", 2)
    with context.connect() as connection:
        rows = _policies(connection, slug)
        if slug is not None and (ttl or phi or not rows):
            now = rows[0] if rows else {"ttl": 300, "phi": "refused"}
            values = [slug, ttl or now["ttl"], (phi or now["phi"]) == "journalled"]
            connection.execute("select ward.set_cache_policy(%s, %s, %s)", values)
            rows = _policies(connection, slug)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="there are no tenants"))


@cache.command("flush")
@click.argument("slug", required=False)
@pass_context
def flush(context: Context, slug: str | None) -> None:
    """Make what clients have cached of a tenant useless, or of all."""
    with context.connect() as connection:
        connection.execute("select ward.flush_cache(%s)", [slug])
    emit(context, {"flushed": slug or "all"}, lambda: click.echo(f"flushed: {slug or 'all tenants'}"))


@cache.command("run")
@click.option("--status", "status_file", metavar="FILE", help="Where to tell how it is.")
@pass_context
def run(context: Context, status_file: str | None) -> int:
    """Work in the foreground until SIGTERM or Ctrl-C.

    For a server of your own; what `wardkey cache use` wrote into the home says where Redis is. One
    invalidator works for a database; a second one waits.
    """
    from ..cache.__main__ import SERVICE

    arguments = ["--dsn", context.admin_dsn]
    arguments += ["--config", str(context.cluster.invalidator.configuration_file)]
    if status_file:
        arguments += ["--status", status_file]
    sys.stdout.flush()
    return SERVICE.main(arguments)


def _state(context: Context) -> dict[str, Any] | None:
    with context.connect(autocommit=True) as connection:
        query = "select url, at from ward_internal.cache_state"
        return connection.cursor(row_factory=dict_row).execute(query).fetchone()


def _policies(connection: Any, slug: str | None) -> list[dict[str, Any]]:
    query = "select * from ward.cache where %(slug)s::text is null or slug = %(slug)s order by slug"
    rows = connection.cursor(row_factory=dict_row).execute(query, {"slug": slug}).fetchall()
    return [row | {"phi": _PHI[row["phi"]]} for row in rows]
