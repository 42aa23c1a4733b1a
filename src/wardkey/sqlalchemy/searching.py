"""Conditions on sealed columns that are searched: through the find function of the ward."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

__all__ = ["find"]


def find(table: Any, /, **needles: Any) -> sa.ColumnElement[bool]:
    """Return the condition that a row of ``table``, a mapped class or a Table, matches all needles.

    ::

        select(Patient).where(find(Patient, name_starts="smi", birth_date_between=Range(day, None)))

    Needles are the arguments of ``find_patients`` in the ward, as ``ward.add_search`` declares them; None is
    as one that is not given. Where the statement runs: NeedleRefused, ClassHidden, SearchNotBuilt.
    """
    of = sa.inspect(table).local_table if not isinstance(table, sa.Table) else table
    arguments = ", ".join(f"{_quoted(name)} => :find_{place}" for place, name in enumerate(needles))
    keys = list(of.primary_key.columns)
    call = f"{_quoted('find_' + of.name)}({arguments})"
    query = sa.text(f"select * from {call}").bindparams(  # noqa: S608 - names are quoted
        *(sa.bindparam(f"find_{place}", value, unique=True) for place, value in enumerate(needles.values()))
    )
    rows = query.columns(*(sa.column(key.name, key.type) for key in keys))
    return sa.tuple_(*keys).in_(rows) if len(keys) > 1 else keys[0].in_(rows)


def _quoted(name: str) -> str:
    """Quote a name for SQLAlchemy's text, which takes a colon for the beginning of a parameter."""
    return '"' + name.replace('"', '""').replace("\\", "\\\\").replace(":", "\\:") + '"'
