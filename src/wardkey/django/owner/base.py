"""The backend. OPTIONS name the schema of model tables: ``"options": "-c search_path=clinic"``."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base, introspection
from django.utils.functional import cached_property

from ..errors import ErrorWrapper
from .schema import SchemaEditor
from .validation import DatabaseValidation

__all__ = ["DatabaseWrapper"]


class DatabaseIntrospection(introspection.DatabaseIntrospection):
    def get_constraints(self, cursor: Any, table_name: str) -> dict[str, dict[str, Any]]:
        """The constraints as declared: those of a model table have tenant_id before their columns."""
        constraints: dict[str, dict[str, Any]] = super().get_constraints(cursor, table_name)
        for one in constraints.values():
            if one["columns"] and len(one["columns"]) > 1 and one["columns"][0] == "tenant_id":
                del one["columns"][0]
        return constraints


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = SchemaEditor
    introspection_class = DatabaseIntrospection
    validation_class = DatabaseValidation

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)
