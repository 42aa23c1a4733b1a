"""SQL in Python: strings, the operations of Alembic put as SQL, and calls that rules look at.

The function ``downgrade`` of a revision is not read: it takes back what upgrade does.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ._alembic import NotSaid, as_sql
from ._rule import Origin, Statement
from ._sql import Unreadable, statements
from ._strings import LIKE_SQL, fold, with_parameters

__all__ = ["Call", "Text", "of_python"]

_METHODS = {"SQL", "exec_driver_sql", "execute", "executemany", "fetchrow", "fetchval", "stream"}
"""Methods whose first argument is SQL, whatever it looks like."""


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
        match tree:
            case ast.FunctionDef(name="downgrade") | ast.Expr(value=ast.Constant()):  # or a docstring
                return
            case ast.Call():
                yield from self._call(tree)
            case ast.Constant() | ast.JoinedStr() | ast.BinOp():
                yield from self._string(tree)
            case _:
                for child in ast.iter_child_nodes(tree):
                    yield from self.read(child)

    def _call(self, call: ast.Call) -> Iterator[Statement]:
        function = call.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = function.value if isinstance(function, ast.Attribute) else None
        yield self._plain(Call(name, call), call.lineno)
        if getattr(owner, "id", "") == "op":
            try:
                if sql := as_sql(name, call):
                    yield from self._statements(sql, call, "call")
            except NotSaid:
                self.pass_over(call.lineno, f"op.{name} is not put as SQL: its arguments are made elsewhere")
        if name == "format" and fold(owner) is not None:
            yield from self._string(call)
            return
        yield from self.read(function)
        for number, argument in enumerate([*call.args, *(keyword.value for keyword in call.keywords)]):
            if number == 0 and name in _METHODS and fold(argument) is not None:
                yield from self._string(argument, is_executed=True)
            else:
                yield from self.read(argument)

    def _string(self, node: ast.expr, is_executed: bool = False) -> Iterator[Statement]:
        text = fold(node)
        if text is None:
            for child in ast.iter_child_nodes(node):
                yield from self.read(child)
        elif is_executed or LIKE_SQL.match(text):
            origin: Origin = "executed" if is_executed else "python"
            yield from self._statements(with_parameters(text), node, origin)
        elif isinstance(node, ast.Constant):
            yield self._plain(Text(text), node.lineno)

    def _statements(self, text: str, node: ast.expr, origin: Origin) -> Iterator[Statement]:
        as_written = text.count("\n") == (node.end_lineno or node.lineno) - node.lineno
        for one in statements(text, self.path, node.lineno, origin):
            if isinstance(one, Statement):
                if not as_written:  # lines of the text are not those of the file
                    one.line = node.lineno - one.text.count("\n", 0, one.start)
                yield one
            elif isinstance(one, Unreadable) and origin != "python":
                self.pass_over(node.lineno, f"SQL is passed over: {one}")

    def _plain(self, node: Call | Text, line: int) -> Statement:
        return Statement(self.path, node, "", line, 0, 0, "python", {type(node): [node]})
