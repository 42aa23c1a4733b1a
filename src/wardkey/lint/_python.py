"""SQL in Python: strings, the operations of Alembic put as SQL, and calls that rules look at.

Parameters (``%s``, ``%(name)s``, ``:name``, ``{}`` of psycopg.sql) become ``$1`` or a name; what an f-string,
``%``, ``+`` or ``format`` puts in becomes the name ``HOLE``. The function ``downgrade`` of a revision is not
read: it takes back what upgrade does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ._model import HOLE, SLOT
from ._rule import Statement
from ._sql import Unreadable, statements

__all__ = ["Call", "Text", "of_python"]

_METHODS = {"SQL", "exec_driver_sql", "execute", "executemany", "fetchrow", "fetchval", "stream"}
"""Methods whose first argument is SQL, whatever it looks like."""
_SQL = re.compile(
    r"\s*(?:--[^\n]*\n\s*)*(?:select\s|insert\s+into\s|update\s+[\w.\"]+\s+set\s|delete\s+from\s|with\s+\w+\s+as\s|merge\s+into\s"
    r"|copy\s.*\s(?:to|from)\s|do\s+\$|notify\s|listen\s|declare\s+\w+\s.*cursor|set\s+(?:local\s|session\s)?[\w.]+\s*(?:=|to\s)"
    r"|(?:create|alter|drop)\s+(?:or\s|unique\s|temp|unlogged\s|materialized\s|table\s|index\s|view\s|function\s|policy\s|role\s|user\s"
    r"|schema\s|trigger\s|rule\s|publication\s|server\s|type\s|system\s|database\s|default\s)|(?:grant|revoke)\s.*\s(?:to|from)\s"
    r"|truncate\s|lock\s+table\s|prepare\s+\w+\s+as\s)",
    re.IGNORECASE | re.DOTALL,
)
_PARAMETER = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|::)
    |%\(\w+\)[sbt]|%[sbt](?!\w)|(?<![\w:]):[a-zA-Z_]\w*|(?P<percent>%%)|(?P<slot>\{\w*\})""",
    re.VERBOSE,
)


@dataclass(slots=True)
class Call:
    """A call of a function or method, for rules of clients."""

    name: str
    node: ast.Call


@dataclass(slots=True)
class Text:
    """A string that is no SQL."""

    value: str


def of_python(source: str, path: str, pass_over: Callable[[int, str], None]) -> Iterator[Statement]:
    """Yield what a Python file says to PostgreSQL; ``pass_over`` is told of SQL that cannot be read.

    Raises SyntaxError if it is not Python.
    """
    yield from _Reader(path, pass_over).read(ast.parse(source))


class _Reader:
    def __init__(self, path: str, pass_over: Callable[[int, str], None]) -> None:
        self.path, self.pass_over = path, pass_over

    def read(self, tree: ast.AST) -> Iterator[Statement]:
        if isinstance(tree, ast.FunctionDef) and tree.name == "downgrade":
            return
        if isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Constant):
            return  # a docstring
        if isinstance(tree, ast.Call):
            yield from self._call(tree)
        elif isinstance(tree, ast.Constant | ast.JoinedStr | ast.BinOp):
            yield from self._string(tree)
        else:
            for child in ast.iter_child_nodes(tree):
                yield from self.read(child)

    def _call(self, call: ast.Call) -> Iterator[Statement]:
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = function.value if isinstance(function, ast.Attribute) else None
        yield self._plain(Call(name, call), call.lineno)
        if isinstance(owner, ast.Name) and owner.id in ("op", "batch_op") and (sql := _OPERATIONS.get(name)):
            try:
                text = sql(call)
            except _NotSaid:
                self.pass_over(call.lineno, f"op.{name} is not put as SQL: its arguments are made elsewhere")
            else:
                yield from self._statements(text, call, "call", must_be=True)
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        if name == "format" and owner is not None and _fold(owner) is not None:
            yield from self._string(call)
        else:
            yield from self.read(function)
            for number, argument in enumerate(arguments):
                if number == 0 and name in _METHODS and _fold(argument) is not None:
                    yield from self._string(argument, must_be=True)
                else:
                    yield from self.read(argument)

    def _string(self, node: ast.expr, must_be: bool = False) -> Iterator[Statement]:
        text = _fold(node)
        if text is None:
            for child in ast.iter_child_nodes(node):
                yield from self.read(child)
        elif _SQL.match(text) or must_be:
            sql = _PARAMETER.sub(_parameter, text)
            yield from self._statements(sql, node, "executed" if must_be else "python", must_be)
        elif isinstance(node, ast.Constant):
            yield self._plain(Text(text), node.lineno)

    def _statements(self, text: str, node: ast.expr, origin: Any, must_be: bool) -> Iterator[Statement]:
        spans = (node.end_lineno or node.lineno) - node.lineno
        as_written = text.count("\n") == spans  # else lines of the text are not those of the file
        for one in statements(text, self.path, node.lineno, origin):
            if isinstance(one, Unreadable):
                if must_be:
                    self.pass_over(node.lineno, f"SQL is passed over: {one}")
            else:
                if not as_written:
                    one.line = node.lineno - one.text.count("\n", 0, one.start)
                yield one

    def _plain(self, node: Call | Text, line: int) -> Statement:
        return Statement(self.path, node, "", line, 0, 0, "python", {type(node): [node]})


def _parameter(token: re.Match[str]) -> str:
    if token["quoted"]:
        return token[0]
    if token["percent"]:
        return "%"
    return SLOT if token["slot"] else "$1"


def _fold(node: ast.AST | None) -> str | None:
    """Return the text of a string expression, with HOLE for what is not constant; None if it is no string."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr():
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            )
        case ast.BinOp(op=ast.Add()):
            left, right = _fold(node.left), _fold(node.right)
            return None if left is None and right is None else (left or HOLE) + (right or HOLE)
        case ast.BinOp(op=ast.Mod()) if (before := _fold(node.left)) is not None:
            return re.sub(r"%(\(\w+\))?[sdr]", HOLE, before)
        case ast.Call(func=ast.Attribute(attr="format", value=owner)) if (before := _fold(owner)) is not None:
            return re.sub(r"\{[^}]*\}", HOLE, before)
        case _:
            return None


class _NotSaid(Exception):
    """An argument is not a constant."""


def _said(node: ast.AST | None) -> str:
    text = _fold(node) if node is not None else None
    if text is None:
        raise _NotSaid
    return text


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    named = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return named[0] if named else call.args[place] if len(call.args) > place else None


def _text(call: ast.Call, place: int, name: str) -> str:
    return _said(_argument(call, place, name))


def _flag(call: ast.Call, name: str) -> Any:
    given = _argument(call, 99, name)
    return given.value if isinstance(given, ast.Constant) else None


def _quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def _table(call: ast.Call, place: int = 0, name: str = "table_name") -> str:
    schema = _argument(call, 99, "schema")
    table = _said(_argument(call, place, name))
    return _quoted(f"{_said(schema)}.{table}" if schema is not None else table)


def _strings(node: ast.expr | None) -> list[str]:
    if not isinstance(node, ast.List | ast.Tuple):
        raise _NotSaid
    return [_said(one) for one in node.elts]


def _columns(node: ast.expr | None) -> str:
    return ", ".join(map(_quoted, _strings(node)))


_TYPES = {
    "BigInteger": "bigint",
    "Boolean": "boolean",
    "Date": "date",
    "DateTime": "timestamptz",
    "Integer": "integer",
    "LargeBinary": "bytea",
    "Uuid": "uuid",
}
"""Types of SQLAlchemy; for rules all others are as good as text."""


def _type(node: ast.expr | None) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    name = getattr(function, "attr", getattr(function, "id", ""))
    return _TYPES.get(name, "text")


def _column(call: ast.Call) -> str:
    parts = [_quoted(_text(call, 0, "name")), _type(_argument(call, 1, "type_"))]
    default = _argument(call, 99, "server_default")
    if default is not None:
        inner = default.args[0] if isinstance(default, ast.Call) and default.args else default
        text = _fold(inner)
        parts.append(f"default ({text})" if isinstance(default, ast.Call) and text else "default 'x'")
    parts += ["not null"] if _flag(call, "nullable") is False else []
    parts += ["primary key"] if _flag(call, "primary_key") else []
    parts += ["unique"] if _flag(call, "unique") else []
    for one in call.args[1:]:
        if isinstance(one, ast.Call) and _callee(one) == "ForeignKey":
            table, _, column = _said(one.args[0]).rpartition(".")
            parts.append(f"references {_quoted(table)} ({_quoted(column)})")
    return " ".join(parts)


def _callee(call: ast.Call) -> str:
    return str(getattr(call.func, "attr", getattr(call.func, "id", "")))


def _is_sealed(call: ast.Call) -> bool:
    kind = _argument(call, 1, "type_")
    return isinstance(kind, ast.Call) and _callee(kind) == "Sealed"


def _create_table(call: ast.Call) -> str:
    table, parts, sealed = _table(call), [], []
    for one in call.args[1:]:
        if not isinstance(one, ast.Call):
            raise _NotSaid
        match _callee(one):
            case "Column":
                parts.append(_column(one))
                sealed += [_said(one.args[0])] if _is_sealed(one) else []
            case "PrimaryKeyConstraint" | "UniqueConstraint" as kind:
                words = "primary key" if kind.startswith("P") else "unique"
                parts.append(f"{words} ({', '.join(_quoted(_said(column)) for column in one.args)})")
            case "ForeignKeyConstraint":
                table_, _, _ = _strings(one.args[1])[0].rpartition(".")
                parts.append(f"foreign key ({_columns(one.args[0])}) references {_quoted(table_)}")
    made = f"create table {table} ({', '.join(parts)})"
    return f"{made}; {_protect(table, sealed)}" if sealed else made


def _protect(table: str, sealed: list[str]) -> str:
    return f"select ward.protect('{table}', seal => array[{', '.join(map(_literal, sealed))}]::text[])"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _add_column(call: ast.Call) -> str:
    table, column = _table(call), _argument(call, 1, "column")
    if not isinstance(column, ast.Call):
        raise _NotSaid
    if _is_sealed(column):
        return f"select ward.add_sealed_column('{table}', {_literal(_said(column.args[0]))}, 'text')"
    return f"alter table {table} add column {_column(column)}"


def _alter_column(call: ast.Call) -> str:
    column = _quoted(_text(call, 1, "column_name"))
    actions = []
    if (kind := _argument(call, 99, "type_")) is not None:
        actions.append(f"alter column {column} type {_type(kind)}")
    if (nullable := _flag(call, "nullable")) is not None:
        actions.append(f"alter column {column} {'drop' if nullable else 'set'} not null")
    if not actions:
        raise _NotSaid
    return f"alter table {_table(call)} {', '.join(actions)}"


def _create_index(call: ast.Call) -> str:
    words = "create unique index" if _flag(call, "unique") else "create index"
    words += " concurrently" if _flag(call, "postgresql_concurrently") else ""
    return f"{words} on {_table(call, 1)} ({_columns(_argument(call, 2, 'columns'))})"


def _create_foreign_key(call: ast.Call) -> str:
    columns = _columns(_argument(call, 3, "local_cols"))
    source, target = _text(call, 1, "source_table"), _text(call, 2, "referent_table")
    schemas = [_argument(call, 99, f"{side}_schema") for side in ("source", "referent")]
    source, target = (
        _quoted(f"{_said(schema)}.{name}" if schema is not None else name)
        for schema, name in zip(schemas, (source, target), strict=True)
    )
    validation = " not valid" if _flag(call, "postgresql_not_valid") else ""
    return f"alter table {source} add foreign key ({columns}) references {target}{validation}"


def _create_check(call: ast.Call) -> str:
    validation = " not valid" if _flag(call, "postgresql_not_valid") else ""
    return f"alter table {_table(call, 1)} add check ({_text(call, 2, 'condition')}){validation}"


def _protect_table(call: ast.Call) -> str:
    given = _argument(call, 1, "seal") or _argument(call, 99, "sealed")
    return _protect(_table(call), _strings(given) if given is not None else [])


_OPERATIONS: dict[str, Callable[[ast.Call], str]] = {
    "create_table": _create_table,
    "add_column": _add_column,
    "alter_column": _alter_column,
    "create_index": _create_index,
    "create_foreign_key": _create_foreign_key,
    "create_check_constraint": _create_check,
    "create_unique_constraint": lambda call: (
        f"alter table {_table(call, 1)} add unique ({_columns(_argument(call, 2, 'columns'))})"
    ),
    "drop_table": lambda call: f"drop table {_table(call)}",
    "drop_column": lambda call: (
        f"alter table {_table(call)} drop column {_quoted(_text(call, 1, 'column_name'))}"
    ),
    "protect_table": _protect_table,
    "share_table": lambda call: f"select ward.share('{_table(call)}')",
    "unprotect_table": lambda call: f"select ward.unprotect('{_table(call)}')",
    "add_sealed_column": lambda call: (
        f"select ward.add_sealed_column('{_table(call)}', {_literal(_text(call, 1, 'column'))}, 'text')"
    ),
}
"""What an operation of Alembic is as SQL, as far as rules look at it."""
