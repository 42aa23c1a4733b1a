"""The log as a client of the database reads it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import UUID

import psycopg
from psycopg import RawServerCursor
from wardkey_core.log.source import Log, Row

__all__ = ["open_log"]

_numbers = count(1)


def open_log(connection: psycopg.Connection[Any], tenant: UUID) -> Log:
    """Return a tenant's log. ``connection``: in a transaction, repeatable read."""
    return Log(_Database(connection), tenant)


class _Database:
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def rows(self, query: str, *values: str | None, size: int = 1000) -> Iterator[Row]:
        # a name of its own for each: one may be open while another is
        with RawServerCursor(self._connection, f"wardkey_log_{next(_numbers)}") as cursor:
            cursor.itersize = size
            self._connection.execute("set local enable_nestloop = off")
            cursor.execute(query, values)
            self._connection.execute("set local enable_nestloop to default")
            yield from cursor
