"""``upsert``: INSERT … ON CONFLICT for faces, as a call of ``ward.upsert``."""

from __future__ import annotations

import datetime
import decimal
import ipaddress
import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Json, Jsonb
from sqlalchemy.dialects import postgresql

from .dialect import WardDialect

__all__ = ["upsert"]

_DIALECT = WardDialect(dbapi=psycopg)  # type: ignore[no-untyped-call]


def upsert(
    face: Any,
    rows: Mapping[str, Any] | Iterable[Mapping[str, Any]],
    *,
    key: Sequence[str] | None = None,
    ignore: bool = False,
) -> sa.Select[tuple[int]]:
    """Return a statement that updates each row that has the same key, or inserts it; its scalar counts them.

    ``face``: a mapped class or Table. ``rows``: values by attribute, or by column of a Table. ``key``: those
    of a unique key, the primary one by default. ``ignore``: leaves a row that is there as it is. Raises
    KeyError for what is no column.
    """
    inspected = sa.inspect(face)
    table: sa.Table = getattr(inspected, "local_table", inspected)
    columns = inspected.columns
    listed = [rows] if isinstance(rows, Mapping) else rows
    values = [
        {columns[name].name: _value(columns[name].type, value) for name, value in row.items()}
        for row in listed
    ]
    names = None if key is None else postgresql.array([columns[name].name for name in key], type_=sa.Text)
    return sa.select(
        sa.func.ward.upsert(
            sa.cast(
                sa.literal(_DIALECT.identifier_preparer.format_table(table), sa.Text), postgresql.REGCLASS
            ),
            sa.cast(sa.literal(json.dumps(values, default=_text), sa.Text), postgresql.JSONB),
            sa.null() if names is None else names,
            ignore,
            type_=sa.BigInteger,
        )
    )


def _value(type_: sa.types.TypeEngine[Any], value: Any) -> Any:
    """Return what JSON has for a value of a column, as PostgreSQL reads it from there."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if value is not None and (process := type_.dialect_impl(_DIALECT).bind_processor(_DIALECT)) is not None:
        value = process(value)
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any) -> Any:
    match value:
        case Json() | Jsonb():
            return value.obj
        case datetime.date() | datetime.time():
            return value.isoformat()
        case datetime.timedelta():
            return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
        case decimal.Decimal() | uuid.UUID() | ipaddress.IPv4Address() | ipaddress.IPv6Address():
            return str(value)
    raise TypeError(f"a value of type {type(value).__name__} has no place in JSON")
