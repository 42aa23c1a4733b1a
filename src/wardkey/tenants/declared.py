"""The tables of a ward as they were declared: as facts, and as SQL that makes them again elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from .dependencies import calls, making_sql
from .dependencies import literal as _literal
from .dependencies import name as _name

__all__ = ["Column", "Declared", "Table", "finishing_sql", "read_tables", "schema_sql"]

_TABLES = """
select m.id, m.face, m.shape::text as shape from ward_internal.models as m order by m.face"""
_COLUMNS = f"""
select c.column_name as name, c.type_id, c.column_id, c.key_place, c.generated,
       c.default_expression as "default", a.attnotnull as not_null, c.sequence is not null as numbered,
       c.type_name as type,
       case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end
         as collation,
       (select pg_sequence_last_value(to_regclass(format('%%I.%%I', %(schema)s::text, s.relname)))
          from pg_class as s where s.oid = c.sequence) as last_number,
       (select format('start %%s increment %%s minvalue %%s maxvalue %%s cache %%s%%s', seqstart,
          seqincrement, seqmin, seqmax, seqcache, case when seqcycle then ' cycle' else '' end)
          from pg_sequence where seqrelid = c.sequence) as counts,
       {calls("pg_attrdef", "d.oid")} as calls
  from ward_internal.models as m, ward_internal.model_columns(m.id) as c, pg_attribute as a
  join pg_type as t on t.oid = a.atttypid
  left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where m.id = %(model)s and a.attrelid = m.shape and a.attname = c.column_name
 order by c.place"""  # noqa: S608
_CONSTRAINTS = f"""
select c.conname as name, pg_get_constraintdef(c.oid) as definition, c.confrelid::regclass::text as target,
       t.face as target_face, c.contype = 'f' as foreign, {calls("pg_constraint", "c.oid")} as calls
  from ward_internal.models as m join pg_constraint as c on c.conrelid = m.shape
  left join ward_internal.models as t on t.shape = c.confrelid
 where m.id = %(model)s and c.contype in ('p', 'u', 'c', 'f')
 order by array_position('{{p,u,c,f}}', c.contype::text), c.conname"""  # noqa: S608
_INDEXES = f"""
select x.relname::text, pg_get_indexdef(i.indexrelid), {calls("pg_class", "i.indexrelid")}
  from ward_internal.models as m join pg_index as i on i.indrelid = m.shape
  join pg_class as x on x.oid = i.indexrelid
 where m.id = %(model)s and not exists (select from pg_constraint where conindid = i.indexrelid)
 order by x.relname"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``column_id`` is None when it is not sealed, ``key_place`` when not of the primary key."""

    name: str
    type: str
    type_id: int
    column_id: UUID | None
    key_place: int | None
    default: str | None
    generated: bool
    not_null: bool
    numbered: bool
    collation: str | None
    last_number: int | None
    counts: str | None
    calls: list[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A model table as one tenant has it. ``constraints`` and ``references`` are SQL statements."""

    face: str
    columns: tuple[Column, ...]
    constraints: tuple[str, ...]
    references: tuple[str, ...]

    @property
    def written(self) -> list[Column]:
        """The columns that are not generated from others."""
        return [column for column in self.columns if not column.generated]


@dataclass(frozen=True, slots=True)
class Declared:
    """The tables, the statements that make what they are made of, and what is left out, with the reason."""

    tables: list[Table]
    making: list[str]
    left_out: list[str]


def read_tables(connection: Connection[Any], schema: str) -> Declared:
    """Return the tables of the ward in ``schema`` by face.

    Leaves the connection's search_path at pg_catalog alone, so that every name is qualified, until the
    transaction ends.
    """
    connection.execute("set local search_path = pg_catalog, pg_temp")
    facts = connection.cursor(row_factory=dict_row).execute(_TABLES).fetchall()
    making, left_out, unmade = making_sql(connection)
    return Declared([_table(connection, row, schema, left_out, unmade) for row in facts], making, left_out)


def schema_sql(declared: Declared) -> str:
    """Return the statements that make types and tables, without what is better added after the rows."""
    left_out = (f"-- left out: {text}".replace("\n", " ") for text in declared.left_out)
    return _lines([*left_out, *declared.making, *(_create(table) for table in declared.tables)])


def finishing_sql(tables: Sequence[Table]) -> str:
    """Return the statements that add keys, checks, indexes and foreign keys, and set the counters."""
    lines = [text for table in tables for text in table.constraints]
    lines += [text for table in tables for text in table.references]
    lines += [
        f"select setval(pg_get_serial_sequence({_literal(_name(table.face))}, {_literal(column.name)}), "
        f"{column.last_number});"
        for table in tables
        for column in table.columns
        if column.numbered and column.last_number is not None
    ]
    return _lines(lines)


def _table(
    connection: Connection[Any], facts: dict[str, Any], schema: str, left_out: list[str], unmade: set[int]
) -> Table:
    model, face, shape = {"model": facts["id"], "schema": schema}, _name(facts["face"]), facts["shape"]
    columns = connection.cursor(row_factory=class_row(Column)).execute(_COLUMNS, model).fetchall()
    constraints = connection.cursor(row_factory=dict_row).execute(_CONSTRAINTS, model).fetchall()
    indexes = connection.execute(_INDEXES, model).fetchall()
    for column in columns:
        if column.calls and not column.numbered:
            what = "the expression" if column.generated else "the default"
            left_out.append(f"{what} of {face}.{_name(column.name)} calls {', '.join(column.calls)}")
    for row in constraints:
        if row["calls"]:
            left_out.append(f"constraint {_name(row['name'])} of {face} calls {', '.join(row['calls'])}")
        elif row["foreign"] and row["target_face"] is None:
            left_out.append(
                f"foreign key {_name(row['name'])} of {face}: {row['target']} is shared by all tenants"
            )
    left_out += [
        f"index {_name(name)} of {face} calls {', '.join(code)}" for name, _, code in indexes if code
    ]
    return Table(
        facts["face"],
        tuple(_portable(column, unmade) for column in columns),
        (
            *(_constraint(face, row) for row in constraints if not row["foreign"] and not row["calls"]),
            *(
                f"{text.replace(f' ON {shape} ', f' ON {face} ', 1)};"
                for _, text, code in indexes
                if not code
            ),
        ),
        tuple(_constraint(face, row) for row in constraints if row["foreign"] and row["target_face"]),
    )


def _portable(column: Column, unmade: set[int]) -> Column:
    """Return the column as it can be elsewhere: without code."""
    if column.type_id in unmade:
        column = replace(column, type="text", collation=None)
    if column.calls and not column.numbered:
        return replace(column, default=None, generated=False)
    return column


def _constraint(face: str, row: dict[str, Any]) -> str:
    definition = row["definition"]
    if row["target_face"] is not None:
        target = _name(row["target_face"])
        definition = definition.replace(f"REFERENCES {row['target']}(", f"REFERENCES {target}(", 1)
    return f"alter table {face} add constraint {_name(row['name'])} {definition};"


def _create(table: Table) -> str:
    columns = ",\n".join(f"  {_column(column)}" for column in table.columns)
    return f"create table {_name(table.face)} (\n{columns}\n);"


def _column(column: Column) -> str:
    parts = [_name(column.name), column.type]
    if column.collation:
        parts.append(f"collate {column.collation}")
    if column.not_null:
        parts.append("not null")
    if column.generated:
        parts.append(f"generated always as ({column.default}) stored")
    elif column.numbered:
        parts.append(f"generated by default as identity ({column.counts})")
    elif column.default is not None:
        parts.append(f"default {column.default}")
    return " ".join(parts)


def _lines(statements: Sequence[str]) -> str:
    return "".join(f"{statement}\n" for statement in statements)
