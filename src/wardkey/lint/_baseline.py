"""A baseline: findings that were there already, not shown again while their statements stay as they are.

JSON: ``{"version": 1, "findings": [{"path", "rule", "message", "mark"}, …]}``. ``mark`` is a hash of rule,
message and statement, so that lines may move; as many findings of one mark are known as stand in the file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ._rule import Finding

__all__ = ["Baseline", "InputError", "read_baseline", "without_known", "write_baseline"]


class InputError(Exception):
    """A file given as an option is not what it should be."""

    exit_code = 2


Baseline = Counter[tuple[str, str]]


def read_baseline(file: Path) -> Baseline:
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["version"] != 1:
            raise ValueError
        return Counter((one["path"], one["mark"]) for one in content["findings"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{file} is not a baseline of version 1") from None


def write_baseline(file: Path, findings: Iterable[Finding]) -> None:
    rows = [
        {"path": one.path, "rule": one.rule.id, "message": one.message, "mark": one.mark} for one in findings
    ]
    text = json.dumps({"version": 1, "findings": rows}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", "utf-8")


def without_known(findings: Iterable[Finding], baseline: Baseline) -> tuple[Finding, ...]:
    left = Counter(baseline)
    new = []
    for one in findings:
        key = (one.path, one.mark)
        left[key] -= 1
        if left[key] < 0:
            new.append(one)
    return tuple(new)
