"""Which sealed columns a query's results come from.

A source is the name of a sealed column with its table, ``clinic.patients.ssn``. What only counts, compares or
tests for NULL is no source: it tells little of a value. Names are resolved as PostgreSQL does, as far as that
is possible without a catalog: a column is taken for sealed only if its relation is known to have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from pglast import ast
from pglast.enums import A_Expr_Kind, SetOperation, SubLinkType

from ._rule import nodes_of

if TYPE_CHECKING:
    from ._model import Model

__all__ = ["Relation", "Scope", "calls", "indexed", "name_of", "outputs", "reads", "scope", "with_queries"]

Relation = Mapping[str, frozenset[str]]
"""The sources of each column that has any."""
Scope = dict[str, Relation]
"""Relations and records by the names that a query knows them under."""

_NOTHING: frozenset[str] = frozenset()
_COUNTING = {"count", "bool_and", "bool_or", "exists", "num_nonnulls", "num_nulls", "pg_column_size"}
_COMPARING = frozenset(("=", "<>", "<", "<=", ">", ">=", "~", "~*", "!~", "!~*", "@>", "<@", "&&"))
_TESTS = {
    A_Expr_Kind.AEXPR_IN,
    A_Expr_Kind.AEXPR_LIKE,
    A_Expr_Kind.AEXPR_ILIKE,
    A_Expr_Kind.AEXPR_BETWEEN,
    A_Expr_Kind.AEXPR_DISTINCT,
    A_Expr_Kind.AEXPR_NOT_DISTINCT,
}


def name_of(names: Any) -> str:
    """Return a name of several parts as it is written."""
    return ".".join(_parts(names))


def _parts(names: Any) -> list[str]:
    return [str(part.sval) for part in names or () if isinstance(part, ast.String)]


def scope(
    from_clause: Any, model: Model, outer: Mapping[str, Relation], ctes: Mapping[str, Relation]
) -> Scope:
    """Return the relations of FROM by their names or aliases, with those around them."""
    visible: Scope = dict(outer)
    for item in _flat(from_clause):
        alias = item.alias.aliasname if getattr(item, "alias", None) else None
        if isinstance(item, ast.RangeVar):
            relation: Relation
            if item.schemaname is None and item.relname in ctes:
                relation = ctes[item.relname]
            else:
                table = model.find(item)
                relation = table.sources if table is not None and table.is_protected else {}
            visible[alias or item.relname] = relation
        elif isinstance(item, ast.RangeSubselect) and alias:
            visible[alias] = _merged(outputs(item.subquery, model, visible, ctes))
    return visible


def with_queries(
    query: Any, model: Model, outer: Mapping[str, Relation], ctes: Mapping[str, Relation] | None = None
) -> Scope:
    """Return the relations that WITH makes for a statement, with those around it."""
    known: Scope = dict(ctes or {})
    for cte in query.withClause.ctes if query.withClause else ():
        known[cte.ctename] = _merged(outputs(cte.ctequery, model, outer, known))
    return known


def _flat(items: Any) -> Iterator[Any]:
    for item in items or ():
        if isinstance(item, ast.JoinExpr):
            yield from _flat((item.larg, item.rarg))
        else:
            yield item


def _merged(columns: list[tuple[str, frozenset[str]]]) -> Relation:
    merged: dict[str, frozenset[str]] = {}
    for name, sources in columns:
        merged[name] = merged.get(name, _NOTHING) | sources
    return merged


def outputs(
    query: Any,
    model: Model,
    outer: Mapping[str, Relation] | None = None,
    ctes: Mapping[str, Relation] | None = None,
) -> list[tuple[str, frozenset[str]]]:
    """Return name and sources of each column of a query's result. Of ``*`` only columns that have sources."""
    outer = outer or {}
    if not isinstance(query, ast.SelectStmt):
        return []
    known = with_queries(query, model, outer, ctes)
    if query.op != SetOperation.SETOP_NONE:
        sides = (outputs(side, model, outer, known) for side in (query.larg, query.rarg))
        pairs = zip_longest(*sides, fillvalue=("", _NOTHING))
        return [(left[0] or right[0], left[1] | right[1]) for left, right in pairs]
    visible = scope(query.fromClause, model, outer, known)
    if query.valuesLists:
        width = range(max(map(len, query.valuesLists)))
        return [
            (f"column{n + 1}", _NOTHING.union(*(reads(row[n], visible, model) for row in query.valuesLists)))
            for n in width
        ]
    columns: list[tuple[str, frozenset[str]]] = []
    for target in query.targetList or ():
        fields = target.val.fields if isinstance(target.val, ast.ColumnRef) else ()
        if fields and isinstance(fields[-1], ast.A_Star):
            own = [relation for name, relation in visible.items() if outer.get(name) is not relation]
            relations = [visible.get(fields[-2].sval, {})] if len(fields) > 1 else own
            columns += [column for relation in relations for column in relation.items()]
        else:
            name = target.name or (fields[-1].sval if fields else "")
            columns.append((name, reads(target.val, visible, model)))
    return columns


def reads(expression: Any, visible: Mapping[str, Relation], model: Model) -> frozenset[str]:
    """Return the sealed columns whose values an expression tells."""
    match expression:
        case None:
            return _NOTHING
        case tuple():
            return _NOTHING.union(*(reads(part, visible, model) for part in expression))
        case ast.ColumnRef():
            return _resolve(_parts(expression.fields), visible)
        case ast.NullTest() | ast.BooleanTest():
            return _NOTHING
        case ast.SubLink():
            if expression.subLinkType == SubLinkType.EXISTS_SUBLINK:
                return _NOTHING
            return _NOTHING.union(*(part for _, part in outputs(expression.subselect, model, visible)))
        case ast.A_Expr() if expression.kind in _TESTS or name_of(expression.name) in _COMPARING:
            return _NOTHING
        case ast.FuncCall() if expression.funcname[-1].sval in _COUNTING:
            return _NOTHING
        case ast.Node():
            parts = [getattr(expression, slot) for slot in expression.__slots__]
            return _NOTHING.union(
                *(reads(part, visible, model) for part in parts if isinstance(part, ast.Node | tuple))
            )
        case _:
            return _NOTHING


def _resolve(names: list[str], visible: Mapping[str, Relation]) -> frozenset[str]:
    if len(names) == 1:
        named = [relation[names[0]] for relation in visible.values() if names[0] in relation]
        whole = visible.get(names[0])  # a whole row, or a variable
        return _NOTHING.union(*(named or (whole.values() if whole else ())))
    return visible.get(names[-2], {}).get(names[-1], _NOTHING) if names else _NOTHING


def calls(query: Any) -> list[Any]:
    """Return the function calls of a query that are not in a query within it."""
    return nodes_of(query, ast.SelectStmt).get(ast.FuncCall, [])


def indexed(index: Any, model: Model) -> frozenset[str]:
    """Return the sealed columns that an index is made of or chooses rows by."""
    visible = scope((index.relation,), model, {}, {})
    names = [[element.name] for element in index.indexParams or () if element.name]
    expressions = [element.expr for element in index.indexParams or ()]
    for column in nodes_of((*expressions, index.whereClause)).get(ast.ColumnRef, ()):
        names.append(_parts(column.fields))
    return _NOTHING.union(*(_resolve(name, visible) for name in names))
