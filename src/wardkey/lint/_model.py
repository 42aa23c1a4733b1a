"""What the files say of tables: which are protected, which of their columns sealed, which are shared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from pglast import ast
from pglast.enums import AlterTableType

from ._flow import name_of
from ._rule import Statement, array, value

__all__ = ["HOLE", "SLOT", "Model", "Project", "Table", "protects"]

HOLE = "python_value"
"""What stands where Python puts a value into SQL."""
SLOT = "python_name"
"""What stands where psycopg puts a name into SQL, or what else it quotes."""


@dataclass(slots=True)
class Table:
    """``sealed`` is None where the files do not say which columns are: a name is put together in Python."""

    name: str
    columns: list[str] = field(default_factory=list)
    state: Literal["protected", "shared"] | None = None
    sealed: set[str] | None = field(default_factory=set)

    @property
    def is_protected(self) -> bool:
        return self.state == "protected"

    @property
    def sources(self) -> dict[str, frozenset[str]]:
        return {column: frozenset((f"{self.name}.{column}",)) for column in self.sealed or ()}


class Model:
    """The tables that the files, or a live database, tell of."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self._faces: dict[str, Table] = {}
        self._patterns: list[tuple[str, Literal["protected", "shared"]]] = []
        self.is_vague = False  # which tables are protected is decided in Python

    def read_list(self, text: str) -> None:
        """Take the tables that ``wardkey table list --json`` has printed."""
        for row in json.loads(text):
            self._set(row["table"], row["kind"], row["sealed"])

    def read(self, project: Project) -> None:
        """Take the tables and the calls of ``ward`` that the statements have."""
        for node in project.nodes(ast.CreateStmt):
            table = self._table(_written(node.relation))
            table.columns = [one.colname for one in node.tableElts or () if isinstance(one, ast.ColumnDef)]
        for node in project.nodes(ast.AlterTableStmt):
            known = self.tables.get(_written(node.relation))
            if known is not None:
                added = (one.def_ for one in node.cmds if one.subtype == AlterTableType.AT_AddColumn)
                known.columns += [column.colname for column in added]
        for call in project.nodes(ast.FuncCall):
            self._read_call(call)
        for name, table in self.tables.items():
            for pattern, state in self._patterns:
                if table.state is None and _fits(pattern, name):
                    table.state, table.sealed = state, None
        for table in self.tables.values():
            if table.is_protected:
                self._faces[table.name.rpartition(".")[2]] = table

    def _read_call(self, call: Any) -> None:
        name, arguments = name_of(call.funcname), call.args or ()
        if name not in ("ward.protect", "ward.share", "ward.add_sealed_column") or not arguments:
            return
        said = value(arguments[0])
        if not isinstance(said, str):
            return
        if name == "ward.share":
            self._set(said, "shared", ())
        elif name == "ward.add_sealed_column":
            column = value(arguments[1]) if len(arguments) > 1 else None
            self._set(said, "protected", (column,))
        else:
            seal = next((a for a in arguments if isinstance(a, ast.NamedArgExpr) and a.name == "seal"), None)
            if seal is None and len(arguments) > 1 and not isinstance(arguments[1], ast.NamedArgExpr):
                seal = arguments[1]
            columns = value(seal) if seal is not None else ()
            if isinstance(columns, str):
                columns = _names(columns)
            self._set(said, "protected", (None,) if columns is None else columns)

    def _set(self, name: str, state: Literal["protected", "shared"], sealed: Iterable[Any]) -> None:
        if name in (HOLE, SLOT):
            self.is_vague = True
        elif HOLE in name or SLOT in name:
            self._patterns.append((name, state))
        if HOLE in name or SLOT in name:
            return
        table = self._table(name)
        table.state = state
        columns = list(sealed)
        if table.sealed is None or any(not isinstance(one, str) or HOLE in one for one in columns):
            table.sealed = None
        else:
            table.sealed |= set(columns)

    def _table(self, name: str) -> Table:
        name = name.removeprefix("public.").replace('"', "")
        return self.tables.setdefault(name, Table(name))

    def find(self, relation: Any) -> Table | None:
        """Return the table that a relation is, is the face or a leaf of, or is the shape of."""
        schema, name = relation.schemaname, relation.relname
        if HOLE in name or SLOT in name:
            return None
        if schema == "ward_model":
            return self.tables.get(name.replace("__", ".", 1))
        if schema and schema.startswith(("tenant_", "sealed_")):
            return self._faces.get(name)
        return self.tables.get(_written(relation)) or (None if schema else self._faces.get(name))

    def protected(self, relation: Any) -> Table | None:
        """Return the model table that a relation is, is the face of, or is the shape of."""
        table = self.find(relation)
        return table if table is not None and table.is_protected else None


def _names(seal: str) -> Iterable[Any] | None:
    """Return the columns of a literal that is an object of columns and classes, or an array."""
    try:
        said = json.loads(seal)
    except ValueError:
        return array(seal)
    return said if isinstance(said, dict) else None


def protects(call: Any, table: Table) -> bool:
    """Return whether this call of a function protects the table."""
    said = value(call.args[0]) if name_of(call.funcname) == "ward.protect" and call.args else None
    return isinstance(said, str) and _fits(said.replace('"', ""), table.name)


def _fits(pattern: str, name: str) -> bool:
    """Return whether a name may be one that Python has put together."""
    return re.fullmatch(re.sub(f"{HOLE}|{SLOT}", r"\\w+", re.escape(pattern)), name) is not None


def _written(relation: Any) -> str:
    schema = relation.schemaname
    return f"{schema}.{relation.relname}" if schema and schema != "public" else str(relation.relname)


class Project:
    """All that is linted together, by file and by type of node."""

    def __init__(self) -> None:
        self.model = Model()
        self.unreadable: list[tuple[str, int, str]] = []
        self.notes: list[tuple[str, int, str]] = []
        self._files: dict[str, list[Statement]] = {}
        self._nodes: dict[type, list[Any]] = {}

    def add(self, statements: Iterable[Statement]) -> None:
        for one in statements:
            self._files.setdefault(one.path, []).append(one)
            for kind, nodes in one.nodes.items():
                self._nodes.setdefault(kind, []).extend(nodes)

    @property
    def statements(self) -> Iterator[Statement]:
        return chain.from_iterable(self._files.values())

    def of_path(self, path: str) -> list[Statement]:
        return self._files[path]

    def nodes(self, kind: type) -> list[Any]:
        return self._nodes.get(kind, [])
