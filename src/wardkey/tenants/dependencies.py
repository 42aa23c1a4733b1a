"""What declared tables are made of that is not PostgreSQL's own: schemas, extensions, collations, types.

They are made again elsewhere. Code is not: functions, operators and types of a library that belong to no
extension. A default, CHECK or index that calls one is left out by name.
"""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.sql import Identifier, Literal

__all__ = ["calls", "literal", "making_sql", "name"]

_CODE = "('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_ts_config'::regclass)"
_THINGS = """
with recursive part (classid, objid) as (
  select 'pg_class'::regclass::oid, shape::oid from ward_internal.models
  union all
  select 'pg_attrdef'::regclass, d.oid
    from ward_internal.models join pg_attrdef as d on d.adrelid in (shape, relation)
  union all
  select 'pg_constraint'::regclass, c.oid
    from ward_internal.models join pg_constraint as c on c.conrelid = shape
  union all
  select 'pg_class'::regclass, i.indexrelid from ward_internal.models join pg_index as i on i.indrelid = shape
), thing (classid, objid, depth) as (
  select d.refclassid, d.refobjid, 1
    from part as p join pg_depend as d on d.classid = p.classid and d.objid = p.objid
    where d.refclassid <> 'pg_class'::regclass
  union
  select o.classid, o.objid, thing.depth + 1
  from thing
  join pg_type as t on thing.classid = 'pg_type'::regclass and t.oid = thing.objid
  cross join lateral (
    select 'pg_type'::regclass::oid, unnest(array[t.typelem, t.typbasetype])
    union all
    select 'pg_collation'::regclass, t.typcollation
    union all
    select p.classid, p.oid from pg_range as r, lateral (values ('pg_type'::regclass, r.rngsubtype),
        ('pg_type'::regclass, r.rngtypid), ('pg_collation'::regclass, r.rngcollation)) as p (classid, oid)
      where t.oid in (r.rngtypid, r.rngmultitypid) and p.oid <> t.oid
    union all
    select p.classid, p.oid from pg_attribute as a, lateral (values ('pg_type'::regclass, a.atttypid),
        ('pg_collation'::regclass, a.attcollation)) as p (classid, oid)
      where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    union all
    select d.refclassid, d.refobjid from pg_constraint as c
      join pg_depend as d on d.classid = 'pg_constraint'::regclass and d.objid = c.oid
      where c.contypid = t.oid and d.refobjid <> t.oid
  ) as o (classid, objid)
  where o.objid >= 16384
)
select thing.classid::regclass::text as catalog, thing.objid as oid, max(depth) as depth,
  x.extname::text as extension, n.nspname::text as schema, coalesce(t.typname, c.collname)::text as name,
  t.typtype::text as kind,
  pg_describe_object(thing.classid, thing.objid, 0) as described
from thing
left join pg_depend as e on e.classid = thing.classid and e.objid = thing.objid and e.deptype = 'e'
left join pg_extension as x on x.oid = e.refobjid and x.extname <> 'wardkey'
left join pg_type as t on thing.classid = 'pg_type'::regclass and t.oid = thing.objid
left join pg_collation as c on thing.classid = 'pg_collation'::regclass and c.oid = thing.objid
left join pg_namespace as n on n.oid = coalesce(x.extnamespace, t.typnamespace, c.collnamespace)
where thing.objid >= 16384 and (x.oid is not null or t.typtype in ('e', 'd', 'r', 'c') or c.oid is not null
  or t.typtype = 'b' and t.typelem = 0)
group by 1, 2, 4, 5, 6, 7, 8
order by depth desc, oid"""
_ENUM = """
select string_agg(quote_literal(enumlabel), ', ' order by enumsortorder) from pg_enum where enumtypid = %s"""
_DOMAIN = """
select format('%%s%%s%%s%%s', format_type(typbasetype, typtypmod),
  case when typcollation <> (select typcollation from pg_type where oid = t.typbasetype)
    then ' collate ' || typcollation::regcollation else '' end,
  ' default ' || typdefault, case when typnotnull then ' not null' else '' end)
from pg_type as t where oid = %s"""
_COMPOSITE = """
select string_agg(format('%%I %%s%%s', attname, format_type(atttypid, atttypmod),
    case when attcollation <> (select typcollation from pg_type where oid = a.atttypid)
      then ' collate ' || attcollation::regcollation else '' end), ', ' order by attnum)
from pg_type as t join pg_attribute as a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
where t.oid = %s"""
_RANGE = """
select format('subtype = %%s%%s', format_type(rngsubtype, null),
    case when rngcollation <> 0 then ', collation = ' || rngcollation::regcollation else '' end),
  rngcanonical::oid <> 0 or rngsubdiff::oid >= 16384
from pg_range where rngtypid = %s"""
_COLLATION = """
select format('provider = %%s, %%s, deterministic = %%s',
    case collprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
    case when collprovider = 'c' then format('lc_collate = %%L, lc_ctype = %%L', collcollate, collctype)
      else format('locale = %%L', coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale'))
    end, collisdeterministic::text)
  || coalesce(', rules = ' || quote_literal(to_jsonb(c) ->> 'collicurules'), '')
from pg_collation as c where oid = %s"""


def calls(catalog: str, oid: str) -> str:
    """Return SQL for an array of the code that an object of ``catalog`` calls; ``oid`` is an expression."""
    return f"""array(
      select pg_describe_object(called.refclassid, called.refobjid, 0) from pg_depend as called
      where called.classid = '{catalog}'::regclass and called.objid = {oid} and called.refobjid >= 16384
        and called.refclassid in {_CODE} and not exists (
          select from pg_depend as owned join pg_extension as x on x.oid = owned.refobjid
          where owned.classid = called.refclassid and owned.objid = called.refobjid and owned.deptype = 'e'
            and x.extname <> 'wardkey')
      order by 1)"""  # noqa: S608


_CHECKS = f"""
select c.conname, pg_get_constraintdef(c.oid), {calls("pg_constraint", "c.oid")} from pg_constraint as c
where c.contypid = %s and c.contype = 'c' order by c.conname"""  # noqa: S608


def making_sql(connection: Connection[Any]) -> tuple[list[str], list[str], set[int]]:
    """Return the statements that make what model tables are made of, what they leave out, and types left out.

    The connection's search_path is to be pg_catalog alone.
    """
    statements: dict[str, None] = {}
    left_out: list[str] = []
    unmade: set[int] = set()
    for thing in connection.cursor(row_factory=dict_row).execute(_THINGS).fetchall():
        if thing["schema"] not in (None, "pg_catalog"):
            statements[f"create schema if not exists {name(thing['schema'])};"] = None
        if thing["extension"] is not None:
            extension, schema = name(thing["extension"]), name(thing["schema"])
            statements[f"create extension if not exists {extension} with schema {schema} cascade;"] = None
            continue
        what = _make(connection, thing, left_out)
        if what is None:
            unmade.add(thing["oid"])
            left_out.append(f"{thing['described']} is code: its columns are text here")
        else:
            statements[what] = None
    ordered = sorted(
        statements, key=lambda text: (not text.startswith("create schema"), not text.startswith("create ext"))
    )
    return ordered, left_out, unmade


def _make(connection: Connection[Any], thing: dict[str, Any], left_out: list[str]) -> str | None:
    full = f"{name(thing['schema'])}.{name(thing['name'])}"

    def rows(query: LiteralString) -> list[tuple[Any, ...]]:
        return connection.execute(query, [thing["oid"]]).fetchall()

    if thing["catalog"] == "pg_collation":
        return f"create collation {full} ({rows(_COLLATION)[0][0]});"
    match thing["kind"]:
        case "e":
            return f"create type {full} as enum ({rows(_ENUM)[0][0] or ''});"
        case "d":
            text = f"create domain {full} as {rows(_DOMAIN)[0][0]}"
            for check, definition, code in rows(_CHECKS):
                if code:
                    left_out.append(f"constraint {name(check)} of domain {full} calls {', '.join(code)}")
                else:
                    text += f" constraint {name(check)} {definition}"
            return f"{text};"
        case "c":
            return f"create type {full} as ({rows(_COMPOSITE)[0][0] or ''});"
        case "r":
            declared, has_code = rows(_RANGE)[0]
            if has_code:
                left_out.append(f"functions of range type {full}")
            return f"create type {full} as range ({declared});"
    return None


def name(text: str) -> str:
    return Identifier(text).as_string(None)


def literal(text: str) -> str:
    return Literal(text).as_string(None).strip()
