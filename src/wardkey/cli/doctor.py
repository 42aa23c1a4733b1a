"""``wardkey doctor``: every invariant of the design, checked on a live server."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._context import Context, pass_context
from ._output import FINDINGS, emit, fail, wrap

if TYPE_CHECKING:
    from ..doctor import Finding, Problem

_SHOWN = 10
_STYLE = {"ok": "green", "info": "cyan", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--verbose", "-v", is_flag=True, help="Show also what is as it should be.")
@click.option(
    "--accept", is_flag=True, help="Take roles and registry as they are now for what they should be."
)
@click.option("--explain", metavar="CHECK", help="Print the page of a check, and do nothing else.")
@pass_context
def doctor(context: Context, verbose: bool, accept: bool, explain: str | None) -> int:
    """Check a live server against every invariant; changes nothing in it.

    For whatever is broken it names the statement or command that fixes it. Exit code 4 when something is
    broken (fail) or weaker than it should be (warn). It remembers roles of power and the registry's rows in
    doctor.json of the home: what is new at the next run and in no audit log, it finds until --accept.
    """
    from ..doctor import Server, diagnose, remember

    if explain:
        return _explain(context, explain)
    with context.connect() as connection:
        home = context.home if context.home.exists else None
        server = Server(connection, home, (home.path if home else _state_directory()) / "doctor.json")
        if accept:
            remember(server, accept=True)
        findings = list(diagnose(server))
        remember(server)
    emit(context, [asdict(finding) for finding in findings], lambda: _show(findings, verbose))
    return FINDINGS if any(finding.outcome in ("warn", "fail") for finding in findings) else 0


def _explain(context: Context, name: str) -> int:
    from ..doctor import checks
    from ..install import resources

    known = {check.name: check for members in checks().values() for check in members}
    if name not in known:
        fail(f"no check has the name {name}", "wardkey doctor --verbose shows all")
    check, page = known[name], resources.check_page(name)
    facts = {"check": name, "severity": check.severity, "holds": check.holds, "page": page}
    emit(context, facts, lambda: click.echo(f"{name} ({check.severity}): {check.holds}\n\n{page}", nl=False))
    return 0


def _state_directory() -> Path:
    """Return where a user's programs keep such files, for servers that are not of a home."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "wardkey"


def _show(findings: Sequence[Finding], verbose: bool) -> None:
    shown = [finding for finding in findings if finding.problems or verbose]
    width = max((len(finding.check) for finding in shown), default=0)
    for finding in shown:
        lines = [line for problem in finding.problems[:_SHOWN] for line in _lines(problem)]
        if (more := len(finding.problems) - _SHOWN) > 0:
            lines.append(f"  … and {more} more; --json shows all")
        first = wrap(f"{finding.outcome:<4} {finding.check:<{width}}  {finding.holds}", width + 7)
        text = "\n     ".join([first, *lines])
        click.secho(text, fg=_STYLE[finding.outcome], bold=finding.outcome == "fail")
    counts: Counter[str] = Counter(finding.outcome for finding in findings)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _STYLE if counts[outcome])
    click.echo(f"{len(findings)} checks: {summary}")
    if shown and not verbose:
        click.echo("why a check matters: wardkey doctor --explain CHECK")


def _lines(problem: Problem) -> list[str]:
    lines = [wrap(f"       {problem.object}: {problem.detail}", 9)[5:]]
    if problem.fix is None:
        return lines
    first, *more = problem.fix.splitlines()
    return [*lines, f"    fix: {first}{' … (--json shows all of it)' if more else ''}"]
