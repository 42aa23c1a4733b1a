"""``wardkey lint``: rules over SQL files, migrations and SQL in Python, without a server."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import FINDINGS, USAGE, emit, fail, note, wrap

if TYPE_CHECKING:
    from ..lint import Report

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FORMATS = ("text", "json", "sarif", "github", "junit")
_STYLE = {"error": "red", "warning": "yellow"}


@click.command()
@click.argument("paths", metavar="PATH…", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", help="How to say it.")
@click.option("--baseline", type=_FILE, help="Leave out the findings that this file has.")
@click.option(
    "--write-baseline",
    "written",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all findings there, as the baseline.",
)
@click.option("--models", type=_FILE, help="Tables of a live database: wardkey table list --json")
@click.option("--without", multiple=True, metavar="RULE", help="Leave out a rule; may be repeated.")
@click.option("--explain", metavar="RULE", help="Print the page of a rule, and do nothing else.")
@pass_context
def lint(
    context: Context,
    paths: tuple[Path, ...],
    form: str,
    baseline: Path | None,
    written: Path | None,
    models: Path | None,
    without: tuple[str, ...],
    explain: str | None,
) -> int:
    """Check SQL, migrations and SQL in Python against the rules of wardkey, offline.

    Of directories it reads all .sql and .py. Exit code 4 when there is a finding, also that a file cannot be
    read; 2 when there is nothing to read. A comment ignores a finding: -- wardkey: ignore WL304 because …
    """
    if explain:
        return _explain(context, explain)
    report = _report(paths, models, baseline, without)
    if written:
        return _write(context, written, report)
    _print(context, report, "json" if context.json else form)
    return FINDINGS if report.findings else 0


def _explain(context: Context, name: str) -> int:
    from ..lint import RULES

    rule = next((one for one in RULES.values() if name.lower() in (one.id.lower(), one.name)), None)
    if rule is None:
        fail(f"no rule has the name {name}", f"rules are {min(RULES)} to {max(RULES)}, see the documentation")
    facts = {"rule": rule.id, "name": rule.name, "severity": rule.severity, "page": rule.page}
    emit(context, facts, lambda: click.echo(rule.page, nl=False))
    return 0


def _report(
    paths: tuple[Path, ...], models: Path | None, baseline: Path | None, without: tuple[str, ...]
) -> Report:
    try:
        from ..lint import files_of, lint, read_baseline
    except ModuleNotFoundError as error:
        fail(f"lint needs {error.name}", "pip install 'wardkey[lint]'")
    files = files_of(paths)
    if not files:
        fail("there is nothing to read", "name files, or directories with .sql or .py in them", USAGE)
    return lint(files, models, read_baseline(baseline) if baseline else None, without)


def _write(context: Context, file: Path, report: Report) -> int:
    from ..lint import write_baseline

    write_baseline(file, report.findings)
    facts = {"baseline": str(file), "findings": len(report.findings)}
    emit(context, facts, lambda: click.echo(f"{file}: {len(report.findings)} findings"))
    return 0


def _print(context: Context, report: Report, form: str) -> None:
    from ..lint import FORMATS

    if form != "text":
        click.echo(FORMATS[form](report))
        return
    for one in report.findings:
        head = f"{one.path}:{one.line}: {one.rule.severity} {one.rule.id} {one.rule.name}"
        click.secho(head, fg=_STYLE[one.rule.severity])
        click.echo(wrap(f"  {one.message}", 2) + f"\n    fix: {one.fix}")
    counts: Counter[str] = Counter(one.rule.severity for one in report.findings)
    told = ", ".join(f"{counts[severity]} {severity}s" for severity in _STYLE)
    click.echo(f"{len(report.files)} files: {told}")
    for path, line, text in report.notes:
        note(context, f"note: {path}:{line}: {text}")
    if report.findings:
        click.echo("why a rule matters: wardkey lint --explain RULE")
