"""What the protection costs: the same work on a clinic's faces and on plain tables with the same rows.

The plain tables have the same keys and indexes, but no foreign keys. They exist in one transaction, which is
rolled back. Medians; both sides take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from . import data
from .load import Connection, Ward, copy_rows

__all__ = ["Cost", "measure"]

_PLAIN = "ward_demo_plain"
_PAGE = "select given, family, birth_date, ssn, phone from {} where id = any(%s)"
_SEALED_OF_PATIENTS = 10

Cursor = psycopg.Cursor[Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """One comparison; ``plain`` and ``sealed`` in ``unit``."""

    what: str
    unit: str
    plain: float
    sealed: float

    @property
    def more(self) -> float:
        return self.sealed - self.plain

    @property
    def ratio(self) -> float:
        return self.sealed / self.plain


def measure(admin: Connection, ward: Ward, *, rounds: int = 60) -> list[Cost]:
    """Measure a page of 20 rows, one sealed field, and COPY; leaves nothing behind. Raises psycopg.Error."""
    faces, plain = sql.Identifier(f"tenant_{ward.slug}"), sql.Identifier(_PLAIN)
    with ward.connect() as connection, connection.cursor() as tenant, admin.cursor() as superuser:
        try:
            _make_plain(superuser, plain, _read(ward))
            ids = _some_ids(superuser, plain)
            return [
                _page(superuser, plain, tenant, faces, ward.token(), ids, rounds),
                _field(superuser, plain, tenant, faces, ward.token(), rounds // 3),
                _copy(superuser, plain, tenant, faces, ward.token()),
            ]
        finally:
            connection.rollback()
            admin.rollback()


def _page(
    superuser: Cursor,
    plain: sql.Identifier,
    tenant: Cursor,
    faces: sql.Identifier,
    token: str,
    ids: list[Any],
    rounds: int,
) -> Cost:
    patients = sql.Identifier("patients")

    def on_plain() -> None:
        superuser.execute("savepoint page")
        superuser.execute(sql.SQL(_PAGE).format(sql.SQL(".").join((plain, patients))), [ids]).fetchall()
        superuser.execute("release savepoint page")

    def on_face() -> None:
        tenant.execute("select ward.login(%s)", [token])
        tenant.execute(sql.SQL(_PAGE).format(sql.SQL(".").join((faces, patients))), [ids]).fetchall()
        tenant.connection.commit()

    times = _alternate((on_plain, on_face), rounds)
    return Cost("page: log in, 20 rows by key, 5 sealed fields each", "ms", *(value * 1e3 for value in times))


def _field(
    superuser: Cursor, plain: sql.Identifier, tenant: Cursor, faces: sql.Identifier, token: str, rounds: int
) -> Cost:
    encounters = sql.Identifier("encounters")
    query = sql.SQL("select type from {}.{}")
    tenant.execute("select ward.login(%s)", [token])
    rows = len(superuser.execute(query.format(plain, encounters)).fetchall())
    times = _alternate(
        (
            lambda: superuser.execute(query.format(plain, encounters)).fetchall(),
            lambda: tenant.execute(query.format(faces, encounters)).fetchall(),
        ),
        rounds,
    )
    tenant.connection.commit()
    return Cost(f"one field, of {rows} rows read", "µs", *(value / rows * 1e6 for value in times))


def _copy(
    superuser: Cursor, plain: sql.Identifier, tenant: Cursor, faces: sql.Identifier, token: str
) -> Cost:
    rows = data.clinic(999, 200).tables["patients"]
    tenant.execute("select ward.login(%s)", [token])

    def into(cursor: Cursor, schema: sql.Identifier) -> Callable[[], None]:
        target = sql.SQL(".").join((schema, sql.Identifier("patients")))

        def copy() -> None:
            cursor.execute("savepoint copied")
            copy_rows(cursor, target, data.COLUMNS["patients"], rows)
            cursor.execute("rollback to savepoint copied")

        return copy

    times = _alternate((into(superuser, plain), into(tenant, faces)), 7)
    what = f"COPY, a row with {_SEALED_OF_PATIENTS} sealed fields"
    return Cost(what, "µs", *(value / len(rows) * 1e6 for value in times))


def _make_plain(cursor: Cursor, schema: sql.Identifier, tables: dict[str, list[data.Row]]) -> None:
    """Make the shapes of the model once more as ordinary tables, and fill them."""
    cursor.execute(sql.SQL("create schema {}").format(schema))
    for table, rows in tables.items():
        target = sql.SQL(".").join((schema, sql.Identifier(table)))
        shape = sql.Identifier("ward_model", f"clinic__{table}")
        cursor.execute(sql.SQL("create table {} (like {} including all)").format(target, shape))
        copy_rows(cursor, target, data.COLUMNS[table], rows)
        cursor.execute(sql.SQL("analyze {}").format(target))


def _read(ward: Ward) -> dict[str, list[data.Row]]:
    with ward.transaction() as cursor:
        return {
            table: [
                ["" if value is None else str(value) for value in row]
                for row in cursor.execute(
                    sql.SQL("select {} from {}").format(
                        sql.SQL(", ").join(map(sql.Identifier, data.COLUMNS[table])), sql.Identifier(table)
                    )
                )
            ]
            for table in ("patients", "encounters")
        }


def _some_ids(cursor: Cursor, plain: sql.Identifier) -> list[Any]:
    query = sql.SQL("select id from {}.patients order by id limit 20").format(plain)
    return [row[0] for row in cursor.execute(query).fetchall()]


def _alternate(sides: tuple[Callable[[], Any], Callable[[], Any]], rounds: int) -> Iterable[float]:
    """Return the median seconds of both sides, after a few unmeasured rounds."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 3):
        for side, taken in zip(sides, times, strict=True):
            began = time.perf_counter()
            side()
            if number >= 3:
                taken.append(time.perf_counter() - began)
    return [median(taken) for taken in times]
