"""DDL of migrations on model tables: Django's, where a protected table wants it otherwise.

A migration makes ordinary tables with their keys and indexes. At its end, or before the first operation
that needs it, ``protect_pending`` protects those of ward models, with the columns of sealed fields. From then
on a table is changed as its DBA would: a sealed column is added by ``ward.add_sealed_column``, a unique key
begins with tenant_id, a foreign key references a shape. What wardkey refuses is refused here, by the same
error.
"""

from __future__ import annotations

import json
from copy import copy
from typing import Any

from django.db import NotSupportedError
from django.db.backends.ddl_references import Statement, Table
from django.db.backends.postgresql import schema

from ..fields import SealedField
from ..tables import is_shared, is_ward

__all__ = ["SchemaEditor"]

_UNPROTECT = "SELECT ward.unprotect(relation) FROM ward.models WHERE relation = to_regclass('%(table)s'); "


class SchemaEditor(schema.DatabaseSchemaEditor):
    """``pending``: tables of ward models that are not protected yet, and their sealed fields by column."""

    pending: dict[str, dict[str, SealedField]]
    deferred_sql: list[Any]
    sql_create_column_inline_fk = None  # in a statement of its own, which can reference a shape
    sql_delete_column = "ALTER TABLE %(table)s DROP COLUMN %(column)s CASCADE"  # faces come back without it
    sql_delete_table = _UNPROTECT + schema.DatabaseSchemaEditor.sql_delete_table

    def __enter__(self) -> Any:
        self.pending = {}
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None:
            try:
                self.protect_pending()
            except BaseException as failure:
                super().__exit__(type(failure), failure, failure.__traceback__)
                raise
        super().__exit__(kind, error, traceback)

    def protect_pending(self) -> None:
        """Protect the tables made so far, after their keys and indexes and before their foreign keys."""
        deferred, self.deferred_sql = self.deferred_sql, []
        later = [one for one in deferred if isinstance(one, Statement) and "to_table" in one.parts]
        for statement in deferred:
            if statement not in later:
                self.execute(statement, None)
        for table, sealed in self.pending.items():
            self.call("protect", table, {column: field.classified for column, field in sealed.items()})
            for column, field in sealed.items():
                if field.mask:
                    self.call("set_mask", table, column, field.mask)
        for statement in later:  # two tables may reference each other: by their shapes, which are there now
            self.execute(statement, None)
        self.pending = {}

    def call(self, function: str, table: str, *arguments: Any) -> None:
        """Call a function of schema ward for a table, given by its name in the search_path."""
        marks = ["%s::regclass", *("%s::jsonb" if isinstance(one, dict) else "%s" for one in arguments)]
        given = [json.dumps(one) if isinstance(one, dict) else one for one in arguments]
        self.execute(f"SELECT ward.{function}({', '.join(marks)})", [self.quote_name(table), *given])

    def create_model(self, model: Any) -> None:
        table = model._meta.db_table
        if is_ward(model):
            self.pending[table] = {}
            for field in model._meta.local_fields:
                self._note(table, field)
        super().create_model(model)
        if is_shared(model):
            self.call("share", table)

    def delete_model(self, model: Any) -> None:
        super().delete_model(model)
        self.pending.pop(model._meta.db_table, None)

    def alter_db_table(self, model: Any, old_db_table: str, new_db_table: str) -> None:
        if old_db_table != new_db_table and is_ward(model) and old_db_table not in self.pending:
            raise NotSupportedError(f"faces keep their name: let Meta say db_table = {old_db_table!r}")
        super().alter_db_table(model, old_db_table, new_db_table)
        if old_db_table in self.pending:
            self.pending[new_db_table] = self.pending.pop(old_db_table)

    def add_field(self, model: Any, field: Any) -> None:
        table = model._meta.db_table
        if field.many_to_many or not self._is_protected(model):
            self._note(table, field)
            super().add_field(model, field)
        elif isinstance(field, SealedField):
            self._add_sealed(table, field)
        elif field.unique:
            plain = copy(field)
            vars(plain).pop("unique", None)  # what is cached of _unique
            plain._unique = plain.db_index = False
            super().add_field(model, plain)
            self.execute(self._create_unique_sql(model, [field]), None)
        else:
            super().add_field(model, field)

    def remove_field(self, model: Any, field: Any) -> None:
        super().remove_field(model, field)
        self.pending.get(model._meta.db_table, {}).pop(field.column, None)

    def alter_field(self, model: Any, old_field: Any, new_field: Any, strict: bool = False) -> None:
        table, (was, will) = (
            model._meta.db_table,
            (isinstance(one, SealedField) for one in (old_field, new_field)),
        )
        if not self._is_protected(model):
            super().alter_field(model, old_field, new_field, strict)
            self.pending.get(table, {}).pop(old_field.column, None)
            self._note(table, new_field)
        elif was or will:
            types = {one.db_type(self.connection) for one in (old_field, new_field)}
            if not (was and will) or len(types) > 1:
                raise NotSupportedError(
                    f"{new_field}: nobody can change what is stored of a sealed column; add another field"
                )
            same = copy(new_field)
            same.null = old_field.null  # else Django would write a plaintext where there is none
            super().alter_field(model, old_field, same, strict)
            self._alter_sealed(table, old_field, new_field)
        else:
            super().alter_field(model, old_field, new_field, strict)

    def _add_sealed(self, table: str, field: Any) -> None:
        default = self.db_default_sql(field) if field.has_db_default() else (None, [])
        default = default[0] and self.connection.ops.compose_sql(*default)
        parameters = field.db_parameters(connection=self.connection)
        self.call("add_sealed_column", table, field.column, parameters["type"], default, field.classified)
        if field.mask:
            self.call("set_mask", table, field.column, field.mask)
        names = {"table": self.quote_name(table), "column": self.quote_name(field.column)}
        if parameters["check"]:
            shape = self.shape(table) or names["table"]
            self.execute(f"ALTER TABLE {shape} ADD CHECK ({parameters['check']}) NOT VALID", None)
        if not field.null:
            self.execute("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL".format(**names), None)

    def _alter_sealed(self, table: str, old: Any, new: Any) -> None:
        if old.null != new.null:
            action = "DROP NOT NULL" if new.null else "SET NOT NULL"
            names = self.quote_name(table), self.quote_name(new.column)
            self.execute("ALTER TABLE {} ALTER COLUMN {} {}".format(*names, action), None)
        if old.classified != new.classified:
            self.call("classify", table, new.column, new.classified)
        if old.mask != new.mask:
            self.call("set_mask", table, new.column, new.mask)

    def _create_unique_sql(self, model: Any, *arguments: Any, **options: Any) -> Any:
        statement = super()._create_unique_sql(model, *arguments, **options)
        if statement is not None and self._is_protected(model):
            statement.parts["columns"] = f"tenant_id, {statement.parts['columns']}"
        return statement

    def _create_fk_sql(self, model: Any, field: Any, suffix: str) -> Any:
        statement = super()._create_fk_sql(model, field, suffix)
        target = field.target_field.model
        if is_ward(target):
            statement.parts["to_table"] = _Shape(target._meta.db_table, self)
        return statement

    def _note(self, table: str, field: Any) -> None:
        if table in self.pending and isinstance(field, SealedField):
            self.pending[table][field.column] = field

    def _is_protected(self, model: Any) -> bool:
        return is_ward(model) and model._meta.db_table not in self.pending

    def shape(self, table: str) -> str | None:
        """The name of the shape of a protected table."""
        with self.connection.cursor() as cursor:
            query = "SELECT shape::text FROM ward.models WHERE relation = to_regclass(%s)"
            cursor.execute(query, [self.quote_name(table)])
            row = cursor.fetchone()
        return row and str(row[0])


class _Shape(Table):
    """In a statement, the table that a foreign key references: when it is executed, its shape."""

    def __init__(self, table: str, editor: SchemaEditor) -> None:
        super().__init__(table, editor.quote_name)
        self._editor = editor

    def __str__(self) -> str:
        return self._editor.shape(self.table) or super().__str__()
