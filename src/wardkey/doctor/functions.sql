-- Functions that run with more rights than their caller cannot be led astray.

-- definers-pinned (fail): every SECURITY DEFINER function sets its search_path
select name, 'runs with the caller''s search_path', pin from definer where path is null order by 1;

-- definers-temp-last (fail): pg_temp stands last in the search_path of every SECURITY DEFINER function
select name, format('search_path is %s: the caller''s temporary objects come first', path), pin
from definer where path !~ '(^|,)\s*"?pg_temp"?\s*$' order by 1;

-- definers-not-superuser (fail): no SECURITY DEFINER function that a tenant may execute runs as a superuser
select e.name, format('%s may execute it, as superuser %I', e.who, r.rolname),
  format('alter function %s owner to ward_owner;', e.name)
from executable as e join pg_roles as r on r.oid = e.proowner and r.rolsuper
where e.prosecdef and not e.ours and e.who <> 'public' and e.nspname not in ('pg_catalog', 'information_schema')
order by 1, 2;
