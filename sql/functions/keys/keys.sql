-- The keys of tenants: made by the keeper, kept wrapped. A version is active, then decrypt-only, retired, destroyed;
-- one is active. What moves a key on to its next state writes an event into the audit log, in the same transaction.
--
-- Lock order: tenants, tenant_keys, rotations. Changes of one tenant's keys exclude each other by its row of tenants.

create or replace function ward_internal.check_reason(p_reason text) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if p_reason is null or p_reason !~ '\S' or length(p_reason) > 200
    -- control characters and those that turn the direction of text
    or p_reason ~ '[\u0001-\u001F\u007F-\u009F\u200E\u200F\u2028-\u202E\u2066-\u2069\uFEFF]'
  then
    perform ward_internal.fail('not_allowed', 'that is not a reason', 'give a text of 1 to 200 printable characters');
  end if;
end
$$;

create or replace function ward_internal.master_id() returns uuid
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
return '00000000-0000-0000-0000-000000000000'::uuid;
comment on function ward_internal.master_id() is 'stands for a tenant where the master secret of mode derived is kept';

create or replace function ward_internal.tenant_for_keys(p_slug text) returns ward_internal.tenants
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  begin
    perform from ward_internal.tenants where slug = p_slug for update nowait;
  exception when lock_not_available then
    perform ward_internal.fail('rotation_running', 'this tenant is being changed at the moment', 'try again');
  end;
  return ward_internal.tenant_of(p_slug);
end
$$;
comment on function ward_internal.tenant_for_keys(text) is
  'as ward_internal.tenant_of, without waiting for its lock: WK213';

create or replace function ward_internal.provision_key(
  p_tenant uuid, p_version integer, p_kek text, p_kek_version text, p_region text
) returns jsonb
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "provision_key")(*args)
$$;
comment on function ward_internal.provision_key(uuid, integer, text, text, text) is
  'has the keeper make a data key under that KEK, or the tenant''s own, made if missing; only the wrapped key comes '
  'back';

create or replace function ward_internal.derive_key(
  p_tenant uuid, p_version integer, p_master integer, p_kek text, p_kek_version text, p_wrapped bytea,
  p_commitment bytea, p_region text
) returns jsonb
language plpython3u volatile strict parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "derive_key")(*args)
$$;
comment on function ward_internal.derive_key(uuid, integer, integer, text, text, bytea, bytea, text) is
  'has the keeper derive a data key of the master secret with a new salt';

create or replace function ward_internal.wrap_again(
  p_tenant uuid, p_version integer, p_kek text, p_kek_version text, p_wrapped bytea, p_commitment bytea,
  p_to_kek text, p_to_kek_version text, p_region text
) returns jsonb
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "rewrap_key")(*args)
$$;

create or replace function ward_internal.add_key(
  p_tenant uuid, p_mode text, p_version integer, p_reason text, p_kek text, p_kek_version text
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_master ward_internal.tenant_keys;
  v_made jsonb;
  v_region text := ward_internal.region_of(p_tenant);
begin
  if p_mode = 'derived' then
    lock table ward_internal.tenant_keys in share row exclusive mode;  -- two first tenants would make two masters
    if not exists (select from ward_internal.tenant_keys where tenant_id = ward_internal.master_id()
        and state = 'active') then
      perform ward_internal.add_key(ward_internal.master_id(), 'envelope', 1 + coalesce((
        select max(version) from ward_internal.tenant_keys where tenant_id = ward_internal.master_id()), 0),
        'provisioned', p_kek, p_kek_version);
    end if;
    select * into strict v_master from ward_internal.tenant_keys
      where tenant_id = ward_internal.master_id() and state = 'active';
    if v_master.region <> v_region then
      perform ward_internal.fail('invalid_region', format('the master secret is of region %s, the tenant of %s',
        v_master.region, v_region), 'make the tenant with a key of its own: --mode envelope');
    end if;
    v_made := ward_internal.derive_key(p_tenant, p_version, v_master.version, v_master.kek, v_master.kek_version,
      v_master.wrapped, v_master.commitment, v_region);
  else
    v_made := ward_internal.provision_key(p_tenant, p_version, p_kek, p_kek_version, v_region);
  end if;
  v_made := coalesce(v_made, ward.raise_refusal('{}'::jsonb));
  insert into ward_internal.tenant_keys
    (tenant_id, version, state, kek, kek_version, wrapped, commitment, reason, region)
    select p_tenant, p_version, 'active', k.kek, k.kek_version, k.wrapped, k.commitment, p_reason, v_region
    from jsonb_to_record(v_made) as k (kek text, kek_version text, wrapped bytea, commitment bytea);
  perform ward_internal.log_event(p_tenant, 'provisioned', jsonb_build_object('version', p_version, 'mode', p_mode,
    'kek', v_made -> 'kek', 'kek_version', v_made -> 'kek_version', 'reason', p_reason, 'region', v_region));
end
$$;
comment on function ward_internal.add_key(uuid, text, integer, text, text, text) is
  'makes a version the active one; the caller has made sure that none is. In mode derived the KEK is for the master '
  'secret, should there be none yet';

create or replace function ward.rotate_key(
  p_slug text, p_reason text, p_replacing integer default null, p_incident boolean default false,
  p_kek text default null, p_kek_version text default null
) returns integer
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_for_keys(p_slug);
  v_active integer := (
    select version from ward_internal.tenant_keys where tenant_id = v_tenant.id and state = 'active');
  v_version integer := 1 + coalesce((
    select max(version) from ward_internal.tenant_keys where tenant_id = v_tenant.id), 0);
  v_request ward_internal.rotation_requests;
begin
  perform ward_internal.check_reason(p_reason);
  if p_replacing <> v_active then
    perform ward_internal.fail('rotation_running', format('version %s is active by now, not %s', v_active, p_replacing),
      'somebody else rotated the key; look again: select * from ward.keys');
  end if;
  if not p_incident and exists (
    select from ward_internal.rotations where tenant_id = v_tenant.id and finished_at is null)
  then
    perform ward_internal.fail('rotation_running', 'a rotation of this tenant''s key is under way',
      format('finish it: wardkey keys reseal %s; an incident need not wait: p_incident => true', p_slug));
  end if;
  update ward_internal.tenant_keys set state = 'decrypt-only', replaced_at = clock_timestamp(), fence = null
    where tenant_id = v_tenant.id and state = 'active';
  perform ward_internal.check_unique_versions(v_tenant, v_version);
  perform ward_internal.add_key(v_tenant.id, v_tenant.key_mode, v_version, p_reason, p_kek, p_kek_version);
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant.id;
  update ward_internal.rotation_requests set version = v_version, done_at = clock_timestamp()
    where tenant_id = v_tenant.id and done_at is null returning * into v_request;
  insert into ward_internal.rotations (tenant_id, version, reason, incident, requested_by)
    values (v_tenant.id, v_version, p_reason, p_incident, v_request.requested_by);
  perform ward_internal.log_event(v_tenant.id, 'rotated', jsonb_build_object('from', v_active, 'to', v_version,
    'reason', p_reason, 'incident', p_incident, 'requested_by', v_request.requested_by));
  return v_version;
end
$$;
comment on function ward.rotate_key(text, text, integer, boolean, text, text) is
  'gives the tenant a new data key, which seals from the next login on, and returns its version; rows under older ones '
  'are then resealed (wardkey keys reseal). p_replacing: the active version the caller saw. p_incident: also while a '
  'rotation is under way. Errors: WK213 somebody else rotates or rotated, WK102 keeper down. Without effect on what an '
  'older key sealed until that is resealed';

create or replace function ward.rotate_master(p_reason text, p_kek text default null, p_kek_version text default null)
returns integer
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_version integer;
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_reason);
  begin
    lock table ward_internal.tenant_keys in share row exclusive mode nowait;
  exception when lock_not_available then
    perform ward_internal.fail('rotation_running', 'keys are being changed at the moment', 'try again');
  end;
  v_version := 1 + coalesce((
    select max(version) from ward_internal.tenant_keys where tenant_id = ward_internal.master_id()), 0);
  update ward_internal.tenant_keys set state = 'decrypt-only', replaced_at = clock_timestamp()
    where tenant_id = ward_internal.master_id() and state = 'active';
  perform ward_internal.add_key(ward_internal.master_id(), 'envelope', v_version, p_reason, p_kek, p_kek_version);
  return v_version;
end
$$;
comment on function ward.rotate_master(text, text, text) is
  'makes a new version of the master secret, or the first: data keys derived from now on are of it. Rotating the '
  'tenants of mode derived moves them; a former version is retired when no key is derived from it any more';

create or replace function ward_internal.register_kek(p_tenant uuid, p_kek text, p_kek_version text, p_what text)
  returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  insert into ward_internal.kek_versions as k (tenant_id, kek, kek_version, left_at, disabled_at, destroyed_at)
    values (p_tenant, p_kek, p_kek_version, case when p_what = 'left' then clock_timestamp() end,
      case when p_what <> 'left' then clock_timestamp() end, case when p_what = 'destroyed' then clock_timestamp() end)
    on conflict (tenant_id, kek, kek_version) do update set left_at = coalesce(k.left_at, excluded.left_at),
      disabled_at = coalesce(k.disabled_at, excluded.disabled_at),
      destroyed_at = coalesce(k.destroyed_at, excluded.destroyed_at);
  if p_what <> 'left' then
    perform ward_internal.log_event(p_tenant, 'kek ' || p_what,
      jsonb_build_object('kek', p_kek, 'kek_version', p_kek_version));
  end if;
end
$$;
comment on function ward_internal.register_kek(uuid, text, text, text) is
  'registers that a version of a tenant''s KEK was left, disabled or destroyed; the last two are events too';

create or replace function ward_internal.rewrap_key(
  p_tenant uuid, p_version integer, p_kek text default null, p_kek_version text default null
) returns boolean
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_key ward_internal.tenant_keys;
  v_made record;
begin
  perform ward_internal.require_superuser();
  perform from ward_internal.tenants where id = p_tenant for no key update;
  select * into v_key from ward_internal.tenant_keys where tenant_id = p_tenant and version = p_version
    for no key update;
  if not found then
    perform ward_internal.fail('unknown_object', 'no such key', 'list them: select * from ward.keys');
  elsif v_key.state = 'destroyed' or v_key.kek = 'master'
    or v_key.kek = p_kek and v_key.kek_version = p_kek_version
  then
    return false;
  end if;
  select * into v_made from jsonb_to_record(
    coalesce(ward_internal.wrap_again(p_tenant, p_version, v_key.kek, v_key.kek_version, v_key.wrapped,
      v_key.commitment, p_kek, p_kek_version, v_key.region), ward.raise_refusal('{}'::jsonb)))
    as k (kek text, kek_version text, wrapped bytea);
  if (v_made.kek, v_made.kek_version) = (v_key.kek, v_key.kek_version) then
    return false;
  end if;
  update ward_internal.tenant_keys
    set kek = v_made.kek, kek_version = v_made.kek_version, wrapped = v_made.wrapped, wrapped_at = clock_timestamp()
    where tenant_id = p_tenant and version = p_version;
  update ward_internal.tenants set key_epoch = key_epoch + 1
    where id = p_tenant or p_tenant = ward_internal.master_id() and key_mode = 'derived';
  perform ward_internal.register_kek(p_tenant, v_key.kek, v_key.kek_version, 'left');
  perform ward_internal.log_event(p_tenant, 'rewrapped', jsonb_build_object('version', p_version,
    'from', format('%s %s', v_key.kek, v_key.kek_version), 'to', format('%s %s', v_made.kek, v_made.kek_version)));
  return true;
end
$$;
comment on function ward_internal.rewrap_key(uuid, integer, text, text) is
  'has a data key wrapped again under that KEK, or the tenant''s current one; touches no row of data. False: nothing '
  'to do, because it is destroyed, derived, or under that KEK already';

create or replace view ward.keys as
  select
    t.slug, k.version, k.state,
    case when k.tenant_id = ward_internal.master_id() then 'master' else t.key_mode end as mode,
    k.kek, k.kek_version, k.created_at, k.wrapped_at, k.replaced_at, k.retired_at, k.destroyed_at, k.reason,
    k.tenant_id, k.region
  from ward_internal.tenant_keys as k
  left join ward_internal.tenants as t on t.id = k.tenant_id;
comment on view ward.keys is
  'the data keys and, without a slug, the master secrets of mode derived; kek ''master'': derived, kek_version is '
  'which';

create or replace view ward.rotations as
  select
    t.slug, r.version, r.reason, r.incident, r.requested_by, r.started_at, r.fenced_at, r.paused, r.finished_at,
    r.rows, r.fields, r.failed, r.tenant_id
  from ward_internal.rotations as r
  join ward_internal.tenants as t on t.id = r.tenant_id;
comment on view ward.rotations is
  'rotations of data keys and how far rows were resealed; finished_at is null while it goes on';
