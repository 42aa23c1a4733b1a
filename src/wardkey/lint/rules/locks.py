"""Locks: what holds up every tenant at once. DDL on a model table locks the leaves of all wards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType, ConstrType, DropBehavior, ObjectType

from .._flow import indexed, name_of
from .._model import Project, Table, protects
from .._rule import Hit, Rules, Statement, hit, nodes_of

__all__ = ["RULES"]

RULES = Rules()
_VOLATILE = {"clock_timestamp", "gen_random_uuid", "nextval", "random", "timeofday", "uuidv7"}


def _model(relation: Any, project: Project) -> Table | None:
    """Return the model table that a relation is, not the face or a leaf of one."""
    table, schema = project.model.protected(relation), relation.schemaname or ""
    in_ward = schema.startswith(("tenant_", "sealed_"))
    return None if in_ward or (not schema and table is not None and "." in table.name) else table


def _commands(
    node: ast.AlterTableStmt, at: Statement, project: Project, *kinds: AlterTableType
) -> Iterator[tuple[Table, Any]]:
    """Yield the commands of these kinds if they come after the table was protected."""
    table = _model(node.relation, project)
    if table is not None and _is_protected_by_then(table, at, project):
        for command in node.cmds:
            if command.subtype in kinds:
                yield table, command


def _is_protected_by_then(table: Table, at: Statement, project: Project) -> bool:
    """Return False for what a file does with its own table before it protects it: there are no leaves yet."""
    place = protect = None
    for number, one in enumerate(project.of_path(at.path)):
        if one is at:
            place = number
        for call in one.nodes.get(ast.FuncCall, ()):
            if protect is None and protects(call, table):
                protect = number
    return protect is None or place is None or protect <= place


@RULES.rule("WL401", ast.AlterTableStmt)
def volatile_default(node: ast.AlterTableStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table, command in _commands(node, at, project, AlterTableType.AT_AddColumn):
        functions = {call.funcname[-1].sval for call in nodes_of(command.def_).get(ast.FuncCall, ())}
        if functions & _VOLATILE:
            yield hit(table.name, at=command.def_)


@RULES.rule("WL402", ast.AlterTableStmt)
def type_change(node: ast.AlterTableStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table, command in _commands(node, at, project, AlterTableType.AT_AlterColumnType):
        yield hit(table.name, command.name)


@RULES.rule("WL403", ast.AlterTableStmt)
def not_null_by_scan(node: ast.AlterTableStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table, command in _commands(node, at, project, AlterTableType.AT_SetNotNull):
        if not _has_check(command.name, at, project):
            yield hit(table.name, command.name)


def _has_check(column: str, at: Statement, project: Project) -> bool:
    """Return whether a file says elsewhere that CHECK (column IS NOT NULL) holds."""
    return any(
        test.nulltesttype == 1 and isinstance(test.arg, ast.ColumnRef) and test.arg.fields[-1].sval == column
        for one in project.of_path(at.path)
        for constraint in one.nodes.get(ast.Constraint, ())
        for test in nodes_of(constraint.raw_expr).get(ast.NullTest, ())
    )


@RULES.rule("WL404", ast.AlterTableStmt)
def constraint_by_scan(node: ast.AlterTableStmt, at: Statement, project: Project) -> Iterator[Hit]:
    kinds = {ConstrType.CONSTR_CHECK: "CHECK", ConstrType.CONSTR_FOREIGN: "a foreign key"}
    for table, command in _commands(node, at, project, AlterTableType.AT_AddConstraint):
        if command.def_.contype in kinds and not command.def_.skip_validation:
            yield hit(table.name, kinds[command.def_.contype], at=command.def_)


@RULES.rule("WL405", ast.IndexStmt)
def index_in_every_ward(node: ast.IndexStmt, at: Statement, project: Project) -> Iterator[Hit]:
    table = _model(node.relation, project)
    if table is None or node.concurrent or not _is_protected_by_then(table, at, project):
        return
    if not indexed(node, project.model):  # else WL206
        yield hit(table.name)


@RULES.rule("WL406", ast.IndexStmt)
def concurrent_index_on_model(node: ast.IndexStmt, at: Statement, project: Project) -> Iterator[Hit]:
    table = _model(node.relation, project)
    if table is not None and node.concurrent:
        yield hit(table.name)


@RULES.rule("WL407", ast.TruncateStmt)
def truncate_of_all(node: ast.TruncateStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for relation in node.relations:
        if table := _model(relation, project):
            yield hit(table.name, at=relation)


@RULES.rule("WL408", ast.DropStmt)
def drop_of_all(node: ast.DropStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.removeType == ObjectType.OBJECT_TABLE:
        for names in node.objects:
            table = project.model.tables.get(name_of(names))
            if table is not None and table.is_protected:
                yield hit(table.name)


@RULES.rule("WL409", ast.AlterTableStmt)
def drop_column_without_cascade(node: ast.AlterTableStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table, command in _commands(node, at, project, AlterTableType.AT_DropColumn):
        if command.behavior == DropBehavior.DROP_RESTRICT:
            yield hit(table.name, command.name)
