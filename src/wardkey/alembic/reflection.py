"""What the database has: the wards' facts, and model tables as they were declared.

A model table is partitioned, has a column more and stores bytes; what its declaration says is in its shape, a
table of schema ward_model. ``Shapes`` answers for model tables from there.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

__all__ = ["Key", "Model", "Shapes", "Wards", "normal_expression"]

Key = tuple[str | None, str]  # schema, None for the default one, and name of a table

SHAPES = "ward_model"
_OURS = ("ward", "ward_internal", "ward_archive", "ward_migrations", SHAPES)
_KINDS = (
    "check_constraints", "columns", "foreign_keys", "indexes", "pk_constraint", "table_comment",
    "table_options", "unique_constraints",
)  # fmt: skip
_MODELS = """
    select n.nspname, c.relname, s.relname, m.classes, m.masks, m.audit, m.audit_reason, (
      select coalesce(jsonb_object_agg(r.name, jsonb_build_array(r.roles, r.expression)), '{}')
      from ward.row_rules as r where r.model_id = m.id), (
      select coalesce(jsonb_agg(jsonb_build_array(s.column_name, s.kind, s.normaliser, s.step)), '[]')
      from ward.searches as s where s.relation = m.relation), (
      select coalesce(jsonb_object_agg(u.name, jsonb_build_array(u.columns, u.normaliser)), '{}')
      from ward.uniques as u where u.relation = m.relation)
    from ward.models as m
    join pg_class as c on c.oid = m.relation
    join pg_namespace as n on n.oid = c.relnamespace
    join pg_class as s on s.oid = m.shape"""
_SHARES = """
    select n.nspname, c.relname from ward_internal.shares as s
    join pg_class as c on c.oid = s.relation join pg_namespace as n on n.oid = c.relnamespace"""
_EXPRESSION = """
    select pg_get_expr(polqual, polrelid) from pg_policy where polrelid = 'pg_temp.wardkey_rule'::regclass"""
_SCHEMAS = "select schema_name from ward_internal.ward_schemas()"


@dataclass(frozen=True, slots=True)
class Model:
    """A model table of the database. ``sealed``: columns and their classes; ``masks``: only those set.

    ``searches``: column and kind of each, with its normaliser and step. ``uniques``: columns, some of them
    sealed, and their normaliser.
    """

    shape: str
    sealed: Mapping[str, str]
    masks: Mapping[str, str]
    audit: str
    audit_reason: str | None
    rules: Mapping[str, tuple[tuple[str, ...], str]]
    searches: Mapping[tuple[str, str], tuple[str, float | None]]
    uniques: Mapping[str, tuple[Sequence[str], str]]


@dataclass(frozen=True, slots=True)
class Wards:
    """All that wardkey knows of a database; empty without the extension. ``schemas``: its own and wards'."""

    models: Mapping[Key, Model]
    shares: Collection[Key]
    schemas: Collection[str]

    @classmethod
    def of(cls, connection: sa.Connection) -> Wards:
        if connection.exec_driver_sql("select to_regclass('ward.models')").scalar() is None:
            return cls({}, (), ())
        default = connection.dialect.default_schema_name

        def key(schema: str, name: str) -> Key:
            return None if schema == default else schema, name

        rows = connection.exec_driver_sql(_MODELS)
        models = {
            key(schema, name): Model(
                shape, classes, masks, audit, reason,
                {rule: (tuple(roles), expression) for rule, (roles, expression) in rules.items()},
                {(column, kind): (normaliser, step) for column, kind, normaliser, step in searches},
                {unique: (columns, normaliser) for unique, (columns, normaliser) in uniques.items()},
            )
            for schema, name, shape, classes, masks, audit, reason, rules, searches, uniques in rows
        }  # fmt: skip
        shares = {key(*row) for row in connection.exec_driver_sql(_SHARES)}
        return cls(models, shares, {*_OURS, *connection.exec_driver_sql(_SCHEMAS).scalars()})

    @property
    def has_tenants(self) -> bool:
        return bool(set(self.schemas) - set(_OURS))

    def declared(self, schema: str | None, name: str) -> Key:
        """Return the model table whose shape this is, or the name itself."""
        if schema == SHAPES:
            return next((key for key, model in self.models.items() if model.shape == name), (schema, name))
        return schema, name


class Shapes:
    """An inspector that answers ``get_…`` and ``get_multi_…`` for model tables from their shapes."""

    def __init__(self, inspector: sa.Inspector, wards: Wards) -> None:
        self._inspector = inspector
        self.wards = wards

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inspector, name)
        kind = name.removeprefix("get_").removeprefix("multi_")
        if kind not in _KINDS:
            return method
        answer = self._multi if name.startswith("get_multi_") else self._one
        return functools.wraps(method)(functools.partial(answer, f"get_{kind}", method))

    def _one(self, get: str, method: Any, table_name: str, schema: str | None = None, **options: Any) -> Any:
        model = self.wards.models.get((schema, table_name))
        if model is None:
            return method(table_name, schema=schema, **options)
        return self._of_shape(get, model, table_name, schema)

    def _multi(self, get: str, method: Any, schema: str | None = None, **options: Any) -> dict[Key, Any]:
        answers: dict[Key, Any] = dict(method(schema=schema, **options))
        for key in answers.keys() & self.wards.models.keys():
            answers[key] = self._of_shape(get, self.wards.models[key], key[1], schema)
        return answers

    def _of_shape(self, get: str, model: Model, table_name: str, schema: str | None) -> Any:
        if get == "get_table_comment":
            return self._inspector.get_table_comment(table_name, schema=schema)
        told = getattr(self._inspector, get)(model.shape, schema=SHAPES)
        if get == "get_columns":  # comments are the table's: COMMENT does not reach the shape
            own = {one["name"]: one for one in self._inspector.get_columns(table_name, schema=schema)}
            return [{**one, "comment": own[one["name"]].get("comment")} for one in told]
        if get == "get_unique_constraints":
            told = told + [
                {"name": name, "column_names": [*columns], "comment": None, "dialect_options": {}}
                for name, (columns, _) in model.uniques.items()
            ]
        if get == "get_foreign_keys":
            for one in told:
                target = self.wards.declared(one["referred_schema"], one["referred_table"])
                one["referred_schema"], one["referred_table"] = target
        return told


def normal_expression(connection: sa.Connection, model: Model, expression: str) -> str:
    """Return the condition of a row rule as PostgreSQL writes it, or as it is where it is no condition.

    It is asked by a policy on an empty temporary table of the same columns, which is taken back.
    """
    shape = connection.dialect.identifier_preparer.quote(model.shape)
    condition = expression.replace("%", "%%")
    with connection.begin_nested() as savepoint:
        try:
            connection.exec_driver_sql(f"create temporary table wardkey_rule (like {SHAPES}.{shape})")
            connection.exec_driver_sql(f"create policy rule on pg_temp.wardkey_rule using ({condition}\n)")
            expression = connection.exec_driver_sql(_EXPRESSION).scalar_one()
        except DBAPIError:
            pass  # the operation tells what is wrong with it
        savepoint.rollback()
    return expression
