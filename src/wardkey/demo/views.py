"""What the demo shows of the data: one query as several clinics, and the same rows as they lie on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from .load import Connection, Ward

__all__ = ["QUERY", "OnDisk", "View", "on_disk", "same_query"]

QUERY = """\
select p.given || ' ' || p.family as patient, p.birth_date as born, c.display as diagnosis
from patients as p join conditions as c on c.patient_id = p.id
where c.display like '%(disorder)'
order by c.onset_date desc limit 5"""

_TEXTS = ("mrn", "given", "family", "ssn")
_SHOWN = (*_TEXTS, "birth_date")


@dataclass(frozen=True, slots=True)
class View:
    """What one clinic was answered."""

    slug: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class OnDisk:
    """Rows through the face and in the leaf, and what a search of the table's file found.

    ``searched``: column → (values of the clinic, how many of them are in the file).
    """

    face: str
    leaf: str
    columns: list[str]
    plain: list[list[str]]
    stored: list[list[str]]
    file_bytes: int
    searched: dict[str, tuple[int, int]]


def same_query(wards: Sequence[Ward]) -> list[View]:
    """Run QUERY as each clinic."""
    views = []
    for ward in wards:
        with ward.transaction() as cursor:
            rows = cursor.execute(QUERY).fetchall()
            columns = [column.name for column in cursor.description or ()]
        views.append(View(ward.slug, columns, [[str(value) for value in row] for row in rows]))
    return views


def on_disk(admin: Connection, ward: Ward, rows: int = 2) -> OnDisk:
    """Read some rows as clinic and as superuser, then search the leaf's file for the clinic's values."""
    face, leaf = f"tenant_{ward.slug}.patients", f"sealed_{ward.slug}.patients"
    columns = sql.SQL(", ").join(map(sql.Identifier, ("id", *_SHOWN)))
    query = sql.SQL("select {} from {} order by id")
    with ward.transaction() as cursor:
        own = cursor.execute(query.format(columns, _table(face))).fetchall()
    stored = admin.execute(query.format(columns, _table(leaf)) + sql.SQL(" limit {}").format(rows)).fetchall()
    admin.commit()
    content = _file(admin, leaf)
    searched = {}
    for place, name in enumerate(_TEXTS, 1):
        # Short ones would be found by chance in so many random bytes.
        values = {str(row[place]) for row in own if len(str(row[place])) >= 6}
        searched[name] = (len(values), sum(value.encode() in content for value in values))
    return OnDisk(
        face=face,
        leaf=leaf,
        columns=list(_SHOWN),
        plain=[[str(value) for value in row[1:]] for row in own[:rows]],
        stored=[[_shown(value) for value in row[1:]] for row in stored],
        file_bytes=len(content),
        searched=searched,
    )


def _file(admin: Connection, leaf: str) -> bytes:
    """Return the bytes of a table's main file as PostgreSQL has written it."""
    admin.execute("checkpoint")
    row = admin.execute("select pg_read_binary_file(pg_relation_filepath(%s))", [leaf]).fetchone()
    admin.commit()
    return bytes(row[0]) if row else b""


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _shown(value: Any) -> str:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else str(value)
