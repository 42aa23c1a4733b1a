"""The commands of ``wardkey audit`` that answer a compliance officer: each asks a function of the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from ._audit import log_id, printable, report_facts, snapshot
from ._context import Context, pass_context
from ._output import console, details, emit, moment, table

if TYPE_CHECKING:
    import psycopg
    from wardkey_core.log.exporter import Period

    from ..audit.questions import Facts

__all__ = ["COMMANDS", "parse_period", "period", "record"]

_F = TypeVar("_F", bound=Callable[..., Any])
_tenant = click.option("--tenant", "slug", metavar="SLUG", required=True, help="Whose log.")


def period(command: _F) -> _F:
    """Give a command --from and --to."""
    command = click.option("--to", "end", metavar="WHEN", help="Entries before it.")(command)
    return click.option("--from", "begin", metavar="WHEN", help="Entries of that time and later.")(command)


def parse_period(begin: str | None, end: str | None, zone: tzinfo = UTC) -> Period:
    from wardkey_core.log.exporter import Period

    from ..keys.when import parse_moment

    def parse(option: str, text: str | None) -> datetime | None:
        try:
            return None if text is None else parse_moment(text, datetime.now(zone))
        except ValueError as error:
            raise click.UsageError(f"{option}: {error}") from None

    period = Period(parse("--from", begin), parse("--to", end))
    if period.begin and period.end and period.begin >= period.end:
        raise click.UsageError("--from is to be before --to")
    return period


def record(connection: psycopg.Connection[Any], tenant: UUID, kind: str, asked: Period, form: str) -> None:
    """Make an entry of the log about what was taken out of it, and by whom."""
    from psycopg.types.json import Jsonb

    from .tenant_leaving import operator

    begin, end = asked.texts
    detail = {"from": begin, "to": end, "format": form, "operator": operator()}
    connection.execute("select ward_internal.log_event(%s, %s, %s)", [tenant, kind, Jsonb(detail)])


def _ask(context: Context, slug: str, asked: Period, name: str, **values: object) -> list[dict[str, Any]]:
    """Return what the function ``name`` answers, or a query of these values."""
    from psycopg.rows import dict_row

    values |= {"p_from": asked.begin, "p_to": asked.end, "p_tenant": slug}
    given = ", ".join(f"{each} => %({each})s" for each in values)
    query = name if " " in name else f"select * from ward.{name}({given})"  # noqa: S608
    with context.connect(autocommit=True) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


def _account(
    context: Context, asked: Period, about: dict[str, str], columns: Sequence[str], empty: str
) -> None:
    """Print an accounting: what was asked, how far the answer reaches, the answer.

    Of a row, who read it; of a subject, all it did.
    """
    values = {f"p_{name}": value for name, value in about.items() if name != "tenant"}
    rows = _ask(context, about["tenant"], asked, "audit_acts", **values)
    if "row" in about:
        rows = [row for row in rows if row["operation"] == "read"]
    coverage = _ask(context, about["tenant"], asked, "audit_coverage", p_table=about.get("table"))
    (reach,) = [part for part in coverage if part["kind"] == "log"]
    levels = [part for part in coverage if part["kind"] == "level"]
    gaps = [part for part in coverage if part["kind"] == "gap"]
    queries = sum(int(part["detail"]) for part in coverage if part["kind"] == "queries")
    facts = {
        **about,
        "from": reach["begins"],
        "to": reach["ends"],
        "levels": [
            {"table": part["table_name"], "level": part["detail"], "from": part["begins"], "to": part["ends"]}
            for part in levels
        ],
        "gaps": [{"from": part["begins"], "to": part["ends"], "why": part["detail"]} for part in gaps],
        "queries": queries,
        "entries": rows,
    }

    def render() -> None:
        details(about | {"period": _span(reach)})
        for part in levels:
            click.echo(f"journal   {part['table_name']}: {_LEVELS[part['detail']]}, {_span(part)}")
        if not levels:
            click.echo("journal   each row read")
        for part in gaps:
            click.echo(f"GAP       reads may be missing, {_span(part)}: {printable(part['detail'] or '')}")
        if not gaps:
            click.echo("gaps      none")
        if queries:
            click.echo(f"queries   {queries} transactions; NULLs and what is not sealed are not told by row")
        click.echo()
        table([_readable(row) for row in rows], columns, empty=empty)

    emit(context, facts, render)


_LEVELS = {
    "row": "each row read",
    "statement": "statements that read, not which rows",
    "off": "READS ARE NOT JOURNALLED",
}


def _span(part: dict[str, Any]) -> str:
    return f"{moment(part['begins'])} to {moment(part['ends'])}"


def _show(context: Context, rows: list[dict[str, Any]], columns: Sequence[str], empty: str) -> None:
    for row in rows:
        for name in ("day", "score", "usual", "spread"):
            if name in row and context.json:
                row[name] = str(row[name]) if name == "day" else float(row[name])
    emit(context, rows, lambda: table([_readable(row) for row in rows], columns, empty=empty))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for the terminal; control characters are nobody's to send."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            shown[name] = printable(", ".join(f"{key}: {item}" for key, item in value.items()))
        elif isinstance(value, list):
            shown[name] = [printable(str(part)) for part in value]
        else:
            shown[name] = printable(value) if isinstance(value, str) else value
    return shown


@click.command("who-read")
@click.argument("table_name", metavar="TABLE")
@click.argument("row")
@_tenant
@period
@pass_context
def who_read(context: Context, /, slug: str, table_name: str, row: str, **bounds: str | None) -> None:
    """Say who read a row, when, which columns and what for.

    An accounting of disclosures (45 CFR 164.528), a line a statement: who-read patients 17. A key of
    several columns is a JSON array. A line without a row: rows were read, this one may be among them. The ids
    are those of entries, for `wardkey audit prove`. A table or row that neither database nor log know is an
    error.
    """
    asked = parse_period(bounds["begin"], bounds["end"])
    columns = ("at", "subject", "role", "purpose", "columns", "row_ids", "address", "application", "ids")
    about = {"tenant": slug, "table": table_name, "row": row}
    _account(context, asked, about, columns, "nobody read it, as far as the log tells")


@click.command("did")
@click.argument("subject")
@_tenant
@period
@pass_context
def did(context: Context, /, slug: str, subject: str, **bounds: str | None) -> None:
    """Say what a person did.

    SUBJECT is that of its tokens. A line a statement and table, with the ids of the first 20 rows and
    entries: for `wardkey audit prove`.
    """
    asked = parse_period(bounds["begin"], bounds["end"])
    columns = ("at", "operation", "table_name", "rows", "row_ids", "columns", "purpose", "address", "ids")
    about = {"tenant": slug, "subject": subject}
    _account(context, asked, about, columns, "nothing, as far as the log tells")


@click.command("refused")
@_tenant
@period
@pass_context
def refused(context: Context, /, slug: str, **bounds: str | None) -> None:
    """Say who was refused and why, and what was tampered with."""
    from ..audit.questions import REFUSALS

    rows = _ask(context, slug, parse_period(bounds["begin"], bounds["end"]), REFUSALS)
    columns = ("at", "operation", "subject", "database_role", "address", "application", "detail")
    _show(context, rows, columns, "nobody")


@click.command("key")
@click.argument("version", type=click.IntRange(1), required=False)
@_tenant
@period
@pass_context
def key(context: Context, /, slug: str, version: int | None, **bounds: str | None) -> None:
    """Say what happened to a tenant's key.

    Or to one VERSION: its life, and to whom it was released.
    """
    rows = _ask(
        context, slug, parse_period(bounds["begin"], bounds["end"]), "audit_of_key", p_version=version
    )
    _show(context, rows, ("at", "operation", "version", "who", "times", "until", "detail"), "nothing")


def zone(command: _F) -> _F:
    return click.option(
        "--zone",
        metavar="ZONE",
        default="UTC",
        show_default=True,
        help="Hours of this time zone: Europe/Berlin.",
    )(command)


def parse_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.UsageError(f"--zone: no time zone is called {printable(name)}") from None


@click.command("activity")
@_tenant
@period
@zone
@pass_context
def activity(context: Context, /, slug: str, zone: str, **bounds: str | None) -> None:
    """Draw who is active at which hour of the day.

    Rows read and written, and events.
    """
    from ..audit.questions import by_hour_of_day

    hours = parse_zone(zone)
    rows = _ask(context, slug, parse_period(bounds["begin"], bounds["end"], hours), "audit_activity")
    emit(context, rows, lambda: _draw(by_hour_of_day(rows, hours)))


def _draw(people: dict[str, list[int]]) -> None:
    from rich.text import Text

    if not people:
        click.echo("nobody")
        return
    most = max(max(hours) for hours in people.values()) or 1
    click.echo("".join(f"{hour:<4}" for hour in range(0, 24, 2)) + "     all  who")
    for name, hours in people.items():
        line = Text()
        for count in hours:
            shade = 0 if not count else 1 + round(3 * (count / most) ** 0.5)
            line.append(" ░▒▓█"[shade] * 2, style=("", "cyan", "cyan", "blue", "bold magenta")[shade])
        line.append(f"{sum(hours):>8,}  {printable(name)}")
        console().print(line, soft_wrap=True)


@click.command("anomalies")
@_tenant
@period
@click.option(
    "--score", type=click.FloatRange(1), default=5, show_default=True, help="How unusual it is to be."
)
@pass_context
def anomalies(context: Context, /, slug: str, score: float, **bounds: str | None) -> None:
    """Find days on which somebody read unusually much.

    How many rows is compared with the median of its other days (within 90 days, at least 5), in units of
    their median absolute deviation. Who has too few days is not judged.
    """
    from ..audit.questions import explain

    asked = parse_period(bounds["begin"], bounds["end"])
    rows = _ask(context, slug, asked, "audit_anomalies")
    rows = [row | {"explanation": explain(row)} for row in rows if row["score"] >= score]
    _show(context, rows, ("subject", "day", "rows", "usual", "score", "explanation"), "nothing unusual")


@click.command("report")
@_tenant
@period
@zone
@click.option(
    "--html", "output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), required=True,
    help="A new file.",
)  # fmt: skip
@pass_context
def report(context: Context, /, slug: str, output: Path, zone: str, **bounds: str | None) -> None:
    """Write a page of plots and tables, to read in a browser.

    It loads nothing, runs nothing, and holds no value and no row's id. The log is verified for it.
    Without --from it is about the last 30 days.
    """
    from ..audit.page import render
    from ..daemon.files import new_file

    hours = parse_zone(zone)
    asked = parse_period(bounds["begin"] or "30d", bounds["end"], hours)
    facts = _gather(context, slug, asked, hours)
    with new_file(output) as stream:
        stream.write(render(facts).encode())
    told = {"file": output, "entries": facts.entries, "log_is_good": facts.verified["ok"]}
    emit(context, told, lambda: details(told))


def _gather(context: Context, slug: str, asked: Period, hours: tzinfo) -> Facts:
    from ..audit import questions
    from ..audit.live import verify_live

    with context.connect(autocommit=True) as connection:
        tenant = log_id(connection, slug)
        record(connection, tenant, "log reported", asked, "html")
        with snapshot(connection):
            facts = questions.gather(connection, tenant, slug, asked, hours)
            facts.verified = report_facts(verify_live(connection, tenant))
    return facts


COMMANDS = (who_read, did, refused, key, activity, anomalies, report)
