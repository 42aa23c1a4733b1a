"""Hints of the database in the words of the command line: an operator need not know psql."""

from __future__ import annotations

import re

__all__ = ["VIEWS", "in_commands"]

VIEWS = {
    "audit_holds": "wardkey audit holds",
    "incidents": "wardkey incident list",
    "baas": "wardkey baa list",
    "break_glass_requests": "wardkey access break-glass list",
    "budgets": "wardkey access budget list",
    "classes": "wardkey access class list",
    "honey_rows": "wardkey access honey list",
    "issuers": "wardkey issuer list",
    "keys": "wardkey keys status",
    "measure_definitions": "wardkey access measures list",
    "models": "wardkey table list",
    "row_rules": "wardkey access rule list",
    "rotations": "wardkey keys list",
    "searches": "wardkey search list",
    "uniques": "wardkey search list",
    "tenants": "wardkey tenant list",
}
"""What to run instead of looking at a view of schema ward."""

_FUNCTIONS = {
    "add_sealed_column": "wardkey table add-sealed-column",
    "drop_row_rule": "wardkey access rule drop",
    "protect": "wardkey table protect",
    "share": "wardkey table share",
}
_QUERY = re.compile(r"select (?:\*|slug) from ward\.(\w+)")
_CALL = re.compile(r"(?:select )?ward\.(\w+)(?:\((?:'([\w.]+)'|…)?\))?")


def in_commands(hint: str) -> str:
    """Return ``hint`` with each statement that has a command replaced by it."""
    hint = _QUERY.sub(lambda match: VIEWS.get(match[1], match[0]), hint)
    return _CALL.sub(
        lambda match: (
            f"{_FUNCTIONS[match[1]]} {match[2] or ''}".rstrip() if match[1] in _FUNCTIONS else match[0]
        ),
        hint,
    )
