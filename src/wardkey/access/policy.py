"""The access policy: the platform's in the database and with the keeper, and what it comes to in a tenant.

``set_cell`` changes both copies or neither. The keeper's is the one that counts for keys: where the database
says more, backends get no key for it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row
from wardkey_core.administration import InvalidPolicy
from wardkey_core.policy import Cell, Policy
from wardkey_core.policy_document import changed

from ..daemon.files import locked
from ..errors import ServerError, UnknownTenant
from ..keeper.policy import POLICY_FILE, read_policy, write_policy

__all__ = ["classes", "classify", "differences", "matrix", "platform", "set_cell", "to_json"]

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]

_PLATFORM = """
select p.role, p.class, p.access, p.writes, p.decided_by, p.decided_at
  from ward_internal.platform_policy as p join ward_internal.known_classes as c on c.name = p.class
 order by array_position('{ADMIN,EVALUATOR,ANALYST,VIEWER}', p.role), c.number"""
_TENANT = """
select a.role, a.class, a.access, a.writes, a.platform_access, a.platform_writes, a.decided_by, a.decided_at
  from ward_internal.tenant_access as a join ward_internal.known_classes as c on c.name = a.class
 where a.tenant_id = %s
 order by array_position('{ADMIN,EVALUATOR,ANALYST,VIEWER}', a.role), c.number"""
_CLASSES = "select name, description, mask, columns from ward.classes order by number"
_COLUMNS = """
select m.face as "table", k.name as "column", k.class, k.kind as type, k.mask
  from ward_internal.column_classes as k join ward_internal.models as m on m.id = k.model_id
 order by m.face, k.name"""
_RULES = """
select relation::text as "table", name, roles, expression, made_by, made_at
  from ward.row_rules order by 1, 2"""
_HISTORY = """
select at, replace(operation, '_', ' ') as kind, coalesce(subject, database_role) as actor, detail
  from ward_internal.audit_log
 where kind = 'e' and tenant_id in (ward_internal.master_id(), %s)
   and operation in (
     'policy_set', 'policy_narrowed', 'policy_restored', 'class_added', 'classified', 'mask_set',
     'protected', 'row_rule_added', 'row_rule_dropped')
 order by at"""


def set_cell(
    connection: Connection | None,
    keeper: Path | None,
    role: str,
    name: str,
    access: str,
    write: bool | None = None,
) -> Cell:
    """Change one cell of the platform's policy in the database and in the keeper; commits.

    In one of them only where the other is None. ``write``: None leaves it as it is, if it may be so. Raises
    InvalidPolicy, psycopg.Error (WK204, WK234), OSError, ServerError.
    """
    if keeper is None:
        _set_in_database(connection, role, name, access, write)
        return Cell(access, bool(write))
    path = keeper / POLICY_FILE
    _read(keeper)
    with locked(path.parent):
        existed, before = path.exists(), _read(keeper)
        known = before.get(role, {}).get(name, Cell())
        cell = Cell(access, access != "none" and known.write if write is None else write)
        try:
            made = changed(before, role, name, cell)
        except ValueError as error:
            raise InvalidPolicy(str(error), "wardkey access policy show says what holds now") from None
        if connection is not None:
            connection.execute("select ward.set_policy(%s, %s, %s, %s)", [role, name, access, cell.write])
        try:
            write_policy(path, made)
            if connection is not None:
                connection.commit()
        except BaseException:
            with suppress(OSError):
                write_policy(path, before) if existed else path.unlink(missing_ok=True)
            raise
    return cell


def platform(connection: Connection | None, keeper: Path | None) -> Rows:
    """Return the platform's policy, a row a cell; ``keeper``: what the keeper gives, if it was asked."""
    rows = _rows(connection, _PLATFORM) if connection is not None else []
    policy = _read(keeper) if keeper is not None else None
    if connection is None and policy is not None:
        return [
            {"role": role, "class": name, "keeper": _text(cell)}
            for role, classes in policy.items()
            for name, cell in classes.items()
        ]
    for row in rows:
        cell = policy.get(row["role"], {}).get(row["class"], Cell()) if policy is not None else None
        row["keeper"] = None if cell is None else _text(cell)
    return rows


def classes(connection: Connection) -> Rows:
    """Return the classes, with their columns and masks."""
    return _rows(connection, _CLASSES)


def classify(connection: Connection, table: str, column: str, name: str) -> int:
    """Give a sealed column another class. Return in how many tenants its values are to be resealed."""
    ((tenants,),) = connection.execute(
        "select ward.classify(%s::regclass, %s, %s)", [table, column, name]
    ).fetchall()
    return int(tenants)


def differences(connection: Connection | None, keeper: Path | None) -> Rows:
    """Return the cells in which database and keeper differ."""
    return [
        row
        for row in platform(connection, keeper)
        if row["keeper"] != _text(Cell(row["access"], row["writes"]))
    ]


def matrix(connection: Connection, slug: str) -> dict[str, Any]:
    """Return the access control matrix of a tenant: who sees what, by what decision. Raises UnknownTenant.

    The minimum necessary of 45 CFR 164.514(d)(2): roles, the categories of protected health information that
    each needs, and conditions, with who decided them and when.
    """
    row = connection.execute("select id, name from ward.tenants where slug = %s", [slug]).fetchone()
    if row is None:
        raise UnknownTenant("no such tenant", "list them: wardkey tenant list")
    return {
        "tenant": {"id": row[0], "slug": slug, "name": row[1]},
        "classes": _rows(connection, _CLASSES),
        "columns": _rows(connection, _COLUMNS),
        "cells": _rows(connection, _TENANT, row[0]),
        "row_rules": _rows(connection, _RULES),
        "history": _rows(connection, _HISTORY, row[0]),
    }


def to_json(facts: dict[str, Any]) -> str:
    """Return a matrix as JSON, times in ISO 8601."""
    return json.dumps(facts, indent=1, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _set_in_database(
    connection: Connection | None, role: str, name: str, access: str, write: bool | None
) -> None:
    if connection is not None:
        connection.execute("select ward.set_policy(%s, %s, %s, %s)", [role, name, access, write])
        connection.commit()


def _rows(connection: Connection, query: str, *values: object) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


def _text(cell: Cell) -> str:
    return f"{cell.access}, writes" if cell.write else cell.access


def _read(keeper: Path) -> Policy:
    if not keeper.is_dir():
        raise ServerError(
            f"the keeper's directory {keeper} is not here",
            "run this on the keeper's host, as a user who may read there, with --keeper-directory",
        )
    try:
        return read_policy(keeper / POLICY_FILE)
    except ValueError as error:
        raise ServerError(
            f"{keeper / POLICY_FILE}: {error}", "restore it, or remove it: then the default policy holds"
        ) from None
