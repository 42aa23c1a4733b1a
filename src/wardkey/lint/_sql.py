"""Statements of SQL text: of a script for psql, a string in Python, or the body of a function."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pglast import ast, parse_plpgsql, parse_sql
from pglast.parser import ParseError, split

from ._flow import Relation, outputs
from ._model import Project
from ._rule import Origin, Statement, nodes_of

__all__ = ["Raise", "Unreadable", "bodies", "of_psql", "statements"]

_LEAD = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
_TOKEN = re.compile(
    r"""--[^\n]*
    | /\*.*?\*/
    | (?<![\w$])[eE]'(?:[^'\\]|''|\\.)*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    | (?P<copy>^[ \t]*copy\b[^;'"\\]*?\bfrom\s+stdin\b[^;]*;)
      (?P<data>[^\n]*\n(?:(?!\\\.)[^\n]*\n)*\\\.[ \t]*$)
    | \\(?P<ends>g\w*|crosstabview)[^\n]*
    | \\;
    | \\[^\n]*
    | ::|:=
    | :\{\?\w+\}
    | @ext(?:schema(?::\w+)?|owner)@
    | (?<![\w\])]):(?=\w+|'\w+'|"\w+")""",
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_BLANK = re.compile(r"[^\n]")


class Unreadable(Exception):
    """Text that PostgreSQL's parser refuses, with the offset where."""

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass(eq=False, slots=True)
class Raise:
    """A RAISE of PL/pgSQL, for which pglast has no node: the expressions whose values it tells."""

    values: tuple[Any, ...]


def of_psql(text: str) -> str:
    """Return SQL of the same length in lines: without psql's commands, variables and rows of COPY."""
    return _TOKEN.sub(_plain, text) if re.search(r"[\\:@]", text) else text


def _plain(token: re.Match[str]) -> str:
    said = token[0]
    if token["copy"]:
        return token["copy"] + _BLANK.sub(" ", token["data"])
    if said[0] == "\\":
        if said == "\\;":
            return " ;"
        return (";" if token["ends"] else " ") + _BLANK.sub(" ", said[1:])
    if said[0] == "@":  # in the script of an extension
        return "x".ljust(len(said))
    if said[0] == ":" and said not in ("::", ":="):
        return "true".ljust(len(said)) if len(said) > 1 else " "
    return said


def statements(
    text: str, path: str, line: int = 1, origin: Origin = "sql"
) -> Iterator[Statement | Unreadable]:
    """Parse ``text``, of which ``line`` is the first; what cannot be parsed hides nothing but itself."""
    try:
        yield from (_statement(raw, text, 0, path, line, origin) for raw in parse_sql(text))
    except ParseError as whole:
        try:
            pieces = split(text, with_parser=False, only_slices=True)
        except ParseError:
            yield Unreadable(_message(whole), _place(whole))
            return
        for piece in pieces:
            assert isinstance(piece, slice)  # noqa: S101 — only_slices
            try:
                parsed = parse_sql(text[piece])
            except ParseError as error:
                yield Unreadable(_message(error), piece.start + _place(error))
            else:
                yield from (_statement(raw, text, piece.start, path, line, origin) for raw in parsed)


def _message(error: ParseError) -> str:
    return str(error.args[0]).partition(" at or near")[0]  # what is there may be somebody's data


def _place(error: ParseError) -> int:
    return error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0


def _statement(raw: Any, text: str, base: int, path: str, line: int, origin: Any) -> Statement:
    begin = base + raw.stmt_location
    lead = _LEAD.match(text, begin)
    start = lead.end() if lead else begin
    end = begin + raw.stmt_len if raw.stmt_len else len(text)
    if base:  # locations of nodes count from the piece
        line += text.count("\n", 0, base)
        text, start, end = text[base:], start - base, end - base
    return Statement(path, raw.stmt, text, line, start, end, origin, nodes_of(raw.stmt))


def bodies(statement: Statement, project: Project) -> Iterator[Statement | Unreadable]:
    """Yield the statements within a function or DO, with what its variables hold of sealed columns."""
    node = statement.node
    if not isinstance(node, ast.CreateFunctionStmt | ast.DoStmt):
        return
    options = {
        option.defname: option
        for option in (node.options if isinstance(node, ast.CreateFunctionStmt) else node.args) or ()
    }
    if "as" not in options:
        return
    body = options["as"].arg
    body = body[0].sval if isinstance(body, tuple) else body.sval
    place = max(statement.text.find(body, statement.start), 0)
    line = statement.line + statement.text.count("\n", 0, place)
    language = options["language"].arg.sval.lower() if "language" in options else "plpgsql"
    if language == "sql":
        yield from statements(body, statement.path, line, "body")
    elif language == "plpgsql":
        try:
            tree = parse_plpgsql(statement.text[statement.start : statement.end])
        except ParseError as error:
            yield Unreadable(_message(error), place)
        else:
            yield from _Body(statement.path, line, project).read(tree)


class _Body:
    """The statements of one PL/pgSQL function, in order, following values from variable to variable."""

    def __init__(self, path: str, line: int, project: Project) -> None:
        self.path, self.line, self.project = path, line - 1, project
        self.variables: dict[str, Relation] = {}

    def read(self, tree: Any, line: int = 1) -> Iterator[Statement]:
        content: Any
        if isinstance(tree, list):
            for part in tree:
                yield from self.read(part, line)
            return
        if not isinstance(tree, dict):
            return
        for kind, content in tree.items():
            if kind == "PLpgSQL_expr":
                yield from self._expression(content, line)
            elif type(content) in (dict, list):
                here = content.get("lineno", line) if type(content) is dict else line
                if kind == "PLpgSQL_stmt_raise":
                    yield from self._raise(content, here)
                elif kind == "PLpgSQL_stmt_fors":
                    self._keep(content["query"]["PLpgSQL_expr"]["query"], content["var"])
                    yield from self.read([content["query"], content.get("body", [])], here)
                else:
                    yield from self.read(content, here)
                if kind == "PLpgSQL_stmt_execsql" and "target" in content:
                    self._keep(content["sqlstmt"]["PLpgSQL_expr"]["query"], content["target"])

    def _parsed(self, query: str, line: int) -> Statement | None:
        for one in statements(query, self.path, self.line + line, "body"):
            if isinstance(one, Statement):
                one.variables = dict(self.variables)  # as they are here
                return one
        return None

    def _expression(self, content: Any, line: int) -> Iterator[Statement]:
        query, mode = content["query"], content.get("parseMode", 0)
        target = re.match(r"\s*(\w+)\s*:?=", query) if mode == 3 else None
        if mode:
            query = "select " + (query[target.end() :] if target else query)
        one = self._parsed(query, line)
        if one is None:
            return
        if target:
            self.variables[target[1]] = {"": _all(outputs(one.node, self.project.model, self.variables))}
        yield one

    def _raise(self, content: Any, line: int) -> Iterator[Statement]:
        expressions = content.get("params", []) + [
            option["PLpgSQL_raise_option"]["expr"] for option in content.get("options", ())
        ]
        for expression in expressions:
            one = self._parsed("select " + expression["PLpgSQL_expr"]["query"], line)
            if one is not None:
                one.node = Raise(one.node.targetList)
                one.nodes = {Raise: [one.node], **one.nodes}
                one.nodes.pop(ast.SelectStmt, None)
                yield one

    def _keep(self, query: str, target: Any) -> None:
        """Note what a query puts into a record, a row of variables, or one variable."""
        one = self._parsed(query, 1)
        if one is None:
            return
        columns = outputs(_selected(one.node), self.project.model, self.variables)
        kind, content = next(iter(target.items()))
        if kind == "PLpgSQL_row":
            for field, (_, sources) in zip(content.get("fields", ()), columns, strict=False):
                self.variables[field["name"]] = {"": sources}
        elif kind == "PLpgSQL_rec":
            self.variables[content["refname"]] = dict(columns)
        else:
            self.variables[content["refname"]] = {"": _all(columns)}


def _selected(node: Any) -> Any:
    """Return the query of a statement that returns rows."""
    return node if isinstance(node, ast.SelectStmt) else None


def _all(columns: list[tuple[str, frozenset[str]]]) -> frozenset[str]:
    return frozenset().union(*(sources for _, sources in columns))
