"""Clients: tokens in source, state that outlives a transaction, statements that faces refuse."""

from __future__ import annotations

import ast as python
import re
from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.enums import OnConflictAction, VariableSetKind

from .._flow import name_of
from .._model import HOLE, Project
from .._python import Call, Text
from .._rule import Hit, Rules, Statement, hit, value
from .flow import LOGGING
from .tenancy import CONTEXT

__all__ = ["RULES"]

RULES = Rules()
_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")
_OTHERS = {
    "application_name", "client_encoding", "client_min_messages",  # harmless
    "role", "row_security", "session_authorization", "session_replication_role",  # WL107, WL114, WL119
}  # fmt: skip


@RULES.rule("WL501", ast.A_Const, Text)
def token_in_source(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    text = node.value if isinstance(node, Text) else value(node)
    if isinstance(text, str) and _TOKEN.search(text):
        yield hit(at=node if isinstance(node, ast.A_Const) else None)


@RULES.rule("WL502", ast.CreateRoleStmt, ast.AlterRoleStmt)
def password_in_source(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    for option in node.options or ():
        said = getattr(option.arg, "sval", None)
        is_plain = said and HOLE not in said and not said.startswith("SCRAM-SHA-256$")
        if option.defname == "password" and is_plain:
            yield hit(node.role if isinstance(node, ast.CreateRoleStmt) else node.role.rolename)


_HOLD = 0x0020  # CURSOR_OPT_HOLD of PostgreSQL


@RULES.rule("WL503", ast.DeclareCursorStmt)
def held_cursor(node: ast.DeclareCursorStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.options & _HOLD:
        yield hit(node.portalname)


@RULES.rule("WL504", ast.VariableSetStmt)
def setting_of_session(node: ast.VariableSetStmt, at: Statement, project: Project) -> Iterator[Hit]:
    is_statement = node is at.node  # and no part of CREATE FUNCTION, say
    is_other = node.name in _OTHERS or node.name in LOGGING or CONTEXT.match(node.name or "")
    if is_statement and not is_other and node.kind == VariableSetKind.VAR_SET_VALUE and not node.is_local:
        yield hit(node.name)


@RULES.rule("WL505", ast.ListenStmt)
def listen_behind_pooler(node: ast.ListenStmt, at: Statement, project: Project) -> Iterator[Hit]:
    yield hit(node.conditionname)


@RULES.rule("WL506", ast.FuncCall)
def advisory_lock_of_session(node: ast.FuncCall, at: Statement, project: Project) -> Iterator[Hit]:
    name = node.funcname[-1].sval
    if re.fullmatch(r"pg_(try_)?advisory_lock(_shared)?", name):
        yield hit(name, name.replace("advisory_", "advisory_xact_"), at=node)


@RULES.rule("WL507", ast.PrepareStmt)
def prepared_in_sql(node: ast.PrepareStmt, at: Statement, project: Project) -> Iterator[Hit]:
    yield hit(node.name)


@RULES.rule("WL508", ast.CreateStmt, ast.CreateTableAsStmt)
def temporary_table_of_session(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    relation = node.relation if isinstance(node, ast.CreateStmt) else node.into.rel
    action = node.oncommit if isinstance(node, ast.CreateStmt) else node.into.onCommit
    if relation.relpersistence == "t" and action.name != "ONCOMMIT_DROP":
        yield hit(relation.relname)


@RULES.rule("WL509", ast.FuncCall)
def login_for_session(node: ast.FuncCall, at: Statement, project: Project) -> Iterator[Hit]:
    if name_of(node.funcname) == "ward.login_session":
        yield hit(at=node)


@RULES.rule("WL510", Call)
def login_with_autocommit(node: Call, at: Statement, project: Project) -> Iterator[Hit]:
    said = {one.arg: one.value.value for one in node.node.keywords if isinstance(one.value, python.Constant)}
    if said.get("autocommit") is True or said.get("isolation_level") == "AUTOCOMMIT":
        calls = [call for one in project.of_path(at.path) for call in one.nodes.get(ast.FuncCall, ())]
        if any(name_of(call.funcname) == "ward.login" for call in calls):
            yield hit()


@RULES.rule("WL511", ast.A_Const, ast.ColumnRef)
def value_put_into_sql(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    if at.origin != "executed":
        return
    if isinstance(node, ast.ColumnRef):
        is_hole = name_of(node.fields) == HOLE and any(
            node in (one.lexpr, one.rexpr) for one in at.nodes.get(ast.A_Expr, ())
        )
    else:
        is_hole = HOLE in str(value(node) or "")
    if is_hole:
        yield hit(at=node)


@RULES.rule("WL512", ast.InsertStmt)
def conflict_on_face(node: ast.InsertStmt, at: Statement, project: Project) -> Iterator[Hit]:
    clause = node.onConflictClause
    if clause is None or project.model.protected(node.relation) is None:
        return
    if clause.infer is not None or clause.action == OnConflictAction.ONCONFLICT_UPDATE:
        yield hit(node.relation.relname, node.relation.relname, at=clause)


@RULES.rule("WL513", ast.CopyStmt)
def copy_of_face(node: ast.CopyStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.relation is not None and not node.is_from and project.model.protected(node.relation):
        yield hit(node.relation.relname, at=node.relation)
