"""Conditions on sealed columns that are searched: through the find function of the ward.

``find`` is what a caller writes. Comparisons of a column whose type is ``Sealed(…, search=…)`` are written
with it by themselves, where the values to look for are at hand: the index leaves few rows, and PostgreSQL
compares these as without it. So the answer is the same, whatever the normaliser takes for equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import DATERANGE, INT8RANGE, NUMRANGE, TSRANGE, TSTZRANGE, Range
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator
from wardkey_core.search import GRAM, SHORTEST_PREFIX, normalised

if TYPE_CHECKING:
    from .annotations import Sealed

__all__ = ["find", "searching"]

_MOST = 100  # values of an IN that are looked up one by one
_BOUNDS: dict[Any, Any] = {operators.ge: "[)", operators.gt: "()", operators.le: "(]", operators.lt: "()"}
_BEGINNING = (operators.startswith_op, operators.istartswith_op)
_CONTAINING = (operators.contains_op, operators.icontains_op)
_IGNORING_CASE = (operators.istartswith_op, operators.icontains_op)


def find(table: Any, /, **needles: Any) -> sa.ColumnElement[bool]:
    """Return the condition that a row of ``table``, a mapped class or a Table, matches all needles.

    ::

        select(Patient).where(find(Patient, name_starts="smi", birth_date_between=Range(day, None)))

    Needles are the arguments of ``find_patients`` in the ward, as ``ward.add_search`` declares them; None is
    as one that is not given. Where the statement runs: NeedleRefused, ClassHidden, SearchNotBuilt.
    """
    of = sa.inspect(table).local_table if not isinstance(table, sa.Table) else table
    keys = list(of.primary_key)
    rows = _matches(of, needles)
    return sa.tuple_(*keys).in_(rows) if len(keys) > 1 else keys[0].in_(rows)


def _matches(of: Any, needles: Mapping[str, Any], type_: Any = None) -> Any:
    """Return the query for the keys of rows that match."""
    arguments = ", ".join(f"{_quoted(name)} => :find_{place}" for place, name in enumerate(needles))
    call = f"{_quoted(f'find_{_face(of)}')}({arguments})"
    query = sa.text(f"select * from {call}").bindparams(  # noqa: S608 - names are quoted
        *(
            sa.bindparam(f"find_{place}", value, type_=type_, unique=True)
            for place, value in enumerate(needles.values())
        )
    )
    return query.columns(*(sa.column(key.name, key.type) for key in of.primary_key))


def _is_among(of: Any, needles: Mapping[str, Any], type_: Any = None) -> sa.ColumnElement[bool]:
    """Return a condition that is true for rows that match, NULL for others.

    So what it stands beside with AND keeps its value where that is not true: NOT of the whole is right for
    NULL too. In WHERE, PostgreSQL drops the NULL and looks the keys up in an index.
    """
    (key,) = of.primary_key
    keys = sa.func.array(_matches(of, needles, type_).scalar_subquery())
    return sa.or_(key == sa.func.any(keys), sa.null())


def _face(of: Any) -> str | None:
    """Return the name of the face behind a table or an alias of one, None behind anything else."""
    while isinstance(of, sa.Alias):
        of = of.element
    return of.name if isinstance(of, sa.Table) else None


def _quoted(name: str) -> str:
    """Quote a name for SQLAlchemy's text, which takes a colon for the beginning of a parameter."""
    return '"' + name.replace('"', '""').replace("\\", "\\\\").replace(":", "\\:") + '"'


@cache
def searching(comparator: type[Any]) -> type[Any]:
    """Return the comparator of ``Sealed`` over one of its inner type, which narrows by a search."""

    class Comparator(TypeDecorator.Comparator[Any], comparator):  # type: ignore[misc]
        def operate(self, op: Any, *other: Any, **options: Any) -> Any:
            condition = super().operate(op, *other, **options)
            sealed: Any = self.type
            narrowed = _narrowed(self.expr, sealed, op, other, options)
            return condition if narrowed is None else sa.and_(narrowed, condition)

        def __reduce__(self) -> Any:
            return _comparator_of, (self.expr,)

    return Comparator


def _comparator_of(column: Any) -> Any:
    return column.type.comparator_factory(column)


def _narrowed(
    column: Any, type_: Sealed, op: Callable[..., Any], other: tuple[Any, ...], options: Mapping[str, Any]
) -> sa.ColumnElement[bool] | None:
    """Return the search that finds all rows that the comparison is true for, or None."""
    of, kinds = getattr(column, "table", None), type_.search or ()
    is_list = op is operators.in_op and isinstance(other[0], list | tuple | set)
    values = list(other[0] if is_list else other)
    if of is None or _face(of) is None or len(of.primary_key) != 1 or not all(map(_is_given, values)):
        return None
    if op is operators.eq and "exact" in kinds:
        return _is_among(of, {column.name: values[0]})
    if is_list and "exact" in kinds and 0 < len(values) <= _MOST:
        return sa.or_(*(_is_among(of, {column.name: value}) for value in values))
    if op in _BEGINNING and "prefix" in kinds and _fits(type_, op, values[0], options, SHORTEST_PREFIX):
        return _is_among(of, {f"{column.name}_starts": values[0]})
    if op in _CONTAINING and "substring" in kinds and _fits(type_, op, values[0], options, GRAM):
        return _is_among(of, {f"{column.name}_contains": values[0]})
    if "range" in kinds and (range_type := _range_type(type_.type_)) is not None:
        if op is operators.between_op and values[0] <= values[1]:
            between = Range(*values, bounds="[]")
        elif op in _BOUNDS:
            ends = (values[0], None) if op in (operators.ge, operators.gt) else (None, values[0])
            between = Range(*ends, bounds=_BOUNDS[op])
        else:
            return None
        return _is_among(of, {f"{column.name}_between": between}, range_type)
    return None


def _fits(type_: Sealed, op: Any, value: Any, options: Mapping[str, Any], least: int) -> bool:
    """Whether all values that begin with the text, or contain it, do so when both are normalised."""
    normaliser = type_.normaliser or "text"
    fits = ("text", "email") if op in _IGNORING_CASE else ("text", "email", "digits", "none")
    is_pattern = not options.get("autoescape") and not {"%", "_", "\\"}.isdisjoint(value)
    return normaliser in fits and not is_pattern and len(normalised(f"{normaliser}/1", value)) >= least


def _is_given(value: Any) -> bool:
    return (
        value is not None
        and not hasattr(value, "__clause_element__")
        and not isinstance(value, sa.ClauseElement)
    )


def _range_type(type_: Any) -> Any:
    match type_:
        case sa.Date():
            return DATERANGE()
        case sa.DateTime():
            return TSTZRANGE() if type_.timezone else TSRANGE()
        case sa.Integer():
            return INT8RANGE()
        case sa.Float():
            return None
        case sa.Numeric():
            return NUMRANGE()
    return None
