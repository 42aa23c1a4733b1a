"""A report for other programs: JSON, SARIF 2.1.0, annotations of GitHub, JUnit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from . import Report
    from ._rule import Finding, Rule

__all__ = ["FORMATS"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def _written(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)


def _json(report: Report) -> str:
    facts = ("path", "line", "message", "fix")
    findings = [
        {"rule": one.rule.id, "name": one.rule.name, "severity": one.rule.severity}
        | {fact: getattr(one, fact) for fact in facts}
        for one in report.findings
    ]
    notes = [{"path": path, "line": line, "note": text} for path, line, text in report.notes]
    return _written({"files": len(report.files), "findings": findings, "notes": notes})


def _sarif(report: Report) -> str:
    from wardkey_pg import __version__

    from .rules import RULES

    rules = list(map(_sarif_rule, RULES.values()))
    driver = {"name": "wardkey lint", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(one, list(RULES).index(one.rule.id)) for one in report.findings],
    }
    return _written({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": rule.name,
        "shortDescription": {"text": rule.finds},
        "help": {"text": rule.page, "markdown": rule.page},
        "defaultConfiguration": {"level": rule.severity},
    }


def _sarif_result(one: Finding, index: int) -> dict[str, Any]:
    uri = f"file://{quote(one.path)}" if one.path.startswith("/") else quote(one.path)
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": one.line}}
    return {
        "ruleId": one.rule.id,
        "ruleIndex": index,
        "level": one.rule.severity,
        "message": {"text": f"{one.message}. Fix: {one.fix}"},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"wardkeyMark/v1": one.mark},
    }


def _github(report: Report) -> str:
    return "\n".join(map(_annotation, report.findings))


def _annotation(one: Finding) -> str:
    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    path = data(one.path).replace(":", "%3A").replace(",", "%2C")
    where = f"file={path},line={one.line},title={one.rule.id} {one.rule.name}"
    said = data(f"{one.message}\nfix: {one.fix}")
    return f"::{one.rule.severity} {where}::{said}"


def _junit(report: Report) -> str:
    """A file is a test case; its findings are one failure."""
    failed = {one.path for one in report.findings}
    counts = f'tests="{len(report.files)}" failures="{len(failed)}" errors="0"'
    lines = [f'<testsuites {counts}><testsuite name="wardkey lint" {counts}>']
    for path in report.files:
        lines.append(f'<testcase classname="wardkey.lint" name={quoteattr(path)}>')
        own = [one for one in report.findings if one.path == path]
        if own:
            said = "\n".join(f"{one.line}: {one.rule.id} {one.message}\n  fix: {one.fix}" for one in own)
            first = f"type={quoteattr(own[0].rule.id)} message={quoteattr(own[0].message)}"
            lines.append(f"<failure {first}>{escape(said)}</failure>")
        lines.append("</testcase>")
    lines.append("</testsuite></testsuites>")
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", "\n".join(lines))  # which XML cannot say


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "json": _json,
    "sarif": _sarif,
    "github": _github,
    "junit": _junit,
}
