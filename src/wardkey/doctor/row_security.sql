-- Every parent and leaf stands under row-level security, and nothing loosens it.

-- row-security-enabled (fail): row-level security is enabled on every parent and leaf
select oid::regclass::text, 'row-level security is off',
  format('alter table %s enable row level security;', oid::regclass)
from guarded join pg_class using (oid) where not relrowsecurity order by 1;

-- row-security-forced (fail): row-level security binds the owner of every parent and leaf too
select oid::regclass::text, 'row-level security does not bind its owner',
  format('alter table %s force row level security;', oid::regclass)
from guarded join pg_class using (oid) where not relforcerowsecurity order by 1;

-- policies-there (fail): every parent and leaf has the permissive and the restrictive policy
select g.oid::regclass::text, format('policy %s is missing', p.name), format(p.creation, g.oid::regclass)
from guarded as g cross join policy as p
where not exists (select from pg_policy where polrelid = g.oid and polname = p.name)
order by 1, 2;

-- policies-unchanged (fail): both policies ask for the context's tenant, of everybody and for every command
select g.oid::regclass::text, format('policy %s was changed', p.name),
  format('drop policy %I on %s; ', p.name, g.oid::regclass) || format(p.creation, g.oid::regclass)
from guarded as g
cross join policy as p
join pg_policy as l on l.polrelid = g.oid and l.polname = p.name
where (l.polpermissive, l.polcmd, l.polroles, pg_get_expr(l.polqual, g.oid), pg_get_expr(l.polwithcheck, g.oid))
  is distinct from (p.permissive, '*'::"char", '{0}'::oid[], p.rule, p.stored)
order by 1, 2;

-- policies-alone (fail): no parent or leaf has any other policy: permissive ones are OR-ed
select g.oid::regclass::text, format('there is another policy, %s', l.polname),
  format('drop policy %I on %s;', l.polname, g.oid::regclass)
from guarded as g join pg_policy as l on l.polrelid = g.oid
where l.polname not in (select name from policy) order by 1, 2;

-- nobody-exempt (warn): nobody but superusers is exempt from row-level security
select rolname::text, 'has BYPASSRLS', format('alter role %I nobypassrls;', rolname)
from pg_roles
where rolbypassrls and not rolsuper
  and rolname not in (select login_role from tenant union all values ('ward_owner'), ('ward_tenant'))
order by 1;
