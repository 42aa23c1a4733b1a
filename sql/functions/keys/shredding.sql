-- The end of a tenant, in two steps around what keeper and KMS do in between: begin_shredding refuses every login and
-- says what will go, finish_shredding drops the ward and forgets the keys. Either may be repeated. What stays is the
-- tenant's row, whose slug is never given again, its events, and the certificate.

create or replace function ward_internal.shredding_facts(p_slug text) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
  v_facts jsonb := (
    select s.facts || jsonb_build_object('code', s.code) from ward_internal.shreddings as s
    join ward_internal.tenants as t on t.id = s.tenant_id where t.slug = p_slug);
  v_model ward_internal.models;
  v_tables jsonb := '[]';
  v_count bigint;
begin
  perform ward_internal.require_superuser();
  if v_facts is not null then
    return v_facts;
  end if;
  v_tenant := ward_internal.tenant_of(p_slug);
  for v_model in select * from ward_internal.models order by face loop
    continue when to_regclass(ward_internal.leaf_name(v_model.id, v_tenant.schema_name)) is null;
    execute format('select count(*) from %s', ward_internal.leaf_name(v_model.id, v_tenant.schema_name)) into v_count;
    v_tables := v_tables || jsonb_build_object('table', v_model.face, 'rows', v_count);
  end loop;
  return (
    select jsonb_build_object('tenant', v_tenant.id, 'slug', v_tenant.slug, 'name', v_tenant.name,
      'mode', v_tenant.key_mode, 'schema', v_tenant.schema_name, 'login_role', v_tenant.login_role,
      'region', v_tenant.region,
      'created_at', v_tenant.created_at, 'tables', v_tables,
      'keys', coalesce(jsonb_agg(jsonb_build_object('version', k.version, 'state', k.state, 'kek', k.kek,
        'kek_version', k.kek_version, 'commitment', encode(k.commitment, 'hex'), 'created_at', k.created_at,
        'destroyed_at', k.destroyed_at) order by k.version) filter (where k.version is not null), '[]'),
      'code', left(encode(sha256(convert_to(format('%s %s %s', v_tenant.id, v_tenant.key_epoch,
        string_agg(format('%s %s', k.version, k.state), ' ' order by k.version)), 'UTF8')), 'hex'), 10))
    from (select) as one left join ward_internal.tenant_keys as k on k.tenant_id = v_tenant.id);
end
$$;
comment on function ward_internal.shredding_facts(text) is
  'what shredding the tenant would destroy, with the code that confirms it; once it has begun, what it is destroying';

create or replace function ward_internal.begin_shredding(p_slug text, p_code text) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_facts jsonb;
begin
  perform ward_internal.require_superuser();
  perform from ward_internal.tenants where slug = p_slug for update;
  v_facts := ward_internal.shredding_facts(p_slug);
  if p_code is distinct from v_facts ->> 'code' then
    perform ward_internal.fail('not_confirmed', 'that is not the code of this tenant as it is now',
      format('see what will go, and the code: wardkey tenant shred %s', p_slug));
  end if;
  insert into ward_internal.shreddings (tenant_id, code, facts)
    values ((v_facts ->> 'tenant')::uuid, p_code, v_facts - 'code') on conflict (tenant_id) do nothing;
  if found then
    perform ward_internal.require_no_hold((v_facts ->> 'tenant')::uuid);
    update ward_internal.tenants set status = 'shredding', key_epoch = key_epoch + 1 where slug = p_slug;
    perform ward_internal.log_event((v_facts ->> 'tenant')::uuid, 'shredding',
      jsonb_build_object('tables', v_facts -> 'tables'));
  end if;
  return v_facts - 'code';
end
$$;
comment on function ward_internal.begin_shredding(text, text) is
  'refuses the tenant every login for good and returns what goes: tables with their rows, keys with KEKs and '
  'commitments. Repeatable. Errors: WK203, WK211 not the code, WK217 its log is under legal hold';

create or replace function ward_internal.finish_shredding(p_slug text, p_certificate jsonb) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
  v_certificate jsonb;
begin
  perform ward_internal.require_superuser();
  select * into v_tenant from ward_internal.tenants where slug = p_slug for update;
  if v_tenant.status = 'shredded' then
    return (select certificate from ward_internal.shreddings where tenant_id = v_tenant.id);
  elsif v_tenant.status is distinct from 'shredding' then
    perform ward_internal.fail('not_confirmed', 'shredding this tenant has not begun',
      format('wardkey tenant shred %s', p_slug));
  elsif p_certificate is null then
    perform ward_internal.fail('not_allowed', 'there is no certificate', 'the keeper signs one: wardkey tenant shred');
  end if;
  perform ward_internal.drop_ward(v_tenant);
  update ward_internal.tenant_keys
    set state = 'destroyed', wrapped = null, destroyed_at = clock_timestamp(), fence = null
    where tenant_id = v_tenant.id and state <> 'destroyed';
  update ward_internal.rotations set finished_at = clock_timestamp() where tenant_id = v_tenant.id
    and finished_at is null;
  delete from ward_internal.rotation_requests where tenant_id = v_tenant.id and done_at is null;
  update ward_internal.tenants set status = 'shredded', key_epoch = key_epoch + 1 where id = v_tenant.id;
  update ward_internal.shreddings set certificate = p_certificate, finished_at = clock_timestamp()
    where tenant_id = v_tenant.id;
  perform ward_internal.log_event(v_tenant.id, 'shredded');
  perform ward_internal.retire_masters();
  return p_certificate;
end
$$;
comment on function ward_internal.finish_shredding(text, jsonb) is
  'drops the ward and its role, forgets the wrapped keys and keeps the certificate, which it returns; the first one '
  'when repeated. Errors: WK211 not begun';
