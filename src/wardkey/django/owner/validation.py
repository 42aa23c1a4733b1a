"""What ``check --database owner`` and ``migrate`` say where models and database contradict each other."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Warning
from django.db.backends.base.validation import BaseDatabaseValidation

from ..fields import SealedField
from ..tables import is_ward

__all__ = ["DatabaseValidation"]

_CLASSES = """
    SELECT a.attname, m.relation IS NOT NULL, m.classes ->> a.attname
    FROM pg_attribute AS a LEFT JOIN ward.models AS m ON m.relation = a.attrelid
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""


class DatabaseValidation(BaseDatabaseValidation):
    """Warnings, not errors: a migration that has yet to run may be the remedy."""

    def check(self, **options: Any) -> list[CheckMessage]:
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('ward.models') IS NULL")
            if cursor.fetchone() == (True,):
                return []  # a migration is to create the extension
        hint = "was it changed by hand? let model and database say the same, by a migration or as a superuser"
        models = filter(is_ward, apps.get_models(include_auto_created=True))
        return [
            Warning(said, hint, model, "wardkey.W001")
            for model in models
            for said in self._contradictions(model)
        ]

    def _contradictions(self, model: Any) -> list[str]:
        with self.connection.cursor() as cursor:
            cursor.execute(_CLASSES, [self.connection.ops.quote_name(model._meta.db_table)])
            columns = {name: (is_protected, kept) for name, is_protected, kept in cursor.fetchall()}
        if any(not is_protected for is_protected, _ in columns.values()):
            return [f"table {model._meta.db_table} is not protected"]
        return [
            f"column {field.column} is of class {kept} in the database, {wanted} in the model"
            for field in model._meta.local_fields
            for _, kept in [columns.get(field.column, (True, None))]
            for wanted in [field.classified if isinstance(field, SealedField) else None]
            if field.column in columns and kept != wanted
        ]
