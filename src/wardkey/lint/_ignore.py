"""Comments that ignore a finding: ``-- wardkey: ignore WL304 because the desk searches by city``.

In Python they begin with ``#``. Such a comment stands on the finding's line, or alone on the lines above it
or above its statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from ._rule import Finding, Rule, filled
from .rules.reading import IGNORE_OF_NOTHING, IGNORE_WITHOUT_REASON

__all__ = ["apply"]

_COMMENT = re.compile(
    r"^(?P<before>.*?)(?P<mark>--|#)\s*wardkey:\s*ignore\b(?P<rules>[\s,]*(?:WL\d{3}[\s,]*)*)(?P<reason>because\s+\S.*)?",
    re.MULTILINE,
)


@dataclass(slots=True)
class _Ignore:
    path: str
    line: int
    lines: set[int]
    rules: list[str]
    has_reason: bool
    is_comment: bool
    used: set[str] = field(default_factory=set)


def apply(findings: Iterable[Finding], texts: Mapping[str, str]) -> Iterator[Finding]:
    """Yield the findings that no comment ignores, and what is wrong with comments."""
    ignores = {path: list(_comments(path, text)) for path, text in texts.items() if "wardkey:" in text}
    for finding in findings:
        ignored = False
        for one in ignores.get(finding.path, ()):
            if finding.rule.id in one.rules and {finding.line, finding.begins} & one.lines:
                one.used.add(finding.rule.id)
                ignored |= one.has_reason
        if not ignored:
            yield finding
    for path in ignores:
        for one in ignores[path]:
            if one.is_comment and not (one.has_reason and one.rules):
                yield _about(IGNORE_WITHOUT_REASON, one, ", ".join(one.rules) or "no rule")
            elif one.is_comment and (unused := [rule for rule in one.rules if rule not in one.used]):
                yield _about(IGNORE_OF_NOTHING, one, ", ".join(unused))


def _comments(path: str, text: str) -> Iterator[_Ignore]:
    rows = text.splitlines()
    for match in _COMMENT.finditer(text):
        line = text.count("\n", 0, match.start("before")) + 1
        lines = {line}
        if not match["before"].strip():
            below = line
            while below < len(rows) and rows[below].lstrip()[:2] in ("--", "#", "# ", ""):
                below += 1
            lines.add(below + 1)
        rules = re.findall(r"WL\d{3}", match["rules"])
        is_comment = match["mark"] == "#" or not path.endswith(".py")  # else it may be a string's
        yield _Ignore(path, line, lines, rules, match["reason"] is not None, is_comment)


def _about(rule: Rule, one: _Ignore, what: str) -> Finding:
    mark = sha256(f"{rule.id}\0{one.path}\0{what}".encode()).hexdigest()[:16]
    return Finding(rule, one.path, one.line, one.line, filled(rule.message, what), rule.fix, mark)
