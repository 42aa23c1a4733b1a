"""The commands of ``wardkey audit`` about how long a log is kept: prune, hold, release, holds."""

from __future__ import annotations

from typing import Any

import click

from ._audit import log_id
from ._context import Context, pass_context
from ._output import FAILED, emit, note, table

__all__ = ["COMMANDS"]

_slug = click.argument("slug")
_matter = click.option("--matter", metavar="NAME", required=True, help="Names the hold: a case, a request.")
_reason = click.option("--reason", metavar="TEXT", required=True, help="Why: it stands in the log.")


@click.command("prune")
@click.option("--tenant", "slug", metavar="SLUG", help="Whose log; platform; or the id of one that is gone.")
@click.option("--all", "all_logs", is_flag=True, help="Every log, those of shredded and dropped tenants too.")
@click.option("--dry-run", is_flag=True, help="Change nothing, say what would go.")
@pass_context
def prune(context: Context, slug: str | None, all_logs: bool, dry_run: bool) -> int:
    """Drop the months of a log that are older than its retention.

    That is six years, or what ward.set('audit_retention', DAYS) says. The signed checkpoint they end with
    stays, and the log goes on from there; that it was pruned is an entry, which `verify` asks for. A log
    under legal hold is left as it is. For a timer: prune --all. What is to be kept longer, export before.
    """
    from ..audit import retention

    if (slug is not None) == all_logs:
        raise click.UsageError("name the --tenant, or --all")
    with context.connect(autocommit=True) as connection:
        if slug is not None:
            work = retention.plan if dry_run else retention.prune
            facts = [{"slug": slug, "dry_run": dry_run, **work(connection, log_id(connection, slug))}]
        else:
            facts = list(retention.prune_all(connection, lambda text: note(context, text), dry_run=dry_run))
    emit(context, facts, lambda: _show(facts, dry_run))
    return FAILED if any(each.get("failed") for each in facts) else 0


@click.command("hold")
@_slug
@_matter
@_reason
@pass_context
def hold(context: Context, slug: str, matter: str, reason: str) -> None:
    """Put a log under legal hold.

    Nothing of it is pruned, its tenant is neither shredded nor dropped, and no key is destroyed that opens
    values in it, until each of its holds is released. SLUG: also platform, or the id of one that is gone.
    """
    with context.connect() as connection:
        connection.execute("select ward.hold_audit(%s, %s, %s)", [slug, matter, reason])
    facts = {"slug": slug, "matter": matter, "held": True}
    emit(context, facts, lambda: click.echo(f"the log of {slug} is held: {matter}"))


@click.command("release")
@_slug
@_matter
@_reason
@pass_context
def release(context: Context, slug: str, matter: str, reason: str) -> None:
    """Take one legal hold off a log."""
    with context.connect() as connection:
        connection.execute("select ward.release_audit(%s, %s, %s)", [slug, matter, reason])
    facts = {"slug": slug, "matter": matter, "held": False}
    emit(context, facts, lambda: click.echo(f"the log of {slug} is held no more for: {matter}"))


@click.command("holds")
@pass_context
def holds(context: Context) -> None:
    """List legal holds."""
    from psycopg.rows import dict_row

    with context.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("select * from ward.audit_holds order by slug, matter")
        facts = cursor.fetchall()
    for each in facts:
        each["slug"] = each["slug"] or each["tenant_id"]
    emit(
        context,
        facts,
        lambda: table(facts, ("slug", "matter", "reason", "placed_by", "placed_at"), empty="no log is held"),
    )


def _show(facts: list[dict[str, Any]], dry_run: bool) -> None:
    gone = [
        {
            "log": each["slug"],
            "months": _months(each.get("months") or []),
            "entries": f"{each.get('entries', 0):,}",
            "goes_on_from": each.get("at"),
            "why_not_more": f"held: {', '.join(each['held'])}" if each.get("held") else each.get("why"),
        }
        for each in facts
        if each.get("months") or each.get("why") or each.get("held")
    ]
    heading = "would_go" if dry_run else "months"
    table(
        [{**row, heading: row["months"]} for row in gone],
        ("log", heading, "entries", "goes_on_from", "why_not_more"),
        empty="nothing is older than its retention",
    )


def _months(months: list[str]) -> str | None:
    if len(months) < 3:
        return ", ".join(months) or None
    return f"{months[0]} to {months[-1]}"


COMMANDS = (prune, hold, release, holds)
