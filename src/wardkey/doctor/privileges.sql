-- What tenants, and everybody through PUBLIC, may touch: faces, shares and the functions meant for them.

-- inner-tables-closed (fail): nobody but the owner has a privilege on shapes
select relation, detail, revoke
from privilege where relnamespace = 'ward_model'::regnamespace and grantee <> relowner order by 1, 2;

-- ward-functions-closed (fail): nobody but its owner may execute a function of a ward: triggers need not be asked, find functions by their tenant alone
select p.oid::regprocedure::text, format('%s may execute it', who),
  format('revoke execute on function %s from %s;', p.oid::regprocedure, who)
from ward_schema as s
join pg_namespace as n on n.nspname = s.schema_name
join pg_proc as p on p.pronamespace = n.oid
cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
cross join lateral (select case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end) as g (who)
where a.grantee <> p.proowner and not (ward_internal.is_find(p.oid) and not a.is_grantable
  and a.grantee = (select r.oid from pg_roles as r join tenant as t on t.login_role = r.rolname where t.id = s.tenant_id))
order by 1, 2;

-- schemas-closed (fail): no tenant may create in a schema, nor use the registry's, the shapes', leaves' or another ward's
select quote_ident(n.nspname), format('%s has %s', o.name, a.privilege_type),
  format('revoke %s on schema %I from %s;', a.privilege_type, n.nspname, o.name)
from pg_namespace as n cross join aclexplode(n.nspacl) as a join outsider as o on o.oid = a.grantee
where a.privilege_type = 'CREATE' or n.nspname in ('ward_internal', 'ward_model')
  or exists (select from ward_schema as s
    where s.schema_name = n.nspname and s.schema_name is distinct from o.schema_name)
order by 1, 2;

-- tenants-reach-nothing-else (fail): no tenant can reach a table, view or sequence that is neither a face nor shared
select p.relation, p.detail, p.revoke
from privilege as p
join outsider as o on o.oid = p.grantee
join pg_namespace as n on n.oid = p.relnamespace
where p.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
  and n.nspname not in ('pg_catalog', 'information_schema', 'ward', 'ward_internal', 'ward_model')
  and p.oid not in (select oid from guarded)
  and p.oid not in (select oid from ward where oid is not null)
  and not (o.name = 'ward_tenant' and p.privilege_type = 'SELECT'
    and p.oid in (select relation from ward_internal.shares))
  and (o.schema_name is not null or has_schema_privilege('ward_tenant', n.oid, 'usage'))
order by 1, 2;

-- shares-open (warn): tenants can read every shared table
select relation::text, 'ward_tenant may not read it', format('select ward.share(%L);', relation)
from ward_internal.shares join pg_class as c on c.oid = relation
where not has_table_privilege('ward_tenant', c.oid, 'select')
  or not has_schema_privilege('ward_tenant', c.relnamespace, 'usage')
order by 1;

-- database-closed (fail): PUBLIC has nothing on this database, tenants no more than to connect: no temporary objects
select format('database %I', d.datname), format('%s has %s', o.name, a.privilege_type),
  format('revoke %s on database %I from %s;', a.privilege_type, d.datname, o.name)
from pg_database as d
cross join aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a
join outsider as o on o.oid = a.grantee
where d.datname = current_database() and (o.oid = 0 or a.privilege_type <> 'CONNECT')
order by 1, 2;

-- database-open (fail): ward_tenant may connect to this database
select format('database %I', d.datname), 'ward_tenant may not connect',
  format('grant connect on database %I to ward_tenant;', d.datname)
from pg_database as d
where d.datname = current_database() and not exists (
  select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a join outsider as o on o.oid = a.grantee
  where a.privilege_type = 'CONNECT' and o.name in ('public', 'ward_tenant'));

-- other-databases-closed (warn): PUBLIC, and so every tenant, may not connect to the cluster's other databases
select format('database %I', d.datname), format('public has %s', string_agg(a.privilege_type, ', ')),
  format('revoke all on database %I from public;', d.datname)
from pg_database as d cross join aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a
where d.datname <> current_database() and d.datallowconn and a.grantee = 0
group by d.datname having bool_or(a.privilege_type = 'CONNECT') order by 1;

-- statistics-hidden (fail): no tenant can read statistics, activity, locks or the metadata of large objects
select p.relation, p.detail, p.revoke
from privilege as p join outsider as o on o.oid = p.grantee
where p.oid in (select ward_internal.hidden_relations()) order by 1, 2;

-- columns-hidden (fail): no tenant can read how many rows tables have, nor the settings of other roles
select p.relation, p.detail, case p.who when 'public' then 'select ward_internal.harden();' else p.revoke end
from privilege as p join outsider as o on o.oid = p.grantee
where p.oid in (select relation from ward_internal.hidden_columns())
  and (p.attname is null or (p.oid, p.attname) in (select * from ward_internal.hidden_columns()))
order by 1, 2;

-- functions-hidden (fail): no tenant can call the functions behind statistics, sizes, large objects and WAL messages
select name, detail, revoke from executable
where oid in (select ward_internal.hidden_functions()) order by 1, 2;

-- definers-closed (fail): PUBLIC cannot execute any SECURITY DEFINER function
select name, 'is SECURITY DEFINER, and public may execute it', revoke from executable
where prosecdef and who = 'public' and not ours and nspname not in ('pg_catalog', 'information_schema') order by 1;

-- parameters-closed (fail): no tenant was granted a superuser's setting
select p.parname, format('%s has %s', o.name, a.privilege_type),
  format('revoke all on parameter %s from %s;', p.parname, o.name)
from pg_parameter_acl as p cross join aclexplode(p.paracl) as a join outsider as o on o.oid = a.grantee
order by 1, 2;

-- default-privileges (fail): what is created later is not granted to tenants
select format('default privileges of %I', pg_get_userbyid(d.defaclrole)),
  format('%s gets %s on %s', o.name, a.privilege_type, k.kind),
  format('alter default privileges for role %I%s revoke all on %s from %s;', pg_get_userbyid(d.defaclrole),
    coalesce(' in schema ' || quote_ident(n.nspname), ''), k.kind, o.name)
from pg_default_acl as d
left join pg_namespace as n on n.oid = d.defaclnamespace
cross join aclexplode(d.defaclacl) as a
join outsider as o on o.oid = a.grantee
join (values ('r', 'tables'), ('S', 'sequences'), ('f', 'functions'), ('n', 'schemas')) as k (type, kind)
  on k.type = d.defaclobjtype
union all
select 'default privileges of ward_owner', 'public gets EXECUTE on functions',
  'alter default privileges for role ward_owner revoke execute on functions from public;'
where not exists (
  select from pg_default_acl as d
  where pg_get_userbyid(d.defaclrole) = 'ward_owner' and d.defaclnamespace = 0 and d.defaclobjtype = 'f')
order by 1, 2;

-- foreign-servers-closed (fail): no tenant may use a foreign server
select quote_ident(s.srvname), format('%s has USAGE', o.name),
  format('revoke usage on foreign server %I from %s;', s.srvname, o.name)
from pg_foreign_server as s cross join aclexplode(s.srvacl) as a join outsider as o on o.oid = a.grantee
order by 1, 2;
