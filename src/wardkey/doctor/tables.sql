-- Tables beside the model tables: data that may have been forgotten, copied or left half done.

-- copies-guarded (fail): no copy of a leaf stands without row-level security
select c.oid::regclass::text, format('looks like a copy of %s, without row-level security', min(m.relation::text)),
  case c.relkind when 'm' then format('drop materialized view %s;', c.oid::regclass)
    else format('alter table %1$s enable row level security; alter table %1$s force row level security;', c.oid::regclass)
  end
from pg_class as c
join pg_attribute as i on i.attrelid = c.oid and i.attname = 'tenant_id' and i.atttypid = 'uuid'::regtype
join pg_attribute as s on s.attrelid = c.oid and s.atttypid = 'bytea'::regtype and not s.attisdropped
join ward_internal.sealed_columns as k on k.name = s.attname
join ward_internal.models as m on m.id = k.model_id
where c.relkind in ('r', 'p', 'm') and c.oid not in (select oid from guarded)
  and not (c.relrowsecurity and c.relforcerowsecurity)
group by c.oid, c.relkind order by 1;

-- tables-protected (info): every table beside model tables is protected or shared
select c.oid::regclass::text, 'is neither protected nor shared: no tenant sees it',
  format('select ward.protect(%1$L, seal => ''{…}''); or: select ward.share(%1$L);', c.oid::regclass)
from pg_class as c
where c.relkind in ('r', 'p', 'f', 'm') and not c.relispartition
  and c.relnamespace in (select p.relnamespace from ward_internal.models join pg_class as p on p.oid = relation)
  and c.oid not in (select oid from guarded) and c.oid not in (select relation from ward_internal.shares)
order by 1;

-- prepared-transactions (fail): no prepared transaction was left behind
select format('transaction %s', gid), format('prepared by %I at %s', owner, date_trunc('second', prepared)),
  format('rollback prepared %L;', gid)
from pg_prepared_xacts where database = current_database() order by prepared;
