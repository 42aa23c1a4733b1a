"""Reflection of faces: PostgreSQL's catalog has no keys of views, ``ward.face_constraints()`` does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

__all__ = ["FaceReflection"]

_CONSTRAINTS = """
    select face, constraint_type, constraint_name, columns, parse_ident(referenced_table), referenced_columns
    from ward.face_constraints()"""


def _columns(columns: Any, rows: list[Any]) -> Any:
    needed = {name for row in rows for name in row.columns}
    return [{**one, "nullable": one["nullable"] and one["name"] not in needed} for one in columns]


def _primary_key(_: Any, rows: list[Any]) -> Any:
    return {"constrained_columns": rows[0].columns, "name": rows[0].constraint_name, "comment": None}


def _unique(_: Any, rows: list[Any]) -> Any:
    return [{"name": row.constraint_name, "column_names": row.columns, "comment": None} for row in rows]


def _foreign_keys(_: Any, rows: list[Any]) -> Any:
    return [
        {
            "name": row.constraint_name,
            "constrained_columns": row.columns,
            "referred_schema": row.parse_ident[0] if len(row.parse_ident) > 1 else None,
            "referred_table": row.parse_ident[-1],
            "referred_columns": row.referenced_columns,
            "options": {},
            "comment": None,
        }
        for row in rows
    ]


def _with_faces(get: str, kind: str, told: Callable[[Any, list[Any]], Any]) -> Any:
    """Return the method ``get`` of a dialect, for which faces have constraints of this kind."""

    def multi(self: Any, connection: sa.Connection, **options: Any) -> Any:
        tables = dict(getattr(super(FaceReflection, self), get)(connection, **options))
        constraints = _constraints(connection, options.get("info_cache"))
        for schema, name in tables:
            rows = constraints.get((name, kind))
            if rows and (schema is None or schema.startswith("tenant_")):
                tables[schema, name] = told(tables[schema, name], rows)
        return tables.items()

    return multi


def _constraints(connection: sa.Connection, cache: Any) -> dict[tuple[str, str], list[Any]]:
    constraints: dict[tuple[str, str], list[Any]] | None = (cache or {}).get("wardkey")
    if constraints is None:
        constraints = defaultdict(list)
        for row in connection.execute(sa.text(_CONSTRAINTS)):
            constraints[row.face, row.constraint_type].append(row)
        if cache is not None:
            cache["wardkey"] = constraints
    return constraints


class FaceReflection:
    """A dialect whose faces, views without a schema or of a ward's, have the constraints of their tables."""

    get_multi_columns = _with_faces("get_multi_columns", "NOT NULL", _columns)
    get_multi_pk_constraint = _with_faces("get_multi_pk_constraint", "PRIMARY KEY", _primary_key)
    get_multi_unique_constraints = _with_faces("get_multi_unique_constraints", "UNIQUE", _unique)
    get_multi_foreign_keys = _with_faces("get_multi_foreign_keys", "FOREIGN KEY", _foreign_keys)
