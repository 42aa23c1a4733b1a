"""Business associate agreements (45 CFR 164.504(e)) as an operator records them.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from ..errors import UnknownObject

__all__ = ["add", "end", "every", "one"]

Connection = psycopg.Connection[Any]


def add(
    connection: Connection,
    slug: str,
    document: Path,
    *,
    covered_entity: str,
    business_associate: str,
    begins: date,
    ends: date | None,
    subcontractors: Sequence[str],
    notice_days: int,
) -> dict[str, Any]:
    """Record an agreement and return it. ``document``: of which name and SHA-256 are kept.

    Raises OSError, psycopg.Error (WK203, WK212, WK231).
    """
    with document.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    query = "select ward.add_baa(%s, %s, %s, %s, %s, %s, %s, %s, %s)"
    parties = (slug, covered_entity, business_associate)
    values = (*parties, document.name, digest, begins, ends, list(subcontractors), notice_days)
    ((identity,),) = connection.execute(query, values).fetchall()
    return one(connection, identity)


def end(connection: Connection, identity: UUID, on: date, reason: str) -> dict[str, Any]:
    """Let an agreement end on that day, its last. Raises psycopg.Error (WK204, WK212, WK231)."""
    connection.execute("select ward.end_baa(%s, %s, %s)", [identity, on, reason])
    return one(connection, identity)


def every(connection: Connection, slug: str | None = None) -> list[dict[str, Any]]:
    """Return all agreements, or those with one tenant, the last to end first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from ward.baas where %(slug)s::text is null or slug = %(slug)s"
            " order by slug, ends desc nulls first, begins desc",
            {"slug": slug},
        ).fetchall()


def one(connection: Connection, identity: UUID) -> dict[str, Any]:
    """Return one agreement. Raises UnknownObject."""
    for row in every(connection):
        if row["id"] == identity:
            return row
    raise UnknownObject("no business associate agreement has that id", "list them: wardkey baa list")
