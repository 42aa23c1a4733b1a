"""Strings of Python that may be SQL: with a name or parameter for what is put into them."""

from __future__ import annotations

import ast
import re

from ._model import HOLE, SLOT

__all__ = ["LIKE_SQL", "fold", "with_parameters"]

_OBJECTS = (
    r"(?:or|unique|temp\w*|unlogged|materialized|table|index|view|function|policy|role|user|schema|trigger|rule"
    r"|publication|server|type|system|database|default)"
)
LIKE_SQL = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*(?:select\s|insert\s+into\s|update\s+[\w.\"]+\s+set\s|delete\s+from\s"
    r"|with\s+\w+\s+as\s|merge\s+into\s|copy\s.*\s(?:to|from)\s|do\s+\$|notify\s|listen\s|truncate\s"
    r"|declare\s+\w+\s.*cursor|lock\s+table\s|set\s+(?:local\s|session\s)?[\w.]+\s*(?:=|to\s)"
    r"|(?:grant|revoke)\s.*\s(?:to|from)\s|prepare\s+\w+\s+as\s"
    rf"|(?:create|alter|drop)\s+{_OBJECTS}\s)",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|::)
    |%\(\w+\)[sbt]|%[sbt](?!\w)|(?<![\w:]):[a-zA-Z_]\w*|(?P<percent>%%)|(?P<slot>\{\w*\})""",
    re.VERBOSE,
)


def with_parameters(text: str) -> str:
    """Return SQL with PostgreSQL's parameters for those of drivers, SLOT for the places of psycopg.sql."""
    return _PARAMETER.sub(_parameter, text)


def _parameter(token: re.Match[str]) -> str:
    if token["quoted"]:
        return token[0]
    if token["percent"]:
        return "%"
    return SLOT if token["slot"] else "$1"


def fold(node: ast.AST | None) -> str | None:
    """Return the text of a string expression, with HOLE for what is not constant; None if it is no string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            parts = (str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)
            return "".join(parts)
        case ast.BinOp(op=ast.Add()):
            left, right = fold(node.left), fold(node.right)
            return None if left is None and right is None else (left or HOLE) + (right or HOLE)
        case ast.BinOp(op=ast.Mod()) if (before := fold(node.left)) is not None:
            return re.sub(r"%(\(\w+\))?[sdr]", HOLE, before)
        case ast.Call(func=ast.Attribute(attr="format", value=owner)) if (before := fold(owner)) is not None:
            return re.sub(r"\{[^}]*\}", HOLE, before)
        case _:
            return None
