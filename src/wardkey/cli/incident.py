"""``wardkey incident``: from what was lost to whom it reaches, and what follows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

import click

from ._context import Context, pass_context
from ._incident_acts import act_on
from ._output import details, emit, table

if TYPE_CHECKING:
    from ..incident.store import Incident

_NEW = click.Path(dir_okay=False, path_type=Path)
_id = click.argument("identity", metavar="ID", type=click.UUID)
_COLUMNS = ("id", "title", "state", "discovered_at", "losses", "tenants", "patients")
_LINES = ("at", "tenant", "who", "what", "about")
_ACTS = ("act", "tenant", "what", "why", "is_done")


class _Moment(click.ParamType[datetime]):
    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        from ..incident.losses import exact_moment

        try:
            return value if isinstance(value, datetime) else exact_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_MOMENT = _Moment()


@click.group()
def incident() -> None:
    """Count whom a loss reaches; assess, report and close an incident.

    Times are named with their zone, or as an age: 2026-03-01T08:30Z, 7d.
    """


def _loss(name: str, metavar: str, text: str) -> Callable[[Any], Any]:
    return click.option(f"--{name}", metavar=metavar, multiple=True, help=text)


@incident.command("open")
@click.argument("title")
@click.option("--discovered", type=_MOMENT, required=True, help="From when on clocks of notices run.")
@_loss("dump", "WHEN", "A dump or backup of that time.")
@_loss("token-file", "FILE", "Has the token that leaked; its SHA-256 is kept, the token is not.")
@_loss("password", "ROLE", "That of a login role, such as tenant_acme.")
@_loss("key", "SLUG:VERSION", "A version of a tenant's data key.")
@_loss("subject", "WHO", "A person's credential, by the subject of its tokens.")
@_loss("host", "ADDRESS", "A host, by its address in the log; `server`: that of the database.")
@click.option("--since", type=_MOMENT, help="From when on others may have used it; of all but dumps.")
@click.option("--until", type=_MOMENT, help="Until when; not given: it goes on.")
@click.option("--tenant", "slug", metavar="SLUG", help="Of one tenant; else wherever it is met.")
@click.option("--patients", metavar="TABLE", default="patients", show_default=True, help="A patient a row.")
@pass_context
def open_(
    context: Context, /, title: str, discovered: datetime, since: datetime | None, until: datetime | None,
    slug: str | None, patients: str, **named: tuple[str, ...],
) -> None:  # fmt: skip
    """Open an incident and print its id."""
    from ..incident import losses, store

    try:
        what = losses.parse(named | {"token": named.pop("token_file")}, since, until, slug)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with context.connect() as connection:
        made = store.open_(connection, title, discovered, what, patients)
    emit(context, {"id": made}, lambda: click.echo(made))


@incident.command("list")
@pass_context
def list_(context: Context) -> None:
    """List incidents, the last first."""
    from ..incident import store

    with context.connect() as connection:
        rows = store.every(connection)
    emit(context, rows, lambda: table(rows, _COLUMNS, empty="no incidents"))


@incident.command("scope")
@_id
@click.option("--keeper-directory", "keeper", metavar="DIR", type=click.Path(path_type=Path),
              help="Has release log and ledger; the embedded keeper's unless given.")  # fmt: skip
@click.option(
    "--patients-to", "output", metavar="FILE", type=_NEW, help="A new file, CSV: who is to be told."
)
@click.option("--act", "acts", is_flag=True, help="Rotate, revoke, give passwords; asks first.")
@click.option("--suspend", "suspends", is_flag=True, help="With --act: let nobody of these tenants in.")
@click.option("--yes", is_flag=True, help="With --act: do not ask.")
@pass_context
def scope(
    context: Context, /, identity: UUID, keeper: Path | None, output: Path | None, acts: bool, suspends: bool,
    yes: bool,
) -> int:  # fmt: skip
    """Count from the evidence whom an incident reaches.

    The last count is reported. Evidence: the audit logs, what is stored, the keeper's release log and
    ledger. With --act what is to be done is done, once each: run it again after an interruption.
    """
    from ..incident import scope as use

    with context.connect(autocommit=True) as connection:
        evidence = use.count(connection, identity, keeper or context.home.keeper, output)
    emit(context, evidence, lambda: _show(evidence))
    return act_on(context, identity, suspends=suspends, yes=yes) if acts else 0


def _show(evidence: dict[str, Any]) -> None:
    rows = [
        {**tenant, "keys": [f"{key['version']} {key['verdict']}" for key in tenant["keys"]]}
        for tenant in evidence["tenants"]
    ]
    table(rows, ("slug", "patients", "subjects", "classes", "keys"), empty="nobody is reached")
    click.echo(f"\n{evidence['patients']:,} patients; {len(evidence['untouched'])} tenants are untouched")
    for tenant in rows:
        click.echo(f"\n{tenant['slug']}")
        table(tenant["tables"], ("table", "rows_read", "rows_written", "rows_at_rest", "classes", "in_clear"))
        for key in evidence["tenants"][rows.index(tenant)]["keys"]:
            click.echo(f"key version {key['version']} {key['verdict']}: {key['reason']}")


def _load(context: Context, identity: UUID) -> Incident:
    from ..incident import store

    with context.connect() as connection:
        return store.load(connection, identity)


@incident.command("timeline")
@_id
@pass_context
def timeline(context: Context, identity: UUID) -> None:
    """Say what happened when, as the last scope has it."""
    from ..incident.timeline import timeline as use

    lines = use(_load(context, identity))
    emit(context, lines, lambda: table(lines, _LINES))


@incident.command("assess")
@_id
@click.option("--factor", type=click.IntRange(1, 4), help="Judge this one.")
@click.option("--low/--not-low", "is_low", default=None, help="Whether it makes a compromise improbable.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the report.")
@pass_context
def assess(
    context: Context, identity: UUID, factor: int | None, is_low: bool | None, reason: str | None
) -> None:
    """Show or judge the four factors of the assessment.

    Those of 45 CFR 164.402(2), with their evidence.
    """
    from ..incident import assess as use
    from ..incident import store

    if len({factor is None, is_low is None, reason is None}) > 1:
        raise click.UsageError("--factor, --low or --not-low, and --reason go together")
    if factor is not None and is_low is not None and reason is not None:
        with context.connect() as connection:
            store.judge(connection, identity, factor, is_low, reason)
    told = use.factors(_load(context, identity))
    emit(context, told, lambda: _show_factors(told))


def _show_factors(told: list[dict[str, Any]]) -> None:
    for factor in told:
        click.echo(f"\n{factor['question']}")
        for line in factor["evidence"]:
            click.echo(f"- {line}")
        judged = {None: "not judged yet", True: "low", False: "not low"}[factor["is_low"]]
        details({"judged": f"{judged}: {factor['reason']}" if factor["reason"] else judged})


@incident.command("report")
@_id
@click.option("--html", "page", metavar="FILE", type=_NEW, help="A new file: a page to print and sign.")
@click.option("--signed", metavar="FILE", type=_NEW, help="A new file: JSON, signed by the keeper.")
@pass_context
def report(context: Context, identity: UUID, page: Path | None, signed: Path | None) -> None:
    """Report on an incident, as a page or signed.

    Scope, assessment, clocks of notices, what is to be done, fields of OCR's breach portal.
    """
    from ..daemon.files import new_file
    from ..incident import report as use

    made = use.make(_load(context, identity))
    if page is not None:
        with new_file(page) as stream:
            stream.write(use.render(made).encode())
    if signed is not None:
        with new_file(signed) as stream:
            stream.write(use.sign(made, context.keeper_socket))
    emit(context, made, lambda: _show_report(made))


def _show_report(made: dict[str, Any]) -> None:
    click.echo(f"{made['incident']['title']}: {made['incident']['state']}\n")
    table(made["notices"], ("covered_entity", "section", "notice_to", "due", "days_left"), empty="no notices")
    click.echo()
    table(made["acts"], _ACTS, empty="nothing is to be done")


@incident.command("verify")
@click.argument("file", type=click.File("rb"))
@click.option("--public-key", metavar="KEY", help="In base64: whose signature it is to be.")
@pass_context
def verify(context: Context, file: BinaryIO, public_key: str | None) -> None:
    """Verify a signed report; needs no server."""
    import base64

    from ..incident import report as use

    made = use.verify(file.read(), (public_key and base64.b64decode(public_key)) or None)
    facts = {"ok": True, "incident": made["incident"]["id"], "made_at": made["made_at"]}
    emit(context, facts, lambda: details(facts))


@incident.command("close")
@_id
@click.option("--conclusion", type=click.Choice(["breach", "low-probability", "secured"]), required=True)
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in the report.")
@pass_context
def close(context: Context, identity: UUID, conclusion: str, reason: str) -> None:
    """Close an incident for good.

    Its conclusion: a breach; a low probability, where all four factors are judged low; secured, where the
    evidence shows that what went stayed sealed.
    """
    from ..incident import store

    with context.connect() as connection:
        store.close(connection, identity, conclusion, reason)
    emit(
        context, {"id": identity, "state": conclusion}, lambda: click.echo(f"{identity} closed: {conclusion}")
    )
