"""Stored rows compared with the last entry of each in the log; ``ward_internal.compare_rows`` does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

__all__ = ["Compared", "Difference", "compare"]

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not as the log left it. ``entry``: the last one that tells of it; None: there is none."""

    table: str
    row: str
    problem: str
    columns: list[str] | None
    entry: int | None
    at: datetime | None


@dataclass(slots=True)
class Compared:
    """What was found in a table. ``differences`` are all there are up to ``most``; ``different`` counts all.

    ``older``: rows that the log does not have, which is no fault where its beginning was pruned. ``resealed``
    and ``unknown``: values that nothing can be said of.
    """

    table: str
    rows: int = 0
    values: int = 0
    resealed: int = 0
    unknown: int = 0
    older: int = 0
    different: int = 0
    differences: list[Difference] = field(default_factory=list)


def compare(connection: Connection, tenant: UUID, table: str | None, most: int) -> Iterator[Compared]:
    """Yield what is found, by table. ``connection``: in a transaction, repeatable read.

    ``most``: differences that are kept of each table; memory is bounded by it, the server's by work_mem.
    """
    query = (
        "select exists (select from ward_internal.audit_log"
        " where tenant_id = %s and operation = 'log_pruned')"
    )
    ((pruned,),) = connection.execute(query, [tenant]).fetchall()
    models = connection.execute(
        "select m.id, m.face from ward_internal.models as m"
        " where %(table)s::text is null or m.id = ward_internal.audit_model(%(tenant)s, %(table)s)"
        " order by m.face",
        {"tenant": tenant, "table": table},
    ).fetchall()
    for model, face in models:
        compared = Compared(face)
        with connection.cursor("wardkey_compare", row_factory=dict_row) as cursor:
            cursor.itersize = 1000
            for row in cursor.execute("select * from ward_internal.compare_rows(%s, %s)", [tenant, model]):
                if row["problem"] is None:
                    compared.rows, compared.values = row["row_count"], row["value_count"]
                    compared.resealed, compared.unknown = row["resealed"], row["unknown"]
                elif row["problem"] == "not in the log" and pruned:
                    compared.older += 1
                else:
                    compared.different += 1
                    if len(compared.differences) < most:
                        compared.differences.append(
                            Difference(
                                face, *(row[n] for n in ("row_id", "problem", "columns", "entry", "at"))
                            )
                        )
        yield compared
