"""The tables of a ward as they were declared: as facts, and as SQL that makes them anew elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.sql import Identifier, Literal

__all__ = ["Column", "Table", "finishing_sql", "read_tables", "schema_sql"]

_TABLES = """
select m.id, m.face, m.shape::text as shape from ward_internal.models as m order by m.face"""
_COLUMNS = """
select c.column_name as name, c.type_id, c.column_id, c.key_place, c.generated,
       c.default_expression as "default", a.attnotnull as not_null, c.sequence is not null as numbered,
       case t.typtype when 'd' then format_type(t.typbasetype, t.typtypmod) else c.type_name end as type,
       case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end as collation,
       (select pg_sequence_last_value(to_regclass(format('%%I.%%I', %(schema)s::text, s.relname)))
          from pg_class as s where s.oid = c.sequence) as last_number
  from ward_internal.models as m, ward_internal.model_columns(m.id) as c, pg_attribute as a
  join pg_type as t on t.oid = a.atttypid
 where m.id = %(model)s and a.attrelid = m.shape and a.attname = c.column_name
 order by c.place"""
_CONSTRAINTS = """
select c.conname as name, pg_get_constraintdef(c.oid) as definition, c.confrelid::regclass::text as target,
       t.face as target_face, c.contype = 'f' as foreign
  from ward_internal.models as m join pg_constraint as c on c.conrelid = m.shape
  left join ward_internal.models as t on t.shape = c.confrelid
 where m.id = %(model)s and c.contype in ('p', 'u', 'c', 'f')
 order by array_position('{p,u,c,f}', c.contype::text), c.conname"""
_INDEXES = """
select pg_get_indexdef(i.indexrelid)
  from ward_internal.models as m join pg_index as i on i.indrelid = m.shape
 where m.id = %(model)s and not exists (select from pg_constraint where conindid = i.indexrelid)
 order by i.indexrelid::regclass::text"""
_ENUMS = """
select distinct n.nspname, e.typname,
       array(select enumlabel::text from pg_enum where enumtypid = e.oid order by enumsortorder)
  from pg_type as used
  join pg_type as e on e.typtype = 'e' and e.oid in (used.oid, used.typelem, used.typbasetype)
  join pg_namespace as n on n.oid = e.typnamespace
 where used.oid = any (%(types)s::oid[]) order by 1, 2"""


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


def read_tables(connection: Connection[Any], schema: str) -> tuple[list[Table], list[str]]:
    """Return the tables of the ward in ``schema`` by face, and the statements that make their enums.

    Leaves the connection's search_path at pg_catalog alone, so that every name is qualified, until the
    transaction ends.
    """
    connection.execute("set local search_path = pg_catalog, pg_temp")
    facts = connection.cursor(row_factory=dict_row).execute(_TABLES).fetchall()
    tables = [_table(connection, row, schema) for row in facts]
    types = sorted({column.type_id for table in tables for column in table.columns})
    enums = connection.execute(_ENUMS, {"types": types}).fetchall()
    return tables, [text for row in enums for text in _enum(*row)]


def schema_sql(tables: Sequence[Table], enums: Iterable[str]) -> str:
    """Return the statements that make types and tables, without what is better added after the rows."""
    return _lines([*dict.fromkeys(enums), *(_create(table) for table in tables)])


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


def _table(connection: Connection[Any], facts: dict[str, Any], schema: str) -> Table:
    model, face, shape = {"model": facts["id"], "schema": schema}, _name(facts["face"]), facts["shape"]
    columns = connection.cursor(row_factory=class_row(Column)).execute(_COLUMNS, model).fetchall()
    constraints = connection.cursor(row_factory=dict_row).execute(_CONSTRAINTS, model).fetchall()
    indexes = connection.execute(_INDEXES, model).fetchall()
    return Table(
        facts["face"],
        tuple(columns),
        (
            *(_constraint(face, row) for row in constraints if not row["foreign"]),
            *(f"{row[0].replace(f' ON {shape} ', f' ON {face} ', 1)};" for row in indexes),
        ),
        tuple(_constraint(face, row) for row in constraints if row["foreign"]),
    )


def _constraint(face: str, row: dict[str, Any]) -> str:
    definition = row["definition"]
    if row["target_face"] is not None:
        target = _name(row["target_face"])
        definition = definition.replace(f"REFERENCES {row['target']}(", f"REFERENCES {target}(", 1)
    text = f"alter table {face} add constraint {_name(row['name'])} {definition};"
    # A shared table is its operator's, not the tenant's: it stays.
    return f"-- {text}" if row["foreign"] and row["target_face"] is None else text


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
        parts.append("generated by default as identity")
    elif column.default is not None:
        parts.append(f"default {column.default}")
    return " ".join(parts)


def _enum(schema: str, name: str, labels: list[str]) -> list[str]:
    words = ", ".join(map(_literal, labels))
    return [
        f"create schema if not exists {_name(schema)};",
        f"create type {_name(schema)}.{_name(name)} as enum ({words});",
    ]


def _lines(statements: Sequence[str]) -> str:
    return "".join(f"{statement}\n" for statement in statements)


def _name(text: str) -> str:
    return Identifier(text).as_string(None)


def _literal(text: str) -> str:
    return Literal(text).as_string(None).strip()
