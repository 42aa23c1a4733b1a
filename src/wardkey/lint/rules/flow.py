"""PHI flow: sealed values on their way to a place where they lie in the clear, or others read them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from pglast import ast
from pglast.enums import ConstrType, ObjectType

from .._flow import calls, indexed, outputs, reads, scope, with_queries
from .._model import Project
from .._rule import Hit, Rules, Statement, hit, nodes_of, value
from .._sql import Raise

__all__ = ["LOGGING", "RULES"]

RULES = Rules()
_TELLING = {
    "WL208": "pg_notify",
    "WL212": "md5 sha224 sha256 sha384 sha512 digest hashtext hashtextextended crc32",
    "WL213": "set_config",
    "WL214": "dblink dblink_exec dblink_send_query http_get http_post lo_from_bytea lo_put pg_file_write"
    " pg_logical_emit_message",
}
"""Functions that tell their arguments to others, by the rule about them."""
LOGGING: dict[str, set[Any]] = {
    "auto_explain.log_min_duration": {-1, "-1"},
    "debug_print_parse": {"off", False},
    "debug_print_plan": {"off", False},
    "debug_print_rewritten": {"off", False},
    "log_min_duration_sample": {-1, "-1"},
    "log_min_duration_statement": {-1, "-1"},
    "log_min_error_statement": {"panic", "fatal"},
    "log_parameter_max_length": {0, "0"},
    "log_parameter_max_length_on_error": {0, "0"},
    "log_statement": {"none"},
    "log_transaction_sample_rate": {0, "0"},
}
"""Settings by which statements or values come into the server's log, and with which values they do not."""


def _of(query: Any, at: Statement, project: Project) -> str:
    """Return the sealed columns of a query's result, or nothing."""
    columns = outputs(query, project.model, at.variables)
    return ", ".join(sorted(frozenset().union(*(sources for _, sources in columns))))


@RULES.rule("WL201", ast.InsertStmt, ast.UpdateStmt)
def sealed_into_plain(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    model, table = project.model, project.model.find(node.relation)
    if table is not None and table.is_protected and table.sealed is None:
        return
    known = with_queries(node, model, at.variables)
    if isinstance(node, ast.UpdateStmt):
        visible = scope((node.relation, *(node.fromClause or ())), model, at.variables, known)
        values = [(target.name, reads(target.val, visible, model)) for target in node.targetList]
    else:
        names = [column.name for column in node.cols or ()] or (table.columns if table is not None else [])
        columns = outputs(node.selectStmt, model, at.variables, known)
        pairs = zip_longest(columns, names[: len(columns)], fillvalue=None)
        values = [(name or column[0], column[1]) for column, name in pairs if column is not None]
    for name, sources in values:
        if sources and not (table is not None and name in (table.sealed or ())):
            yield hit(", ".join(sorted(sources)), f"{node.relation.relname}.{name}")


@RULES.rule("WL203", ast.CreateTableAsStmt, ast.SelectStmt)
def sealed_into_new_table(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    is_view = isinstance(node, ast.CreateTableAsStmt) and node.objtype == ObjectType.OBJECT_MATVIEW
    into = node.into if isinstance(node, ast.CreateTableAsStmt) else node.intoClause
    query = node.query if isinstance(node, ast.CreateTableAsStmt) else node
    if into is None or into.rel is None or is_view or at.origin == "body":
        return
    if sources := _of(query, at, project):
        yield hit(sources, into.rel.relname)


@RULES.rule("WL204", ast.CreateTableAsStmt)
def sealed_in_matview(node: ast.CreateTableAsStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.objtype == ObjectType.OBJECT_MATVIEW and (sources := _of(node.query, at, project)):
        yield hit(sources, node.into.rel.relname)


@RULES.rule("WL205", ast.ViewStmt)
def sealed_in_view(node: ast.ViewStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if sources := _of(node.query, at, project):
        yield hit(sources, node.view.relname)


@RULES.rule("WL206", ast.IndexStmt)
def sealed_in_index(node: ast.IndexStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if sources := indexed(node, project.model):
        yield hit(", ".join(sorted(sources)))


@RULES.rule("WL207", ast.CreateStmt, ast.AlterTableStmt)
def sealed_in_key(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    table = project.model.protected(node.relation)
    sealed = table.sealed if table is not None else None
    if not sealed:
        return
    is_new = isinstance(node, ast.CreateStmt)
    for element in (node.tableElts if is_new else [command.def_ for command in node.cmds]) or ():
        if isinstance(element, ast.ColumnDef):
            for one in element.constraints or ():
                yield from _refused(one, [element.colname], sealed, is_new)
        elif isinstance(element, ast.Constraint):
            names = [name.sval for name in (element.keys or element.fk_attrs or ())]
            yield from _refused(element, names, sealed, is_new)


_KEYS = {
    ConstrType.CONSTR_PRIMARY: "a primary key",
    ConstrType.CONSTR_UNIQUE: "UNIQUE",
    ConstrType.CONSTR_FOREIGN: "a foreign key",
    ConstrType.CONSTR_GENERATED: "a generated column",
}


def _refused(one: ast.Constraint, names: list[str], sealed: set[str], is_new: bool) -> Iterator[Hit]:
    is_plain = not (one.deferrable or one.nulls_not_distinct)
    if one.contype == ConstrType.CONSTR_UNIQUE and is_new and is_plain:
        return  # ward.protect takes it over
    if one.contype == ConstrType.CONSTR_GENERATED:
        names = [ref.fields[-1].sval for ref in nodes_of(one.raw_expr).get(ast.ColumnRef, ())]
    if one.contype in _KEYS and (both := sorted(sealed & set(names))):
        yield hit(_KEYS[one.contype], ", ".join(both), at=one)


@RULES.rule("WL209", Raise)
def sealed_in_raise(node: Raise, at: Statement, project: Project) -> Iterator[Hit]:
    for target in node.values:
        if sources := reads(target.val, at.variables, project.model):
            yield hit(", ".join(sorted(sources)))


@RULES.rule("WL210", ast.CopyStmt)
def copy_to_program(node: ast.CopyStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.is_program:
        yield hit()


@RULES.rule("WL211", ast.CopyStmt)
def copy_to_file(node: ast.CopyStmt, at: Statement, project: Project) -> Iterator[Hit]:
    is_file = node.filename and not node.is_program and not node.is_from
    if is_file and (sources := _of(node.query, at, project)):
        yield hit(sources)


@RULES.rule("WL216", ast.VariableSetStmt)
def values_in_log(node: ast.VariableSetStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.name in LOGGING and node.args and value(node.args[0]) not in LOGGING[node.name]:
        yield hit(node.name)


@RULES.rule("WL217", ast.CreatePublicationStmt)
def publication_of_model(node: ast.CreatePublicationStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.for_all_tables:
        yield hit(node.pubname, "all tables")
    for relation in nodes_of(node.pubobjects).get(ast.RangeVar, ()):
        if table := project.model.protected(relation):
            yield hit(node.pubname, table.name, at=relation)


def _add(rule: str, functions: set[str]) -> None:
    @RULES.rule(rule, ast.SelectStmt)
    def sealed_as_argument(node: ast.SelectStmt, at: Statement, project: Project) -> Iterator[Hit]:
        if not any(call.funcname[-1].sval in functions for call in at.nodes.get(ast.FuncCall, ())):
            return  # in most statements; calls() looks at every node
        for call in calls(node):
            if call.funcname[-1].sval in functions:
                known = with_queries(node, project.model, at.variables)
                visible = scope(node.fromClause, project.model, at.variables, known)
                if sources := reads(call.args, visible, project.model):
                    yield hit(", ".join(sorted(sources)), at=call)


for _rule, _functions in _TELLING.items():
    _add(_rule, set(_functions.split()))
