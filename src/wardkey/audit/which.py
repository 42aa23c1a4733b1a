"""Whose log is meant, and one moment of the database in which all of it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg

from ..errors import UnknownTenant

__all__ = ["PLATFORM", "log_id", "snapshot"]

PLATFORM = UUID(int=0)

Connection = psycopg.Connection[Any]


def log_id(connection: Connection, name: str) -> UUID:
    """Return the id of the tenant whose log is called ``name``: its slug, ``platform``, or the id itself.

    Logs of shredded and dropped tenants stay. Raises UnknownTenant.
    """
    row = connection.execute("select id from ward_internal.tenants where slug = %s", [name]).fetchone()
    if row is not None:
        return UUID(str(row[0]))
    if name == "platform":
        return PLATFORM
    try:
        return UUID(name)
    except ValueError:
        hint = "list them: wardkey tenant list; of one that was dropped, give the id"
        raise UnknownTenant("no tenant has that slug", hint) from None


@contextmanager
def snapshot(connection: Connection) -> Iterator[None]:
    """Let all queries of the block see one moment, and change nothing."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        yield
