"""Bases of models, and what the ORM cannot say of a face.

::

    class Patient(WardModel):
        mrn = models.CharField(max_length=20, unique=True)
        name = Sealed(models.CharField(max_length=80), classified="identifier", mask="initial")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connections, models, router
from django.utils.duration import duration_iso_string

from .fields import Sealed
from .tables import Shared, Ward

__all__ = ["Sealed", "SharedModel", "WardModel", "upsert"]


class WardModel(Ward, models.Model):
    """Each tenant has rows of its own. The migration that makes the table protects it."""

    class Meta:
        abstract = True


class SharedModel(Shared, models.Model):
    """All tenants read the same rows; the alias of the owner writes them."""

    class Meta:
        abstract = True


def upsert(objects: Sequence[Any], *, fields: Sequence[str], key: Sequence[str] = ("pk",)) -> int:
    """Write ``fields`` of each object into the row that has its ``key``, or insert it; return how many.

    For ``bulk_create(update_conflicts=True)``, which PostgreSQL does not have for views. ``key``: fields of a
    unique constraint. The objects are of one model; what the database gives them is not read back.
    """
    if not objects:
        return 0
    meta = objects[0]._meta
    connection = connections[router.db_for_write(meta.model)]
    keys = [meta.pk if name == "pk" else meta.get_field(name) for name in key]
    written = {field.column: field for field in (*keys, *(meta.get_field(name) for name in fields))}
    rows = [
        {column: _value(field, field.pre_save(one, True)) for column, field in written.items()}
        for one in objects
    ]
    with connection.cursor() as cursor:
        cursor.execute(
            "select ward.upsert(%s::regclass, %s::jsonb, key => %s)",
            [
                connection.ops.quote_name(meta.db_table),
                json.dumps(rows, default=_text),
                [one.column for one in keys],
            ],
        )
        (count,) = cursor.fetchone()
    return int(count)


def _value(field: Any, value: Any) -> Any:
    if hasattr(value, "resolve_expression"):
        raise TypeError("upsert takes values, not expressions")
    return field.get_prep_value(value)


def _text(value: Any) -> str:
    match value:
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case timedelta():
            return str(duration_iso_string(value))
        case date() | datetime() | time() | Decimal() | UUID():
            return str(value)
    raise TypeError(f"upsert cannot write a {type(value).__name__}")
