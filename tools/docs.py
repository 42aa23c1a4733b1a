"""What ``mkdocs`` adds to docs/: the home page, the references, heads of checks' pages, the list of rules.

The references are made of the code when the site is built: functions and views of schema ``ward`` of their
``comment on`` texts, commands of their help, errors of their classes, checks of the doctor's own list. So no
page repeats what the code says, and none can disagree with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from wardkey_core.administration import BY_SQLSTATE

from wardkey.cli import cli
from wardkey.doctor import Check, checks
from wardkey.install import resources
from wardkey.lint import FAMILIES
from wardkey.metrics import registry
from wardkey.monitoring import alerts

ROOT = Path(__file__).resolve().parents[1]
_COMMENT = re.compile(
    r"^comment on (function|view) (ward\.\w+(?:\([^)]*\))?) is\s+((?:'(?:[^']|'')*'\s*)+);", re.M
)
_FORMATS = (
    "envelope",
    "search",
    "journal",
    "wire",
    "log.canonical",
    "log.entry",
    "log.merkle",
    "log.checkpoint",
    "log.exportfile",
)
_BY_FACES = re.compile(r"called by itself|Faces call it|for ward\.raise_refusal|^as ward\.unseal,")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made of the code."""
    made = {
        "index.md": at_the_top("README.md"),
        **{name: at_the_top(name) for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")},
        "reference/functions.md": functions(),
        "reference/commands.md": commands(),
        "reference/errors.md": errors(),
        "reference/metrics.md": metrics(),
        "checks/index.md": list_of_checks(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Add what the doctor says to the page of a check, the modules' texts to that of formats."""
    path = Path(page.file.src_uri)
    if path == Path("formats.md"):
        return markdown + formats()
    if path == Path("lint.md"):
        return markdown + list_of_rules()
    if path == Path("runbooks/index.md"):
        return markdown + runbooks()
    if path.parent == Path("rules"):
        return re.sub(r"\{\d\}", "…", markdown)
    if path.parent != Path("checks") or path.stem == "index":
        return markdown
    theme, check = all_checks()[path.stem]
    return f"{head(theme, check)}\n{markdown}\n{query(check)}"


def at_the_top(name: str) -> str:
    """Return a page of the repository's top, with its links seen from docs/."""
    return (ROOT / name).read_text("utf-8").replace("(docs/", "(")


def all_checks() -> dict[str, tuple[str, Check]]:
    """Return the theme and the check of each name."""
    return {check.name: (theme, check) for theme, members in checks().items() for check in members}


def head(theme: str, check: Check) -> str:
    return f"# {check.name}\n\n*{theme}, {check.severity}.* The invariant: **{check.holds}.**\n"


def query(check: Check) -> str:
    if not isinstance(check.look, str):
        return ""
    return f"\n## The query\n\n```sql\n{check.look}\n```\n"


def formats() -> str:
    """Return the texts of the modules that write what is stored or sent."""
    parts = []
    for name in _FORMATS:
        text = import_module(f"wardkey_core.{name}").__doc__ or ""
        parts.append(f"\n## wardkey_core.{name}\n\n```text\n{text.strip()}\n```\n")
    return "".join(parts)


def runbooks() -> str:
    """Return a table of all alerts, each with its page."""
    rows = (f"| [{one.name}]({one.page}.md) | {one.severity} | {one.summary} |" for one in alerts.every())
    return "\n".join(["| alert | severity | |", "|---|---|---|", *rows, ""])


def metrics() -> str:
    """Return all metrics, those of tenants and those of the platform, as their registry has them."""
    lines = [
        "# Metrics",
        "",
        "In the form of OpenMetrics; [Metrics](../operations/metrics.md) says who may read which.",
    ]
    for title, is_of_tenants in (("Of each tenant", True), ("Of the platform", False)):
        lines += ["", f"## {title}", "", "| metric | kind | label | what it says |", "|---|---|---|---|"]
        for metric in registry.every():
            if metric.is_of_tenants == is_of_tenants:
                name = metric.name + ("_total" if metric.kind == "counter" else "")
                label = f"{metric.label}: {', '.join(metric.labels)}" if metric.label else ""
                lines.append(f"| `{name}` | {metric.kind} | {label} | {metric.text} |")
    return "\n".join(lines) + "\n"


def list_of_checks() -> str:
    """Return the page that lists every check of ``wardkey doctor``."""
    lines = ["# Checks", "", (ROOT / "docs/checks/head.txt").read_text("utf-8")]
    for theme, members in checks().items():
        lines += ["", f"## {theme}", "", "| check | severity | invariant |", "|---|---|---|"]
        lines += [f"| [{one.name}]({one.name}.md) | {one.severity} | {one.holds} |" for one in members]
    return "\n".join(lines)


def list_of_rules() -> str:
    """Return the table of the rules of ``wardkey lint``."""
    lines = []
    for family, members in FAMILIES.items():
        lines += ["", f"### {family}", "", "| rule | | severity | finds |", "|---|---|---|---|"]
        for one in members:
            link = f"[{one.id}](rules/{one.id}.md)"
            lines.append(f"| {link} | {one.name} | {one.severity} | {_cell(one.finds)} |")
    return "\n".join(lines)


def functions() -> str:
    """Return the reference of schema ward, by who may call what."""
    script = next(text for name, text in resources.extension_files().items() if name.count("--") == 1)
    manifest = resources.manifest()
    for_tenants = {
        name
        for kind, name, role, privilege in manifest["grants"]
        if (kind, role, privilege) == ("function", "ward_tenant", "EXECUTE")
    }
    sections: dict[str, list[str]] = {
        "Functions for tenants": [],
        "Functions for superusers": [],
        "Views for superusers": [],
        "Called by faces": [],
    }
    for kind, name, quoted in _COMMENT.findall(script.decode()):
        text = "".join(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", quoted))
        if kind == "view":
            section, declared = "Views for superusers", name
        else:
            of_faces = _BY_FACES.search(text)
            section = "Functions for tenants" if name in for_tenants else "Functions for superusers"
            section = "Called by faces" if of_faces else section
            declared = _declared(manifest["functions"][name]["statement"])
        sections[section].append(
            f"### {name.partition('(')[0]}\n\n```sql\n{declared}\n```\n\n{_sentence(text)}\n"
        )
    parts = [f"## {heading}\n\n" + "\n".join(sorted(members)) for heading, members in sections.items()]
    return "# Functions and views\n\n" + "\n".join(parts)


def _declared(statement: str) -> str:
    """Return name, parameters and result as they are declared."""
    text = " ".join(statement.split()).replace("( ", "(").replace(" )", ")")
    return re.sub(r"^create or replace function (.*?) language .*$", r"\1", text)


def _sentence(text: str) -> str:
    # What tags look like in comments are placeholders of SQL; names with underscores are code.
    text = re.sub(r"(?<![\w`])((?:ward(?:_\w+)?\.)?p?[a-z]+_\w+|ward\.\w+)", r"`\1`", text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def commands() -> str:
    """Return the reference of the command line: the help of every command, as a terminal shows it."""
    parts = ["# Commands\n\nAll of them take `--home`, `--dsn`, `--keeper` and `--json`.\n"]
    for path, command in walk(cli):
        context = click.Context(command, info_name=f"wardkey {' '.join(path)}", terminal_width=80)
        level = "##" if len(path) == 1 else "###"
        parts.append(f"{level} wardkey {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command below ``group`` with the words that call it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None  # noqa: S101 — it was listed
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))


def errors() -> str:
    """Return the table of SQLSTATEs."""
    lines = [
        "# Errors",
        "",
        "Errors of wardkey have SQLSTATEs of class WK, a message without values, and a hint that names the",
        "fix. `wardkey.errors` has a class for each. Other errors are PostgreSQL's own.",
        "",
        "| SQLSTATE | class | message | hint |",
        "|---|---|---|---|",
    ]
    for sqlstate, cls in sorted(BY_SQLSTATE.items()):
        # Where the message names the object, the class says what it is about.
        said = cls.default_message if "default_message" in vars(cls) else cls.__doc__ or ""
        hint = cls.default_hint or "names the fix in the case"
        lines.append(f"| {sqlstate} | `{cls.__name__}` | {_cell(said)} | {_cell(hint)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
