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
