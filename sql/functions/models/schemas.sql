-- Where the types of models come from: extensions such as citext and ltree, or schemas of one's own. A tenant may use
-- these schemas and has them at the end of its search_path, so that their operators are found as on the declared table.
-- Nobody but a superuser can create in them.

create or replace function ward_internal.model_schemas() returns table (schema_name name, is_tenants boolean)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  with recursive part (classid, objid) as (  -- what models consist of
    select 'pg_class'::regclass::oid, relation::oid from ward_internal.models
    union select 'pg_class'::regclass, shape from ward_internal.models
    union select 'pg_class'::regclass, i.indexrelid from ward_internal.models as m
      join pg_index as i on i.indrelid in (m.relation, m.shape)
    union select 'pg_attrdef'::regclass, d.oid from ward_internal.models as m
      join pg_attrdef as d on d.adrelid in (m.relation, m.shape)
    union select 'pg_constraint'::regclass, c.oid from ward_internal.models as m
      join pg_constraint as c on c.conrelid in (m.relation, m.shape)
  ), used as materialized (
    select distinct d.refclassid, d.refobjid from part as p
    join pg_depend as d on d.classid = p.classid and d.objid = p.objid
  ), type (oid) as (
    select refobjid from used where refclassid = 'pg_type'::regclass
    union
    select inner_type.oid from type join pg_type as t on t.oid = type.oid, lateral (
      select t.typbasetype union all select t.typelem
      union all select rngsubtype from pg_range where t.oid in (rngtypid, rngmultitypid)
      union all select atttypid from pg_attribute where t.typtype = 'c' and attrelid = t.typrelid and attnum > 0
        and not attisdropped
    ) as inner_type (oid)
  ), place (namespace, is_tenants) as (
    select typnamespace, true from pg_type join type using (oid)
    union select opcnamespace, true from pg_opclass
      where oid in (select refobjid from used where refclassid = 'pg_opclass'::regclass)
    union select collnamespace, true from pg_collation
      where oid in (select refobjid from used where refclassid = 'pg_collation'::regclass)
    union select oprnamespace, false from pg_operator
      where oid in (select refobjid from used where refclassid = 'pg_operator'::regclass)
    union select pronamespace, false from pg_proc
      where oid in (select refobjid from used where refclassid = 'pg_proc'::regclass)
  )
  select nspname, bool_or(place.is_tenants) from place join pg_namespace as n on n.oid = place.namespace
  where nspname <> all ('{pg_catalog,information_schema,ward,ward_internal,ward_model}') group by nspname
$$;
comment on function ward_internal.model_schemas() is
  'schemas of what the columns, keys, indexes, defaults and checks of models use, and whether tenants need to name '
  'that too';

create or replace function ward_internal.tenant_path(p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return format('%I, ward, pg_catalog%s, pg_temp', p_schema,
  (select string_agg(format(', %I', schema_name), '' order by schema_name) from (
    select 'public'::name union select schema_name from ward_internal.model_schemas()
      where is_tenants) as s (schema_name)));
comment on function ward_internal.tenant_path(name) is
  'the search_path of the login role whose ward is this schema. public is in it before a model needs it, so that '
  'sessions that are there already find what an extension puts into it';

create or replace function ward_internal.open_model_schemas() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_schema record;
  v_role name;
  v_path text;
begin
  for v_schema in select * from ward_internal.model_schemas() loop
    if v_schema.is_tenants and has_schema_privilege('ward_tenant', v_schema.schema_name, 'create') then
      perform ward_internal.fail('unsupported',
        format('a type of a model is in schema %I, where tenants may create', v_schema.schema_name),
        format('revoke create on schema %I from public', v_schema.schema_name));
    end if;
    for v_role in select unnest(case when v_schema.is_tenants then '{ward_owner,ward_tenant}'
      else '{ward_owner}' end::name[]) loop
      if not has_schema_privilege(v_role, v_schema.schema_name, 'usage') then
        execute format('grant usage on schema %I to %I', v_schema.schema_name, v_role);
      end if;
    end loop;
  end loop;
  v_path := ward_internal.tenant_path('ward');
  for v_role, v_path in
    select t.login_role, w.path from ward_internal.tenants as t
    join pg_roles as r on r.rolname = t.login_role
    cross join lateral (select format('%I%s', t.schema_name, substr(v_path, length('ward') + 1)) as path) as w
    where not exists (
      select from pg_db_role_setting where setrole = r.oid and 'search_path=' || w.path = any (setconfig)
        and setdatabase = (select oid from pg_database where datname = current_database()))
  loop
    execute format('alter role %I in database %I set search_path = %s', v_role, current_database(), v_path);
  end loop;
end
$$;
comment on function ward_internal.open_model_schemas() is
  'lets tenants use what models are made of, and puts it into their search_path, from their next connection on. Error: '
  'WK209';
