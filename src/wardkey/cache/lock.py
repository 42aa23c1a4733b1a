"""The lock of the invalidator at work, which doctor and status look at without the library of Redis."""

from __future__ import annotations

from typing import Any, Final

import psycopg

__all__ = ["LOCK", "is_at_work"]

LOCK: Final = 0x7761_7264_6361_6368  # "wardcach"
"""Of two invalidators of a database the one with this advisory lock works, the other waits."""

Connection = psycopg.Connection[Any]


def is_at_work(connection: Connection) -> bool:
    """Say whether an invalidator works for this database."""
    query = (
        "select from pg_catalog.pg_locks where locktype = 'advisory' and granted and objsubid = 1"
        " and classid = %s and objid = %s"
        " and database = (select oid from pg_catalog.pg_database where datname = current_database())"
    )
    return connection.execute(query, [LOCK >> 32, LOCK & 0xFFFF_FFFF]).fetchone() is not None
