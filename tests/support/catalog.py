"""Everything the catalog says about the extension, as text: two installations are equal when these are."""

from __future__ import annotations

from tests.support.database import Connection

_OURS = """deptype = 'e' and refclassid = 'pg_extension'::regclass
  and refobjid = (select oid from pg_extension where extname = 'wardkey')"""


def _grants(column: str) -> str:
    return f"(select string_agg(a::text, ',' order by a::text) from unnest({column}) as a)"


_SCHEMAS = "('ward', 'ward_internal', 'ward_model')"
_QUERIES = {
    "members": f"select pg_describe_object(classid, objid, objsubid) from pg_depend where {_OURS}",
    "functions": f"""
        select concat_ws(E'\\n', pg_get_functiondef(oid), proowner::regrole,
          {_grants("proacl")}, obj_description(oid, 'pg_proc'))
        from pg_proc where pronamespace::regnamespace::text in {_SCHEMAS}""",
    "relations": f"""
        select concat_ws(' ', oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity,
          {_grants("relacl")}, obj_description(oid, 'pg_class'),
          case when relkind = 'v' then pg_get_viewdef(oid) end)
        from pg_class where relnamespace::regnamespace::text in {_SCHEMAS} and relkind <> 'i'""",
    "columns": f"""
        select concat_ws(' ', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
          pg_get_expr(adbin, adrelid), col_description(attrelid, attnum))
        from pg_attribute join pg_class on pg_class.oid = attrelid
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where relnamespace::regnamespace::text in {_SCHEMAS} and attnum > 0 and not attisdropped""",
    "constraints": f"""
        select concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid))
        from pg_constraint where connamespace::regnamespace::text in {_SCHEMAS}""",
    "indexes": f"select indexdef from pg_indexes where schemaname in {_SCHEMAS}",
    "configuration": """
        select concat_ws(' ', c::regclass, w) from pg_extension, unnest(extconfig, extcondition) as t (c, w)
        where extname = 'wardkey'""",
    "schemas": f"""
        select concat_ws(' ', nspname, nspowner::regrole, nspacl, obj_description(oid, 'pg_namespace'))
        from pg_namespace where nspname in {_SCHEMAS}""",
    "defaults": "select concat_ws(' ', defaclrole::regrole, defaclobjtype, defaclacl) from pg_default_acl",
    "event triggers": """
        select concat_ws(' ', evtname, evtevent, evtfoid::regprocedure, evtenabled, evttags,
          evtowner::regrole)
        from pg_event_trigger""",
    "initial privileges": f"""
        select concat_ws(' ', pg_describe_object(classoid, objoid, objsubid),
          {_grants("initprivs")})
        from pg_init_privs
        where (classoid, objoid) in (select classid, objid from pg_depend where {_OURS})""",
    "PostgreSQL's own relations": f"""
        select concat_ws(' ', oid::regclass, {_grants("relacl")})
        from pg_class where relnamespace = 'pg_catalog'::regnamespace""",
    "PostgreSQL's own functions": f"""
        select concat_ws(' ', oid::regprocedure, {_grants("proacl")})
        from pg_proc where pronamespace = 'pg_catalog'::regnamespace and proacl is not null""",
}


def catalog(connection: Connection) -> dict[str, list[str]]:
    """Return sorted descriptions by kind."""
    return {
        kind: sorted(str(row[0]) for row in connection.execute(query).fetchall())
        for kind, query in _QUERIES.items()
    }
