"""Tenancy: what opens one tenant's rows to another, or lets a program decide whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pglast import ast
from pglast.enums import AlterTableType, ConstrType, ObjectType, RoleSpecType, VariableSetKind

from .._flow import name_of
from .._model import HOLE, Project, Table, protects
from .._rule import Hit, Rules, Statement, hit, nodes_of, value

__all__ = ["CONTEXT", "RULES"]

RULES = Rules()
_TENANT_COLUMN = re.compile(
    r"(tenant|clinic|hospital|org|organi[sz]ation|customer|account|company|practice)_?(id|uuid)\Z"
)
CONTEXT = re.compile(
    r"(?!pgaudit\.)\w+\.\w*(tenant|clinic|org|customer|account|user|subject|role)\w*\Z", re.IGNORECASE
)
"""Settings of an application's own that look like a context."""
_PRIMARY = ConstrType.CONSTR_PRIMARY
_INNER = {"ward_internal", "ward_archive"}
_CLOSED = {*_INNER, "ward", "ward_model"}


def _tables(node: ast.CreateStmt, project: Project) -> Iterator[Table]:
    """Yield the table if it is one for tenants' rows: no partition, no temporary one, none of wardkey's."""
    relation = node.relation
    is_made = relation.relpersistence != "t" and not node.partbound and not node.inhRelations
    table = project.model.find(relation)
    if table is not None and is_made and relation.schemaname not in _CLOSED:
        yield table


@RULES.rule("WL101", ast.CreateStmt)
def unprotected_table(node: ast.CreateStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table in _tables(node, project):
        is_open = table.state is None and not project.model.is_vague
        if is_open and not any(map(_TENANT_COLUMN.match, table.columns)):
            yield hit(table.name)


@RULES.rule("WL102", ast.CreateStmt)
def tenant_by_column(node: ast.CreateStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for table in _tables(node, project):
        for element in node.tableElts or ():
            name = element.colname if isinstance(element, ast.ColumnDef) else ""
            if _TENANT_COLUMN.match(name) and table.state is None:
                yield hit(table.name, element.colname, at=element)
                return


@RULES.rule("WL103", ast.CreatePolicyStmt, ast.CreateTrigStmt, ast.RuleStmt)
def object_on_model(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    relation = node.table if isinstance(node, ast.CreatePolicyStmt) else node.relation
    if table := project.model.protected(relation):
        kind = {ast.CreatePolicyStmt: "a policy", ast.CreateTrigStmt: "a trigger"}.get(type(node), "a rule")
        yield hit(kind, table.name)


@RULES.rule("WL104", ast.CreatePolicyStmt)
def policy_trusts_setting(node: ast.CreatePolicyStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for call in nodes_of((node.qual, node.with_check)).get(ast.FuncCall, ()):
        if call.funcname[-1].sval == "current_setting":
            yield hit(node.policy_name, _name(node.table), at=call)
            return


@RULES.rule("WL107", ast.AlterTableStmt, ast.VariableSetStmt)
def security_off(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    if isinstance(node, ast.AlterTableStmt):
        if _has(node, AlterTableType.AT_DisableRowSecurity, AlterTableType.AT_NoForceRowSecurity):
            yield hit(_name(node.relation))
    elif node.name == "row_security" and node.args and value(node.args[0]) in ("off", False):
        yield hit("row_security")


@RULES.rule("WL108", ast.CreateFunctionStmt)
def definer_without_path(node: ast.CreateFunctionStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if _is_definer(node) and _path(node) is None:
        yield hit(name_of(node.funcname))


@RULES.rule("WL109", ast.CreateFunctionStmt)
def definer_path_unsafe(node: ast.CreateFunctionStmt, at: Statement, project: Project) -> Iterator[Hit]:
    path = _path(node) if _is_definer(node) else None
    if path is None:
        return
    open_ = {"public", "$user"} & set(path)
    if open_ or (path != [""] and path[-1] != "pg_temp"):
        yield hit(name_of(node.funcname), min(open_, default="pg_temp first"))


@RULES.rule("WL110", ast.CreateFunctionStmt)
def definer_open_to_public(node: ast.CreateFunctionStmt, at: Statement, project: Project) -> Iterator[Hit]:
    name = name_of(node.funcname)
    if _is_definer(node) and not any(_revokes(grant, name) for grant in project.nodes(ast.GrantStmt)):
        yield hit(name)


@RULES.rule("WL111", ast.VariableSetStmt, ast.FuncCall)
def setting_as_context(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    if isinstance(node, ast.VariableSetStmt):
        name = node.name if node.kind == VariableSetKind.VAR_SET_VALUE else None
    elif node.funcname[-1].sval == "set_config" and node.args:
        name = value(node.args[0])
    else:
        name = None
    if isinstance(name, str) and CONTEXT.match(name):
        yield hit(name, at=node if isinstance(node, ast.FuncCall) else None)


@RULES.rule("WL112", ast.CreateRoleStmt, ast.AlterRoleStmt)
def role_beyond_policies(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    name = node.role if isinstance(node, ast.CreateRoleStmt) else node.role.rolename
    for option in node.options or ():
        if option.defname in ("superuser", "bypassrls") and getattr(option.arg, "boolval", False):
            yield hit(name, option.defname)


@RULES.rule("WL113", ast.GrantRoleStmt)
def membership_in_ward(node: ast.GrantRoleStmt, at: Statement, project: Project) -> Iterator[Hit]:
    for role in node.granted_roles if node.is_grant else ():
        if re.match(r"(tenant|ward)_", role.priv_name or ""):
            yield hit(role.priv_name)


@RULES.rule("WL114", ast.VariableSetStmt)
def role_taken_by_set(node: ast.VariableSetStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.name in ("role", "session_authorization") and node.args:
        role = value(node.args[0])
        if isinstance(role, str) and re.match(r"(tenant|ward)_|" + HOLE, role):
            yield hit(role)


@RULES.rule("WL115", ast.GrantStmt)
def grant_to_public(node: ast.GrantStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if node.is_grant and node.objtype != ObjectType.OBJECT_TYPE and _is_public(node):
        yield hit(", ".join(one.priv_name.upper() for one in node.privileges or ()) or "everything")


@RULES.rule("WL116", ast.GrantStmt)
def grant_on_model(node: ast.GrantStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if not node.is_grant:
        return
    for one in node.objects or ():
        if isinstance(one, ast.RangeVar):
            inner = one.schemaname in _CLOSED or re.match("tenant_|sealed_", one.schemaname or "")
            if inner or project.model.protected(one):
                yield hit(_name(one), at=one)
        elif isinstance(one, ast.String) and one.sval in _CLOSED and at.origin != "body":
            yield hit(f"schema {one.sval}")


@RULES.rule("WL117", ast.ViewStmt)
def view_with_owners_rights(node: ast.ViewStmt, at: Statement, project: Project) -> Iterator[Hit]:
    if any(option.defname == "security_invoker" and _is_on(option.arg) for option in node.options or ()):
        return
    for relation in nodes_of(node.query).get(ast.RangeVar, ()):
        if table := project.model.protected(relation):
            yield hit(_name(node.view), table.name, at=relation)
            return


@RULES.rule("WL118", ast.RangeVar, ast.FuncCall)
def inside_of_wardkey(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    schema = node.schemaname if isinstance(node, ast.RangeVar) else name_of(node.funcname[:-1])
    if schema in _INNER:
        yield hit(_name(node) if isinstance(node, ast.RangeVar) else name_of(node.funcname), at=node)


@RULES.rule("WL119", ast.AlterTableStmt, ast.VariableSetStmt)
def triggers_off(node: Any, at: Statement, project: Project) -> Iterator[Hit]:
    if isinstance(node, ast.AlterTableStmt):
        if any(command.subtype.name.startswith("AT_DisableTrig") for command in node.cmds):
            yield hit(_name(node.relation))
    elif node.name == "session_replication_role" and node.args and value(node.args[0]) != "origin":
        yield hit(node.name)


@RULES.rule("WL120", ast.FuncCall)
def defence_taken_away(node: ast.FuncCall, at: Statement, project: Project) -> Iterator[Hit]:
    name, arguments = name_of(node.funcname), [value(one) for one in node.args or ()]
    weak = arguments in (["no_context", "empty"], ["catalog", "open"], ["require_baa", "off"])
    if name == "ward.unprotect":
        yield hit(name, at=node)
    elif name == "ward.set" and weak:
        yield hit(f"ward.set('{arguments[0]}', '{arguments[1]}')", at=node)


@RULES.rule("WL121", ast.CreateStmt)
def not_protectable(node: ast.CreateStmt, at: Statement, project: Project) -> Iterator[Hit]:
    table = project.model.protected(node.relation)
    if table is None or node.relation.relpersistence == "t":
        return
    if node.partspec or node.inhRelations or node.relation.relpersistence == "u":
        yield hit(table.name, "it is not an ordinary table", "declare a plain table")
    if "tenant_id" in table.columns:
        yield hit(table.name, "it has a column tenant_id", "leave the column out")
    here = [node, *(one for one in project.nodes(ast.AlterTableStmt) if _name(one.relation) == table.name)]
    keys = [one for one in nodes_of(tuple(here)).get(ast.Constraint, ()) if one.contype == _PRIMARY]
    if not keys and ast.TableLikeClause not in at.nodes:
        yield hit(table.name, "it has no primary key", "declare a primary key")


@RULES.rule("WL122", ast.Constraint)
def reference_to_model(node: ast.Constraint, at: Statement, project: Project) -> Iterator[Hit]:
    if node.contype != ConstrType.CONSTR_FOREIGN or node.pktable.schemaname == "ward_model":
        return
    table = project.model.protected(node.pktable)
    if table is None:
        return
    for earlier in project.of_path(at.path):
        if earlier is at:
            return
        for call in earlier.nodes.get(ast.FuncCall, ()):
            if protects(call, table):
                yield hit(table.name, table.name.replace(".", "__"), at=node)
                return


def _name(relation: Any) -> str:
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else str(relation.relname)


def _has(node: ast.AlterTableStmt, *kinds: AlterTableType) -> bool:
    return any(command.subtype in kinds for command in node.cmds)


def _is_on(node: Any) -> bool:
    said = getattr(node, "sval", getattr(node, "boolval", True))
    return said is True or str(said).lower() in ("true", "on", "yes", "1")


def _is_definer(node: ast.CreateFunctionStmt) -> bool:
    return any(one.defname == "security" and one.arg.boolval for one in node.options or ())


def _path(node: ast.CreateFunctionStmt) -> list[str] | None:
    for option in node.options or ():
        if option.defname == "set" and option.arg.name == "search_path":
            return [str(value(one)) for one in option.arg.args or ()]
    return None


def _is_public(node: ast.GrantStmt) -> bool:
    return any(one.roletype == RoleSpecType.ROLESPEC_PUBLIC for one in node.grantees or ())


def _revokes(node: ast.GrantStmt, function: str) -> bool:
    if node.is_grant or not _is_public(node):
        return False
    for one in node.objects or ():
        if isinstance(one, ast.ObjectWithArgs) and name_of(one.objname) == function:
            return True
        if isinstance(one, ast.String) and one.sval == function.rpartition(".")[0]:  # all functions in schema
            return True
    return node.objtype == ObjectType.OBJECT_FUNCTION and not node.objects  # default privileges
