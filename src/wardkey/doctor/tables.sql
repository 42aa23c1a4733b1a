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

-- unpublished (warn): no publication but those of scribe and invalidator sends what is in wards, logs or registry to others
select format('publication %I', p.pubname), format('publishes %s of wardkey''s tables, %s.%s for one', count(*),
    quote_ident(min(p.schemaname)), quote_ident(min(p.tablename))), format('drop publication %I;', p.pubname)
from pg_publication_tables as p
where p.pubname not in ('wardkey_audit', 'wardkey_audit_ids')
  and (p.pubname <> 'wardkey_cache' or p.attnames <> '{tenant_id,model_id,kind}') and (
  p.schemaname in ('ward_internal', 'ward_archive', 'ward_model')
  or p.schemaname in (select schema_name from ward_internal.ward_schemas())
  or to_regclass(format('%I.%I', p.schemaname, p.tablename)) in (select relation from ward_internal.models))
group by p.pubname order by 1;

-- registry-whole (fail): no row of the registry is about what is gone
select format('ward_internal.%s', source), format('has a row about %s, which is gone', about),
  format('delete from ward_internal.%s where %s;', source, condition)
from (
  select 'tenant_keys' as source, format('tenant %s', tenant_id) as about, format('tenant_id = %L', tenant_id) as condition, tenant_id
    from ward_internal.tenant_keys where tenant_id <> ward_internal.master_id()
  union
  select 'rotations', format('tenant %s', tenant_id), format('tenant_id = %L', tenant_id), tenant_id
    from ward_internal.rotations where tenant_id <> ward_internal.master_id()
  union
  select 'rotation_requests', format('tenant %s', tenant_id), format('tenant_id = %L', tenant_id), tenant_id
    from ward_internal.rotation_requests
) as of_tenant
where tenant_id not in (select id from ward_internal.tenants)
union all
select 'ward_internal.sealed_columns', format('has a row about column %I of model %s, which is gone', s.name, s.model_id),
  format('delete from ward_internal.sealed_columns where id = %L;', s.id)
from ward_internal.sealed_columns as s left join ward_internal.models as m on m.id = s.model_id
where not exists (select from pg_attribute where attrelid = m.shape and attname = s.name and not attisdropped)
union all
select 'ward_internal.shares', format('has a row about table %s, which is gone', relation::oid),
  format('delete from ward_internal.shares where relation = %L;', relation::oid)
from ward_internal.shares where relation not in (select oid from pg_class)
union all
select 'ward_internal.dependents', format('has a row about %s, left by a transaction that has ended', name),
  'delete from ward_internal.dependents;'
from ward_internal.dependents
order by 1, 2;
