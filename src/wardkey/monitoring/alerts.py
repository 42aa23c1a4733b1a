"""Alerts: each is its runbook page, which has the rule in its head.

The rules of Prometheus are made of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from ..install.resources import runbooks

__all__ = ["Alert", "every", "rules"]

_PAGE: Final = re.compile(
    r"# (Wardkey\w+) \((warning|critical)\)\n\nSummary: (.+)\n\nFor: (\d+[mh])\n\n```promql\n(.+?)\n```\n",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Alert:
    """``page``: the name of its runbook. ``duration``: for how long ``expression`` has to hold."""

    page: str
    name: str
    severity: str
    summary: str
    duration: str
    expression: str


@cache
def every() -> Sequence[Alert]:
    """Return all alerts, by page. Raises ValueError for a page whose head is of another form."""
    alerts = []
    for page, text in runbooks().items():
        if (head := _PAGE.match(text)) is None:
            raise ValueError(f"docs/runbooks/{page}.md does not begin with an alert")
        name, severity, summary, duration, expression = head.groups()
        alerts.append(Alert(page, name, severity, summary, duration, expression))
    return alerts


def rules(runbook_url: str) -> str:
    """Return a rule file of Prometheus; strings in it are JSON's, which YAML reads."""
    lines = ["groups:", "  - name: wardkey", "    rules:"]
    for alert in every():
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(' '.join(alert.expression.split()))}",
            f"        for: {alert.duration}",
            f"        labels: {{severity: {alert.severity}}}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook_url: {json.dumps(f'{runbook_url}/{alert.page}')}",
        ]
    return "\n".join(lines) + "\n"
