-- From one key to the next, and the end of the former: retired when no row refers to it, destroyed after a grace.
--
-- A transaction seals under the version that was active when its context was made, until it ends. So a version may be
-- written after another one has become active, by transactions that ran then. Retiring it loses nothing because, in
-- this order:
--
--   1. none of these is left: the first batch of resealing, which sees the new version, notes in the key's fence which
--      virtual transactions run. Locks tell, not pg_stat_activity, whose times and texts can be turned off;
--   2. none of them was prepared: prepared ones keep their locks on leaves, and a lock that nobody may share with a
--      writer is taken on each leaf for a moment;
--   3. then a count, with a snapshot of its own, finds no row.

create or replace function ward_internal.running_transactions(p_tenant uuid) returns text[]
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce(array_agg(l.virtualxid), '{}')
  from pg_locks as l
  left join pg_stat_activity as a on a.pid = l.pid
  where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.pid <> pg_backend_pid()
    and (a.pid is null or a.datid = (select oid from pg_database where datname = current_database())
      and a.backend_type <> 'autovacuum worker'
      and not exists (select from ward_internal.tenants where login_role = a.usename and id <> p_tenant))
$$;
comment on function ward_internal.running_transactions(uuid) is
  'virtual transactions that may have a context of the tenant: all of this database but those of other tenants'' '
  'roles; a superuser can take any role on';

create or replace function ward_internal.fence_keys(p_tenant uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from ward_internal.tenant_keys
    where tenant_id = p_tenant and state = 'decrypt-only' and fence is null and ward_internal.is_running(xmin))
  then
    perform ward_internal.fail('key_in_use', 'the rotation is not committed yet', 'reseal in a transaction of its own');
  end if;
  update ward_internal.tenant_keys set fence = ward_internal.running_transactions(p_tenant)
    where tenant_id = p_tenant and state = 'decrypt-only' and fence is null;
  update ward_internal.rotations set fenced_at = clock_timestamp()
    where tenant_id = p_tenant and finished_at is null and fenced_at is null;
end
$$;

create or replace function ward_internal.older_transactions(p_tenant uuid)
returns table (pid integer, role name, since timestamptz, prepared text)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select l.pid, a.usename, a.xact_start, null
  from pg_locks as l
  left join pg_stat_activity as a on a.pid = l.pid
  where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and l.virtualxid in (
    select unnest(fence) from ward_internal.tenant_keys
    where tenant_id = p_tenant and state in ('decrypt-only', 'retired'))
  union all
  select null, p.owner, p.prepared, p.gid
  from pg_prepared_xacts as p
  where p.database = current_database() and exists (
    select from pg_locks as own
    join pg_locks as l on l.virtualtransaction = own.virtualtransaction and l.locktype = 'relation' and l.pid is null
    join pg_class as c on c.oid = l.relation
    join pg_namespace as n on n.oid = c.relnamespace
    join ward_internal.ward_schemas() as s on s.schema_name = n.nspname
    where own.locktype = 'transactionid' and own.transactionid = p.transaction and own.pid is null
      and s.tenant_id = p_tenant)
$$;
comment on function ward_internal.older_transactions(uuid) is
  'transactions that may still write or read under a key that is to be retired or destroyed, prepared ones by name';

create or replace function ward_internal.check_older_transactions(p_tenant uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_older record;
begin
  select * into v_older from ward_internal.older_transactions(p_tenant) limit 1;
  if v_older.prepared is not null then
    perform ward_internal.fail('key_in_use',
      format('prepared transaction %L may have written under the key', v_older.prepared), 'commit or roll it back');
  elsif found then
    perform ward_internal.fail('key_in_use',
      format('a transaction from before still runs: process %s of %s', v_older.pid,
        coalesce(v_older.role::text, 'unknown')),
      format('wait for it, or end it: select pg_terminate_backend(%s)', v_older.pid));
  end if;
end
$$;

create or replace function ward_internal.pass_writers(p_leaf text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform set_config('lock_timeout', '100ms', true);
  execute format('lock table %s in share row exclusive mode', p_leaf);
  raise exception using errcode = 'transaction_rollback', message = 'no writer is left';
exception
  when transaction_rollback then null;  -- undoes lock and setting: those who waited behind it continue
  when lock_not_available then
    perform ward_internal.fail('key_in_use', format('a transaction that wrote to %s does not end', p_leaf),
      'wait for it; prepared transactions too: select * from pg_prepared_xacts');
end
$$;
comment on function ward_internal.pass_writers(text) is
  'returns at a moment when no transaction has uncommitted changes in the leaf';

create or replace function ward_internal.leaf_versions(p_model uuid, p_schema name)
returns table (version bigint, fields bigint)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_schema);
  v_heads text := (
    select string_agg(format('(substr(l.%1$I, 1, 5), octet_length(l.%1$I))', column_name), ', ')
    from ward_internal.model_columns(p_model) where column_id is not null);
begin
  if v_heads is null then
    return;
  elsif to_regclass(v_leaf) is null then
    perform ward_internal.fail('key_in_use', format('%s is away: nobody can say what is sealed in it', v_leaf),
      'restore the ward, or make what it lacks: select ward.repair_tenant(…)');
  end if;
  return query execute format($sql$
    select case when whole and get_byte(head, 0) = 1 then ('x' || encode(substr(head, 3), 'hex'))::bit(24)::bigint end,
      sum(n)::bigint
    from (
      select v.head, v.size >= 33 as whole, count(*) as n
      from %s as l cross join lateral (values %s) as v (head, size)
      where v.head is not null group by 1, 2) as h
    group by 1 order by 1 $sql$, v_leaf, v_heads);
end
$$;
comment on function ward_internal.leaf_versions(uuid, name) is
  'how many values of a leaf are sealed under which version; null: bytes that are no sealed value';

create or replace function ward.key_rows(p_slug text) returns table (face name, version bigint, fields bigint)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  return query
    select m.face, v.version, v.fields
    from ward_internal.tenants as t
    cross join ward_internal.models as m
    cross join lateral ward_internal.leaf_versions(m.id, t.schema_name) as v
    where t.slug = p_slug and t.status <> 'shredded' order by 1, 2;
end
$$;
comment on function ward.key_rows(text) is
  'how many values of each face are sealed under which version of the key, counted by reading all rows; version null: '
  'no sealed value';

create or replace function ward_internal.check_unused(p_tenant ward_internal.tenants, p_versions integer[])
  returns integer[]
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models;
  v_count record;
  v_unused integer[] := p_versions;
  v_used text;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform ward_internal.fail('unsupported', 'rows are counted with a snapshot of the moment', 'use read committed');
  end if;
  perform ward_internal.check_older_transactions(p_tenant.id);
  for v_model in select * from ward_internal.models order by id loop
    if to_regclass(ward_internal.leaf_name(v_model.id, p_tenant.schema_name)) is not null then
      perform ward_internal.pass_writers(ward_internal.leaf_name(v_model.id, p_tenant.schema_name));
    end if;
    for v_count in select * from ward_internal.leaf_versions(v_model.id, p_tenant.schema_name) loop
      if not exists (select from ward_internal.tenant_keys where tenant_id = p_tenant.id
        and version = v_count.version) then
        perform ward_internal.fail('key_in_use',
          format('%s values in %s are of no key of the tenant', v_count.fields, v_model.face),
          'they were altered: put them right from a backup, or set them to null; ward.events names the rows');
      elsif v_count.version = any (p_versions) then
        v_unused := array_remove(v_unused, v_count.version::integer);
        v_used := format('%s values in %s are sealed under version %s', v_count.fields, v_model.face, v_count.version);
      end if;
    end loop;
  end loop;
  if v_unused = '{}' then
    perform ward_internal.fail('key_in_use', v_used,
      format('reseal them: wardkey keys reseal %s; what does not open is named '
      'in ward.events', p_tenant.slug));
  end if;
  return v_unused;
end
$$;
comment on function ward_internal.check_unused(ward_internal.tenants, integer[]) is
  'those of the versions to which no row refers, now or later; raises WK214 if there is none';

create or replace function ward.retire_keys(p_slug text) returns integer[]
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
  v_versions integer[] := (
    select array_agg(version order by version) from ward_internal.tenant_keys
    where tenant_id = v_tenant.id and state = 'decrypt-only');
  v_version integer;
begin
  if exists (select from ward_internal.tenant_keys
    where tenant_id = v_tenant.id and state = 'decrypt-only' and fence is null)
  then
    perform ward_internal.fail('key_in_use', 'resealing has not begun', format('wardkey keys reseal %s', p_slug));
  end if;
  if v_versions is not null then
    v_versions := ward_internal.check_unused(v_tenant, v_versions);
  end if;
  foreach v_version in array coalesce(v_versions, '{}') loop
    update ward_internal.tenant_keys
      set state = 'retired', retired_at = clock_timestamp(), fence = ward_internal.running_transactions(v_tenant.id)
      where tenant_id = v_tenant.id and version = v_version;
    perform ward_internal.log_event(v_tenant.id, 'retired', jsonb_build_object('version', v_version));
  end loop;
  if not exists (select from ward_internal.tenant_keys where tenant_id = v_tenant.id and state = 'decrypt-only') then
    perform ward_internal.finish_searches(v_tenant);
    update ward_internal.rotations set finished_at = clock_timestamp() where tenant_id = v_tenant.id
      and finished_at is null and ward_internal.is_cleared(v_tenant);
    perform ward_internal.name_unique_indexes(v_tenant);
    update ward_internal.searches set former_classes = '{}' where former_classes <> '{}' and not exists (
      select from ward_internal.rotations where finished_at is null);
  end if;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant.id and v_versions is not null;
  return coalesce(v_versions, '{}');
end
$$;
comment on function ward.retire_keys(text) is
  'retires the decrypt-only versions to which no row refers and returns them. Errors: WK214 rows, or a transaction '
  'that began before the key was replaced, still need one';

create or replace function ward_internal.retire_masters() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_version integer;
begin
  for v_version in
    update ward_internal.tenant_keys as m set state = 'retired', retired_at = clock_timestamp()
    where m.tenant_id = ward_internal.master_id() and m.state = 'decrypt-only' and not exists (
      select from ward_internal.tenant_keys as k
      where k.kek = 'master' and k.kek_version = m.version::text and k.state <> 'destroyed')
    returning m.version
  loop
    perform ward_internal.log_event(ward_internal.master_id(), 'retired', jsonb_build_object('version', v_version));
  end loop;
end
$$;
comment on function ward_internal.retire_masters() is
  'retires former master secrets from which no key is derived any more';

create or replace function ward.destroy_key(p_slug text, p_version integer, p_now boolean default false) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
  v_id uuid := ward_internal.master_id();
  v_key ward_internal.tenant_keys;
  v_grace interval := make_interval(days => coalesce(
    (select value::integer from ward_internal.settings where name = 'grace'), 30));
begin
  perform ward_internal.require_superuser();
  if p_slug is not null then
    v_tenant := ward_internal.tenant_of(p_slug);
    v_id := v_tenant.id;
  end if;
  select * into v_key from ward_internal.tenant_keys where tenant_id = v_id and version = p_version for update;
  if v_key.state = 'destroyed' then
    return;
  elsif v_key.state is null then
    perform ward_internal.fail('unknown_object', 'no such key', 'list them: select * from ward.keys');
  elsif v_key.state <> 'retired' then
    perform ward_internal.fail('key_in_use', format('version %s is %s', p_version, v_key.state),
      'only a retired key is destroyed: rotate, reseal, retire first');
  end if;
  perform ward_internal.require_no_hold(v_id);
  if not p_now and v_key.retired_at + v_grace > clock_timestamp() then
    perform ward_internal.fail('key_in_use',
      format('version %s is kept until %s', p_version, (v_key.retired_at + v_grace)::date),
      'backups older than its retirement need it until then; p_now => true does not wait');
  end if;
  if p_slug is not null then
    perform ward_internal.check_unused(v_tenant, array[p_version]);
  end if;
  update ward_internal.tenant_keys set state = 'destroyed', wrapped = null, destroyed_at = clock_timestamp(),
    fence = null
    where tenant_id = v_id and version = p_version;
  perform ward_internal.log_event(v_id, 'destroyed', jsonb_build_object('version', p_version, 'kek', v_key.kek,
    'kek_version', v_key.kek_version));
  perform ward_internal.retire_masters();
end
$$;
comment on function ward.destroy_key(text, integer, boolean) is
  'forgets a retired key of which the grace is over; p_now: does not wait for that. Without a slug: a master secret. '
  'The keeper is told by wardkey keys destroy. A backup still holds the wrapped key. Errors: WK214 not retired, or '
  'needed';

create or replace function ward.readmit_key(p_slug text, p_version integer, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  perform ward_internal.check_reason(p_reason);
  perform ward_internal.check_unique_versions(v_tenant, p_version);
  update ward_internal.tenant_keys set state = 'decrypt-only', retired_at = null, fence = null
    where tenant_id = v_tenant.id and version = p_version and state = 'retired';
  if not found then
    perform ward_internal.fail('unknown_object', 'no retired key of that version',
      'list them: select * from ward.keys');
  end if;
  insert into ward_internal.pending_searches (tenant_id, search_id)  -- restored rows may be a second time there
    select v_tenant.id, id from ward_internal.searches where kind = 'unique_odd' on conflict do nothing;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant.id;
  insert into ward_internal.rotations (tenant_id, version, reason)
    select v_tenant.id, k.version, p_reason from ward_internal.tenant_keys as k
    where k.tenant_id = v_tenant.id and k.state = 'active'
      and not exists (select from ward_internal.rotations where tenant_id = v_tenant.id and finished_at is null);
  perform ward_internal.log_event(v_tenant.id, 'readmitted',
    jsonb_build_object('version', p_version, 'reason', p_reason));
end
$$;
comment on function ward.readmit_key(text, integer, text) is
  'lets a retired key open values again, after a restore of rows that are older than its retirement; they are then '
  'resealed as in a rotation';

create or replace function ward.pause_rotation(p_slug text, p_paused boolean default true) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  if not exists (select from ward_internal.rotations where tenant_id = v_tenant.id and finished_at is null) then
    perform ward_internal.fail('unknown_object', 'no rotation of this tenant is under way',
      'see: select * from ward.rotations');
  end if;
  update ward_internal.rotations set paused = p_paused
    where tenant_id = v_tenant.id and finished_at is null and paused <> p_paused;
  if found then
    perform ward_internal.log_event(v_tenant.id, case when p_paused then 'paused' else 'resumed' end);
  end if;
end
$$;
comment on function ward.pause_rotation(text, boolean) is
  'stops resealing before its next batch, until it is called with false. Rows stay readable under either key';

-- definer because requests and events are no tenant's to write
create or replace function ward.request_rotation(p_reason text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.admin_of_context('ask for a rotation');
begin
  perform ward_internal.check_reason(p_reason);
  insert into ward_internal.rotation_requests (tenant_id, reason, requested_by)
    values (v_tenant, p_reason, ward.subject())
    on conflict (tenant_id) where done_at is null do nothing;
  if found then
    perform ward_internal.log_event(v_tenant, 'requested', jsonb_build_object('reason', p_reason));
  end if;
end
$$;
revoke execute on function ward.request_rotation(text) from public;
comment on function ward.request_rotation(text) is
  'asks for a new data key, once until it is done: for a tenant''s ADMIN. Operators rotate: wardkey keys rotate '
  '--requested. p_reason: 1 to 200 printable characters. Errors: WK001 no context, WK212 another role';
