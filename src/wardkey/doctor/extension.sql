-- What there is of the extension, for extension.py.

-- functions:
select p.oid::bigint, p.oid::regprocedure::text, l.lanname,
  case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end, p.proisstrict,
  case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end,
  p.prosecdef, p.proleakproof, coalesce(p.proconfig, '{}'), coalesce(p.proargnames, '{}'), p.pronargdefaults, p.prosrc,
  p.prokind = 'f' and p.prosupport = 0, pg_get_userbyid(p.proowner)
from pg_proc as p
join pg_language as l on l.oid = p.prolang
join pg_namespace as n on n.oid = p.pronamespace
where n.nspname in ('ward', 'ward_internal');

-- relations: all but the platform's log, which is made later and is like those of wards
select c.oid::bigint, c.oid::regclass::text, pg_get_userbyid(c.relowner),
  case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table'
    when 'c' then 'type' else 'table' end
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where n.nspname in ('ward', 'ward_internal') and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
  and not (n.nspname = 'ward_internal' and c.relname ~ '^audit_platform(_\d{4}_\d\d)?$');

-- schemas:
select nspname::text, pg_get_userbyid(nspowner) from pg_namespace
where nspname in ('ward', 'ward_internal', 'ward_model', 'ward_archive');

-- grants:
with ours as (select oid from pg_namespace where nspname in ('ward', 'ward_internal'))
select o.kind, o.name, case a.grantee when 0 then 'public' else pg_get_userbyid(a.grantee) end,
  a.privilege_type || case when a.is_grantable then ' WITH GRANT OPTION' else '' end
from (
  select 'function', oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
  from pg_proc where pronamespace in (select oid from ours)
  union all
  select case relkind when 'S' then 'sequence' else 'table' end, oid::regclass::text, relowner,
    coalesce(relacl, acldefault(case relkind when 'S' then 's'::"char" else 'r' end, relowner))
  from pg_class where relnamespace in (select oid from ours) and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
  union all
  select 'table', format('%s (%I)', a.attrelid::regclass, a.attname), c.relowner, a.attacl
  from pg_attribute as a join pg_class as c on c.oid = a.attrelid
  where c.relnamespace in (select oid from ours) and a.attacl is not null
  union all
  select 'schema', nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
  from pg_namespace where nspname in ('ward', 'ward_internal', 'ward_model', 'ward_archive')
) as o (kind, name, owner, acl)
cross join aclexplode(o.acl) as a
where a.grantee <> o.owner;

-- event_triggers: of the database, with the extension they belong to
select e.evtname::text, e.evtevent::text, coalesce(e.evttags, '{}'), e.evtfoid::regproc::text, e.evtenabled = 'A', r.rolsuper,
  (select x.extname::text from pg_depend as d join pg_extension as x on x.oid = d.refobjid
    where d.classid = 'pg_event_trigger'::regclass and d.objid = e.oid and d.deptype = 'e')
from pg_event_trigger as e join pg_roles as r on r.oid = e.evtowner;

-- others: what else lies in schemas of wardkey and of wards, and would be found by its name there
select pg_describe_object(d.classid, d.objid, 0), i.type, i.identity
from pg_depend as d
join pg_namespace as n on d.refclassid = 'pg_namespace'::regclass and n.oid = d.refobjid
cross join pg_identify_object(d.classid, d.objid, 0) as i
where d.classid not in ('pg_class'::regclass, 'pg_default_acl'::regclass) and d.deptype = 'n'
  and (n.nspname in ('ward', 'ward_internal', 'ward_archive')
    or n.nspname in (select s.schema_name from ward_internal.ward_schemas() as s
      join ward_internal.tenants as t on t.id = s.tenant_id where t.status <> 'shredded'))
  and not exists (select from pg_depend as e where e.classid = d.classid and e.objid = d.objid and e.deptype = 'e')
  and not exists (
    select from pg_trigger as t join pg_class as c on c.oid = t.tgrelid join pg_namespace as p on p.oid = c.relnamespace
    join ward_internal.ward_schemas() as s on s.schema_name = p.nspname
    join ward_internal.ward_schemas() as o on o.tenant_id = s.tenant_id
    where d.classid = 'pg_proc'::regclass and t.tgfoid = d.objid and o.schema_name = n.nspname)
  and not (d.classid = 'pg_proc'::regclass and ward_internal.is_find(d.objid));
