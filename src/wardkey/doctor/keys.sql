-- Every tenant has exactly one key that seals.

-- active-key (fail): every tenant has one active key
select t.slug, format('has %s active keys', count(k.version) filter (where k.state = 'active')),
  case when count(k.version) filter (where k.state = 'decrypt-only') = 0
    then 'restore its rows of ward_internal.tenant_keys from a backup'
    else format('update ward_internal.tenant_keys set state = ''active'' where tenant_id = %L and version = %s;', t.id,
      max(k.version) filter (where k.state = 'decrypt-only')) end
from ward_internal.tenants as t left join ward_internal.tenant_keys as k on k.tenant_id = t.id
group by t.id having count(k.version) filter (where k.state = 'active') <> 1 order by 1;

-- one-active-key (fail): the registry cannot hold two active keys of a tenant
select 'ward_internal.tenant_keys', 'the unique index over active keys is missing or invalid',
  'drop index if exists ward_internal.tenant_keys_one_active; create unique index tenant_keys_one_active '
  'on ward_internal.tenant_keys (tenant_id) where state = ''active'';'
where not exists (
  select from pg_index
  where indexrelid = to_regclass('ward_internal.tenant_keys_one_active') and indisunique and indisvalid
    and indrelid = 'ward_internal.tenant_keys'::regclass
    and pg_get_expr(indpred, indrelid) = '(state = ''active''::text)');

-- own-kek (fail): no two tenants share a key encryption key
select string_agg(distinct t.slug, ', ' order by t.slug), format('share %s', k.kek),
  'restore the rows of ward_internal.tenant_keys from a backup'
from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id
group by k.kek having count(distinct k.tenant_id) > 1 order by 1;

-- key-age (info): no active key is older than a year
select t.slug, format('its key %s is of %s', k.version, k.created_at::date), null
from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id
where k.state = 'active' and k.created_at < now() - interval '1 year' order by 1;
