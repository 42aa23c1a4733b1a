-- Who owns what, and what the roles of wards can do beyond their grants.

-- ward-roles-powerless (fail): ward_owner and ward_tenant cannot log in and have no attribute of power
select w.name, coalesce('has ' || array_to_string(p.powers || case when p.rolcanlogin then 'LOGIN' end, ', '), 'is missing'),
  case when p.oid is null then format('create role %I nologin noinherit;', w.name)
  else format('alter role %I nologin nosuperuser nocreatedb nocreaterole noreplication nobypassrls;', w.name) end
from (values ('ward_owner'), ('ward_tenant')) as w (name) left join power as p on p.rolname = w.name
where p.oid is null or p.rolcanlogin or p.powers <> '{}' order by 1;

-- ward-services-powerless (fail): the roles of services have no attribute of power but REPLICATION, of scribe and invalidator
select w.name, coalesce('has ' || array_to_string(array_remove(p.powers, w.power), ', '), 'is missing'),
  case when p.oid is null then format('create role %I login noinherit %s;', w.name, w.power)
  else format('alter role %I nosuperuser nocreatedb nocreaterole nobypassrls;', w.name) end
from (values ('ward_scribe', 'REPLICATION'), ('ward_publisher', ''), ('ward_invalidator', 'REPLICATION'),
  ('ward_metrics', '')) as w (name, power)
left join power as p on p.rolname = w.name
where p.oid is null or array_remove(p.powers, w.power) <> '{}' order by 1;

-- ward-owner-alone (fail): nobody is a member of ward_owner
select member::text, detail, revoke from membership where role = 'ward_owner' and not by_superuser order by 1;

-- ward-roles-in-nothing (fail): wardkey's own roles are members of no other role
select member::text, detail, revoke from membership
where member in ('ward_owner', 'ward_tenant', 'ward_scribe', 'ward_publisher', 'ward_invalidator', 'ward_metrics')
order by 1, 2;

-- tenant-roles-powerless (fail): tenants' login roles can log in, inherit, and have no attribute of power
select t.login_role::text, coalesce('has ' || array_to_string(p.powers || case when not p.rolcanlogin then 'NOLOGIN' end
    || case when not p.rolinherit then 'NOINHERIT' end, ', '), 'is missing'),
  format('select ward.repair_tenant(%L);', t.slug)
from tenant as t left join power as p on p.rolname = t.login_role
where p.oid is null or not p.rolcanlogin or not p.rolinherit or p.powers <> '{}' order by 1;

-- tenant-roles-in-ward-tenant (fail): tenants' login roles are members of ward_tenant
select t.login_role::text, 'is no member of ward_tenant', format('grant ward_tenant to %I;', t.login_role)
from tenant as t join pg_roles as r on r.rolname = t.login_role
where not exists (select from membership where member = t.login_role and role = 'ward_tenant') order by 1;

-- tenant-roles-in-nothing-else (fail): tenants' login roles are in no other role, and cannot let others into ward_tenant
select member::text, detail,
  case role when 'ward_tenant' then format('revoke admin option for ward_tenant from %I;', member) else revoke end
from membership
where by_tenant and role <> 'ward_owner' and (role <> 'ward_tenant' or admin_option) order by 1, 2;

-- tenant-roles-without-members (warn): nobody is a member of a tenant's login role
select member::text, detail, revoke from membership
where of_tenant and not by_tenant and not by_superuser order by 1, 2;

-- tenant-roles-own-nothing (fail): tenants' login roles own nothing in this database
select t.login_role::text,
  format('owns %s object(s), such as %s', count(*), min(pg_describe_object(d.classid, d.objid, d.objsubid))),
  format('reassign owned by %I to current_user;', t.login_role)
from tenant as t
join pg_roles as r on r.rolname = t.login_role
join pg_shdepend as d on d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid and d.deptype = 'o'
  and d.dbid = (select oid from pg_database where datname = current_database())
group by t.login_role order by 1;

-- owners (fail): shapes, and schemas and functions of wards are ward_owner's
select o.name, format('belongs to %I', pg_get_userbyid(o.owner)),
  format('alter %s %s owner to ward_owner;', o.kind, o.name)
from (
  select 'table', c.oid::regclass::text, c.relowner
  from pg_class as c where c.oid in (select shape from ward_internal.models)
  union all
  select 'function', p.oid::regprocedure::text, p.proowner
  from ward_schema as s join pg_namespace as n on n.nspname = s.schema_name join pg_proc as p on p.pronamespace = n.oid
  union all
  select 'schema', quote_ident(n.nspname), n.nspowner
  from ward_schema as s join pg_namespace as n on n.nspname = s.schema_name
) as o (kind, name, owner)
where pg_get_userbyid(o.owner) <> 'ward_owner' order by 1;

-- tenant-log-settings (fail): tenants' login roles have the settings that keep literals out of the log, plaintext off disks
select t.login_role::text, format('%s is not %s', w.name, w.value), format('select ward.repair_tenant(%L);', t.slug)
from tenant as t
cross join tenant_setting as w
where not exists (
  select from role_setting as s
  where s.slug = t.slug and s.setdatabase <> 0 and s.name = w.name and s.value = w.value)
order by 1, 2;

-- tenant-search-path (warn): tenants' login roles begin in their ward
select login_role::text, format('search_path is %s', value), format('select ward.repair_tenant(%L);', slug)
from role_setting
where name = 'search_path' and setdatabase <> 0 and value <> ward_internal.tenant_path(schema_name)
order by 1;

-- tenant-own-settings (warn): tenants have not given their login role settings of their own
select login_role::text, format('%s = %s', name, value),
  format('alter role %I%s reset %I;', login_role,
    case when setdatabase = 0 then '' else format(' in database %I', current_database()) end, name)
from role_setting
where setdatabase = 0 or name not in (
  select name from tenant_setting
  union values ('search_path'), ('work_mem'), ('idle_in_transaction_session_timeout')
  union select jsonb_object_keys(b.bounds) from ward_internal.tenants as b where b.slug = role_setting.slug)
order by 1, 2;

-- passwords-scram (fail): passwords of login roles are kept as SCRAM verifiers
select rolname::text, 'its password is kept as MD5',
  format('set password_encryption = ''scram-sha-256''; and in psql: \password %I', rolname)
from pg_authid where rolcanlogin and rolpassword like 'md5%' order by 1;

-- nobody-exempt (warn): nobody but superusers is exempt from row-level security
select rolname::text, 'has BYPASSRLS', format('alter role %I nobypassrls;', rolname)
from pg_roles
where rolbypassrls and not rolsuper
  and rolname not in (select login_role from tenant union all values ('ward_owner'), ('ward_tenant'))
order by 1;
