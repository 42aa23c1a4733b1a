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
    from ._rule import Finding

__all__ = ["FORMATS"]


def _json(report: Report) -> str:
    return json.dumps(
        {
            "files": len(report.files),
            "findings": [
                {
                    "rule": one.rule.id,
                    "name": one.rule.name,
                    "severity": one.rule.severity,
                    "path": one.path,
                    "line": one.line,
                    "message": one.message,
                    "fix": one.fix,
                }
                for one in report.findings
            ],
            "notes": [{"path": path, "line": line, "note": text} for path, line, text in report.notes],
        },
        indent=2,
        ensure_ascii=False,
    )


def _sarif(report: Report) -> str:
    from wardkey_pg import __version__

    from .rules import RULES

    places = {rule.id: place for place, rule in enumerate(RULES.values())}
    rules = [
        {
            "id": rule.id,
            "name": rule.name,
            "shortDescription": {"text": rule.finds},
            "help": {"text": rule.page, "markdown": rule.page},
            "defaultConfiguration": {"level": rule.severity},
        }
        for rule in RULES.values()
    ]
    results = [
        {
            "ruleId": one.rule.id,
            "ruleIndex": places[one.rule.id],
            "level": one.rule.severity,
            "message": {"text": f"{one.message}. Fix: {one.fix}"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(one.path)},
                        "region": {"startLine": one.line},
                    }
                }
            ],
            "partialFingerprints": {"wardkeyMark/v1": one.mark},
        }
        for one in report.findings
    ]
    driver = {"name": "wardkey lint", "version": __version__, "rules": rules}
    run: dict[str, Any] = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _uri(path: str) -> str:
    return quote(path) if not path.startswith("/") else f"file://{quote(path)}"


def _github(report: Report) -> str:
    return "\n".join(map(_annotation, report.findings))


def _annotation(one: Finding) -> str:
    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    def property_(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    title = property_(f"{one.rule.id} {one.rule.name}")
    where = f"file={property_(one.path)},line={one.line},title={title}"
    said = data(f"{one.message}\nfix: {one.fix}")
    return f"::{one.rule.severity} {where}::{said}"


def _junit(report: Report) -> str:
    """A file is a test case; each finding in it is a failure."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    failed = {one.path for one in report.findings}
    counts = f'tests="{len(report.files)}" failures="{len(failed)}" errors="0"'
    lines.append(f'<testsuites {counts}><testsuite name="wardkey lint" {counts}>')
    for path in report.files:
        lines.append(f'<testcase classname="wardkey.lint" name={quoteattr(path)}>')
        own = [one for one in report.findings if one.path == path]
        if own:
            said = [f"{one.path}:{one.line}: {one.rule.id} {one.message}\n  fix: {one.fix}" for one in own]
            first = f"type={quoteattr(own[0].rule.id)} message={quoteattr(own[0].message)}"
            lines.append(f"<failure {first}>{escape(chr(10).join(said))}</failure>")
        lines.append("</testcase>")
    text = "\n".join([*lines, "</testsuite></testsuites>"])
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", text)  # which XML cannot say


FORMATS: Mapping[str, Callable[[Report], str]] = {
    "json": _json,
    "sarif": _sarif,
    "github": _github,
    "junit": _junit,
}
