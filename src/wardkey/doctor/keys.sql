-- Every tenant has exactly one key that seals, none is older than it may be, and what is destroyed is gone.

-- active-key (fail): every tenant has one active key
select t.slug, format('has %s active keys', count(k.version) filter (where k.state = 'active')),
  case when count(k.version) filter (where k.state = 'decrypt-only') = 0
    then 'restore its rows of ward_internal.tenant_keys from a backup'
    else format('update ward_internal.tenant_keys set state = ''active'' where tenant_id = %L and version = %s;', t.id,
      max(k.version) filter (where k.state = 'decrypt-only')) end
from tenant as t left join ward_internal.tenant_keys as k on k.tenant_id = t.id
group by t.id, t.slug having count(k.version) filter (where k.state = 'active') <> 1 order by 1;

-- own-kek (fail): no two tenants share a key encryption key
select string_agg(distinct t.slug, ', ' order by t.slug), format('share %s', k.kek),
  'restore the rows of ward_internal.tenant_keys from a backup'
from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id
where k.kek <> 'master'
group by k.kek having count(distinct k.tenant_id) > 1 order by 1;

-- masters-there (fail): what derived keys are derived from is there
select t.slug, format('its key %s derives from master secret %s, which is not there', k.version, k.kek_version),
  'restore the rows of ward_internal.tenant_keys from a backup'
from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id
where k.kek = 'master' and k.state <> 'destroyed' and not exists (
  select from ward_internal.tenant_keys as m
  where m.tenant_id = ward_internal.master_id() and m.version::text = k.kek_version and m.state <> 'destroyed')
order by 1, k.version;

-- regions-kept (fail): every key is of its tenant's region
select t.slug, format('its key %s is bound to region %s, the registry has the tenant in %s', k.version, k.region, t.region),
  'the region was changed in the registry, and the keeper opens the key no more: restore the row of ward_internal.tenants'
from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id
where k.state <> 'destroyed' and k.region <> t.region
order by 1, k.version;

-- key-age (warn): no key seals for longer than the cryptoperiod
select t.slug, format('its key %s is of %s', k.version, k.created_at::date), format('wardkey keys rotate %s', t.slug)
from ward_internal.tenant_keys as k join tenant as t on t.id = k.tenant_id
where k.state = 'active' and k.created_at < now() - make_interval(days => coalesce(
  (select value::integer from ward_internal.settings where name = 'cryptoperiod'), 365))
order by 1;

-- kek-age (warn): no key encryption key is used for longer than its cryptoperiod
select coalesce(t.slug, 'master'), format('is under version %s of its KEK since %s', k.kek_version, min(u.wrapped_at)::date),
  format('wardkey keys rewrap %s', coalesce(t.slug, '--master'))
from ward_internal.tenant_keys as k
join ward_internal.tenant_keys as u using (tenant_id, kek, kek_version)
left join ward_internal.tenants as t on t.id = k.tenant_id
where k.state = 'active' and k.kek <> 'master'
group by t.slug, k.tenant_id, k.kek_version having min(u.wrapped_at) < now() - make_interval(days => coalesce(
  (select value::integer from ward_internal.settings where name = 'kek_cryptoperiod'), 365))
order by 1;

-- rotations-finished (warn): rotations are finished within a week, and begun within a day
select t.slug, case
    when r.paused then format('the rotation to version %s is paused since before %s', r.version, r.started_at::date)
    when r.fenced_at is null then format('nobody began to reseal rows for version %s of %s', r.version, r.started_at::date)
    else format('the rotation to version %s goes on since %s', r.version, r.started_at::date) end,
  format('wardkey keys %s %s', case when r.paused then 'resume' else 'reseal' end, t.slug)
from ward_internal.rotations as r join tenant as t on t.id = r.tenant_id
where r.finished_at is null
  and r.started_at < now() - case when r.fenced_at is null and not r.paused then interval '1 day' else interval '7 days' end
order by 1;

-- shredded-gone (fail): a shredded tenant has no ward, no role and no key
select t.slug, concat_ws(', ', 'still has ' || case when n.there then 'its schemas' end,
    'still has ' || case when r.oid is not null then 'its role' end, 'still has ' || case when k.there then 'keys' end),
  concat(format('drop schema if exists %I, %I cascade; ', t.schema_name, ward_internal.leaf_schema(t.schema_name)),
    case when r.oid is not null then format('drop owned by %1$I; drop role %1$I; ', t.login_role) end,
    format('update ward_internal.tenant_keys set state = ''destroyed'', wrapped = null, destroyed_at = now() '
      'where tenant_id = %L and wrapped is not null;', t.id))
from ward_internal.tenants as t
left join pg_roles as r on r.rolname = t.login_role
cross join lateral (select exists (
  select from ward_internal.ward_schemas() as s join pg_namespace as p on p.nspname = s.schema_name
  where s.tenant_id = t.id)) as n (there)
cross join lateral (select exists (
  select from ward_internal.tenant_keys where tenant_id = t.id and wrapped is not null)) as k (there)
where t.status = 'shredded' and (n.there or r.oid is not null or k.there)
order by 1;

-- shredding-finished (warn): what is to be shredded is shredded within a day
select t.slug, format('its shredding began on %s and is not finished', s.begun_at::date),
  format('wardkey tenant shred %s --confirm %s', t.slug, s.code)
from ward_internal.shreddings as s join tenant as t on t.id = s.tenant_id
where s.finished_at is null and s.begun_at < now() - interval '1 day' order by 1;
