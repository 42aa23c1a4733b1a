-- What the checks look at, as tables; each check is a query below this one and selects object, detail and the
-- statement or command that fixes it (null where nothing does). No row: the invariant holds.
with tenant as (  -- those that have a ward
  select * from ward_internal.tenants where status <> 'shredded'
), ward_schema as (
  select s.* from ward_internal.ward_schemas() as s join tenant as t on t.id = s.tenant_id
), leaf as (
  select i.inhrelid as oid, m.id as model_id, m.relation as parent, t.id as tenant_id, t.slug,
    pg_get_expr(c.relpartbound, c.oid) as bound
  from ward_internal.models as m
  join pg_inherits as i on i.inhparent = m.relation
  join pg_class as c on c.oid = i.inhrelid
  join pg_namespace as n on n.oid = c.relnamespace
  left join tenant as t on ward_internal.leaf_schema(t.schema_name) = n.nspname
), guarded as (  -- parents and leaves
  select m.relation::oid as oid from ward_internal.models as m join pg_class as c on c.oid = m.relation
  union
  select oid from leaf
), ward as (  -- a row per tenant and model; oid is null where the face is missing
  select t.id as tenant_id, t.slug, m.id as model_id, m.relation, c.oid
  from tenant as t
  cross join ward_internal.models as m
  left join pg_namespace as n on n.nspname = t.schema_name
  left join pg_class as c on c.relnamespace = n.oid and c.relname = m.face and c.relkind = 'v'
), outsider as (  -- whose privileges a tenant has
  select 0::oid as oid, 'public' as name, null as schema_name
  union all
  select oid, rolname, null from pg_roles where rolname = 'ward_tenant'
  union all
  select r.oid, quote_ident(r.rolname), t.schema_name
  from pg_roles as r join tenant as t on t.login_role = r.rolname
), privilege as (  -- privileges on tables, views, sequences and their columns
  select g.*, g.oid::regclass::text as relation,
    format('%s has %s%s', who, privilege_type, coalesce(' on column ' || quote_ident(attname), '')) as detail,
    format('revoke %s%s on %s%s from %s;', privilege_type, coalesce(' (' || quote_ident(attname) || ')', ''),
      case relkind when 'S' then 'sequence ' else '' end, g.oid::regclass, who) as revoke
  from (
    select c.oid, c.relkind, c.relowner, c.relnamespace, null::name as attname, a.privilege_type, a.is_grantable,
      a.grantee, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as who
    from pg_class as c cross join aclexplode(c.relacl) as a
    union all
    select c.oid, c.relkind, c.relowner, c.relnamespace, t.attname, a.privilege_type, a.is_grantable,
      a.grantee, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
    from pg_class as c join pg_attribute as t on t.attrelid = c.oid cross join aclexplode(t.attacl) as a
  ) as g
), executable as (  -- functions that tenants may execute
  select p.oid, p.oid::regprocedure::text as name, p.proowner, p.prosecdef, n.nspname, o.name as who,
    n.nspname in ('ward', 'ward_internal') or n.nspname in (select schema_name from tenant) as ours,
    format('%s may execute it', o.name) as detail,
    format('revoke execute on function %s from %s;', p.oid::regprocedure, o.name) as revoke
  from pg_proc as p
  join pg_namespace as n on n.oid = p.pronamespace
  cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
  join outsider as o on o.oid = a.grantee
), definer as (  -- SECURITY DEFINER functions and the search_path they set
  select p.oid::regprocedure::text as name, s.path,
    format('alter function %s set search_path = pg_catalog, pg_temp;', p.oid::regprocedure) as pin
  from pg_proc as p
  left join lateral (
    select substr(line, 13) as path from unnest(p.proconfig) as line where line like 'search_path=%'
  ) as s on true
  where p.prosecdef and p.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
), tenant_setting (name, value) as (  -- what ward_internal.set_up_role gives a login role, beside its search_path
  values ('log_min_messages', 'fatal'), ('log_min_error_statement', 'panic'), ('log_statement', 'none'),
    ('log_duration', 'off'), ('log_min_duration_statement', '-1'), ('log_min_duration_sample', '-1'),
    ('log_transaction_sample_rate', '0'), ('log_parameter_max_length', '0'), ('log_lock_waits', 'off'),
    ('log_temp_files', '-1'), ('log_executor_stats', 'off'), ('log_parser_stats', 'off'),
    ('log_planner_stats', 'off'), ('log_statement_stats', 'off'), ('temp_file_limit', '0')
), role_setting as (  -- the settings that tenants' login roles have, in all databases (0) and in this one
  select t.slug, t.schema_name, t.login_role, s.setdatabase, split_part(c.line, '=', 1) as name,
    substr(c.line, strpos(c.line, '=') + 1) as value
  from tenant as t
  join pg_roles as r on r.rolname = t.login_role
  join pg_db_role_setting as s on s.setrole = r.oid
    and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
  cross join unnest(s.setconfig) as c (line)
), power as (  -- the attributes of power that roles have
  select rolname, oid, rolcanlogin, rolsuper, array_remove(array[
    case when rolsuper then 'SUPERUSER' end, case when rolcreatedb then 'CREATEDB' end,
    case when rolcreaterole then 'CREATEROLE' end, case when rolreplication then 'REPLICATION' end,
    case when rolbypassrls then 'BYPASSRLS' end], null) as powers, rolinherit
  from pg_roles
), membership as (
  select m.rolname as member, m.rolsuper as by_superuser, g.rolname as role, a.admin_option,
    g.rolname in (select login_role from tenant) as of_tenant,
    m.rolname in (select login_role from tenant) as by_tenant,
    format('is a member of %I%s', g.rolname, case when a.admin_option then ', with admin option' else '' end) as detail,
    format('revoke %I from %I;', g.rolname, m.rolname) as revoke
  from pg_auth_members as a join pg_roles as m on m.oid = a.member join pg_roles as g on g.oid = a.roleid
)
