"""``wardkey lint``: rules over SQL files, Alembic revisions and SQL in Python, without a server.

A rule is a function in the module of its family below ``rules``, and a page in docs/rules with its name,
severity, message and fix, and with examples that are run as tests. All files are read before the first rule
looks: a table may be protected in another file than the one that makes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ._baseline import Baseline, InputError, read_baseline, without_known, write_baseline
from ._ignore import apply
from ._model import Project
from ._python import of_python
from ._rule import Finding, Rule, filled
from ._sql import Unreadable, bodies, of_psql, statements
from .formats import FORMATS
from .rules import BY_TYPE, FAMILIES, RULES
from .rules.reading import UNPARSABLE

__all__ = [
    "FAMILIES",
    "FORMATS",
    "RULES",
    "Baseline",
    "Finding",
    "InputError",
    "Report",
    "Rule",
    "files_of",
    "lint",
    "lint_texts",
    "read_baseline",
    "write_baseline",
]

_PASSED = {"__pycache__", "node_modules", "build", "dist", "site-packages"}


@dataclass(frozen=True, slots=True)
class Report:
    """``notes`` (path, line, text) say what was passed over; they are no findings."""

    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    notes: tuple[tuple[str, int, str], ...]


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files named, and those of SQL and Python below the directories named."""
    files: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        for directory, below, names in os.walk(path):
            below[:] = sorted(name for name in below if name not in _PASSED and name[0] != ".")
            files |= {Path(directory, name): None for name in sorted(names) if name.endswith((".sql", ".py"))}
    return list(files)


def lint(
    files: Sequence[Path],
    models: Path | None = None,
    baseline: Baseline | None = None,
    without: Iterable[str] = (),
) -> Report:
    """Lint files; ``models`` is what ``wardkey table list --json`` has printed of a live database."""
    texts: dict[str, str] = {}
    undecoded = []
    for file in files:
        try:
            texts[file.as_posix()] = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            undecoded.append(file.as_posix())
    report = lint_texts(texts, models.read_text("utf-8") if models else None, without, undecoded)
    return replace(report, findings=without_known(report.findings, baseline)) if baseline else report


def lint_texts(
    texts: Mapping[str, str],
    models: str | None = None,
    without: Iterable[str] = (),
    undecoded: Sequence[str] = (),
) -> Report:
    """Lint texts by the names of their files: ``.py`` is Python, all else SQL."""
    project = Project()
    if models is not None:
        try:
            project.model.read_list(models)
        except (ValueError, KeyError, TypeError):
            raise InputError("the list of models is not what wardkey table list --json prints") from None
    project.unreadable += [(path, 1, "it is not UTF-8") for path in undecoded]
    for path, text in texts.items():
        (_read_python if path.endswith(".py") else _read_sql)(project, path, text.replace("\r\n", "\n"))
    project.model.read(project)
    for statement in list(project.statements):
        for inner in bodies(statement, project):
            if isinstance(inner, Unreadable):
                note = f"the body is passed over: {inner}"
                project.notes.append((statement.path, statement.line_at(None), note))
            else:
                project.add((inner,))
    findings = dict.fromkeys((*_unparsable(project), *_look(project)))
    settled = [one for one in apply(findings, texts) if one.rule.id not in set(without)]
    return Report(
        (*texts, *undecoded),
        tuple(sorted(settled, key=lambda one: (one.path, one.line, one.rule.id, one.message))),
        tuple(sorted(project.notes)),
    )


def _read_sql(project: Project, path: str, text: str) -> None:
    plain = of_psql(text)
    for one in statements(plain, path):
        if isinstance(one, Unreadable):
            project.unreadable.append((path, plain.count("\n", 0, one.place) + 1, str(one)))
        else:
            project.add((one,))


def _read_python(project: Project, path: str, text: str) -> None:
    def pass_over(line: int, why: str) -> None:
        project.notes.append((path, line, why))

    try:
        project.add(of_python(text, path, pass_over))
    except (SyntaxError, ValueError) as error:
        project.unreadable.append((path, getattr(error, "lineno", None) or 1, "it is not Python"))


def _unparsable(project: Project) -> Iterator[Finding]:
    for path, line, why in project.unreadable:
        mark = sha256(f"{path}\0{why}".encode()).hexdigest()[:16]
        yield Finding(UNPARSABLE, path, line, line, filled(UNPARSABLE.message, why), UNPARSABLE.fix, mark)


def _look(project: Project) -> Iterator[Finding]:
    for statement in project.statements:
        for kind, nodes in statement.nodes.items():
            for rule in BY_TYPE.get(kind, ()):
                for node in nodes:
                    for one in rule.look(node, statement, project):
                        yield Finding.of(rule, statement, one)
