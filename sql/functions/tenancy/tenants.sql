-- Tenants: a ward is two schemas, a login role, a leaf and a face per model table, and a data key.

create or replace function ward_internal.tenant_of(p_slug text) returns ward_internal.tenants
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
begin
  perform ward_internal.require_superuser();
  select * into v_tenant from ward_internal.tenants where slug = p_slug for update;
  if not found then
    perform ward_internal.fail('unknown_tenant', 'no tenant has that slug', 'list them: select * from ward.tenants');
  elsif v_tenant.status in ('shredding', 'shredded') then
    perform ward_internal.fail('tenant_shredded', format('tenant %s was shredded', p_slug),
      'its keys are gone for good; a new tenant needs another slug');
  end if;
  return v_tenant;
end
$$;
comment on function ward_internal.tenant_of(text) is
  'the tenant, locked until the transaction ends. Errors: WK203, WK216';

create or replace function ward_internal.set_up_role(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_setting text;
  v_name text;
  -- A tenant can change its settings, but for those below: they are what a session begins with. It cannot have more
  -- connections: nobody alone has all of the server's.
  v_bounds jsonb := jsonb_build_object(
    'connections', greatest(current_setting('max_connections')::integer / 2, 1)::text,
    'work_mem', '64MB', 'idle_in_transaction_session_timeout', '10min') || p_tenant.bounds;
begin
  if not exists (select from pg_roles where rolname = p_tenant.login_role) then
    execute format('create role %I', p_tenant.login_role);
  end if;
  execute format('alter role %I login nosuperuser nocreatedb nocreaterole noreplication nobypassrls inherit '
    'connection limit %s', p_tenant.login_role, (v_bounds ->> 'connections')::integer);
  execute format('grant ward_tenant to %I', p_tenant.login_role);
  execute format('alter role %I in database %I reset all', p_tenant.login_role, current_database());
  -- Settings no tenant may change keep its literals and parameters out of the server's log; the search_path it may
  -- change, to its own harm: everything in it is reached by grants, and pinned where it matters. Nor do temporary files
  -- take plaintext to a disk (temp_tablespaces would not keep it from one: a tenant may change that), so that work_mem
  -- has to do for a sort, a hash table or a cursor WITH HOLD; how much it is, a tenant may change.
  foreach v_setting in array array[
    'search_path = ' || ward_internal.tenant_path(p_tenant.schema_name),
    'log_min_messages = fatal', 'log_min_error_statement = panic', 'log_statement = none', 'log_duration = off',
    'log_min_duration_statement = -1', 'log_min_duration_sample = -1', 'log_transaction_sample_rate = 0',
    'log_parameter_max_length = 0', 'log_lock_waits = off', 'log_temp_files = -1', 'log_executor_stats = off',
    'log_parser_stats = off', 'log_planner_stats = off', 'log_statement_stats = off',
    'temp_file_limit = 0'
  ] loop
    execute format('alter role %I in database %I set %s', p_tenant.login_role, current_database(), v_setting);
  end loop;
  for v_name, v_setting in select * from jsonb_each_text(v_bounds - 'connections') loop
    execute format('alter role %I in database %I set %I = %L', p_tenant.login_role, current_database(),
      v_name, v_setting);
  end loop;
end
$$;
comment on function ward_internal.set_up_role(ward_internal.tenants) is
  'makes the tenant''s login role, or puts its attributes and settings right; leaves its password alone';

create or replace function ward_internal.leaves_of(p_tenant ward_internal.tenants) returns regclass[]
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select array(
    select leaf from ward_internal.models, to_regclass(ward_internal.leaf_name(id, p_tenant.schema_name)) as leaf
    where leaf is not null)
$$;

create or replace function ward_internal.set_up_schema(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  execute format('create schema if not exists %I authorization ward_owner', p_tenant.schema_name);
  execute format('create schema if not exists %I authorization ward_owner',
    ward_internal.leaf_schema(p_tenant.schema_name));
  execute format('grant usage on schema %I to %I', p_tenant.schema_name, p_tenant.login_role);
end
$$;

-- What changes tables that transactions use gives way to them: it takes all of its locks at once or none, waits less
-- than deadlock_timeout for each, and begins again. So it is in no deadlock for longer than a client would notice.

create or replace function ward_internal.lock_holders(p_relation regclass) returns text
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select string_agg(distinct
    format('process %s (%s, %s)', l.pid, coalesce(a.usename, a.backend_type), coalesce(a.state, 'at work')), ', ')
  from pg_locks as l left join pg_stat_activity as a using (pid)
  where l.relation = p_relation and l.granted and l.pid <> pg_backend_pid()
    and l.database = (select oid from pg_database where datname = current_database())
$$;
comment on function ward_internal.lock_holders(regclass) is 'the processes that hold a lock on it, for a message';

create or replace function ward_internal.lock_together(p_relations regclass[], p_mode text default 'access exclusive')
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
  v_until timestamptz := clock_timestamp() + interval '30 s';
  v_relation regclass;
begin
  loop
    begin
      foreach v_relation in array p_relations loop
        execute format('lock table only %s in %s mode', v_relation, p_mode);
      end loop;
      return;
    exception when lock_not_available then  -- with the block, the locks that it got are released
      if clock_timestamp() > v_until then
        perform ward_internal.fail('table_in_use', format('%s was in use for 30 seconds: %s', v_relation,
          coalesce(ward_internal.lock_holders(v_relation), 'by several in turn')),
          'end what holds it (select pg_terminate_backend(process)), or try again when there is less to do');
      end if;
    end;
    perform pg_sleep(0.01 + 0.2 * random());
  end loop;
end
$$;
comment on function ward_internal.lock_together(regclass[], text) is
  'locks all of these tables and views until the transaction ends, giving way to who uses them. Errors: WK114 after 30 '
  's';

create or replace function ward_internal.drop_ward(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.lock_together(array(  -- and the parents of its leaves and shared tables they reference
    select relation from ward_internal.models
    union
    select c.oid from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
    join ward_internal.ward_schemas() as s on s.schema_name = n.nspname
    where s.tenant_id = p_tenant.id and c.relkind in ('r', 'p', 'v')
    union
    select f.confrelid from pg_constraint as f join pg_class as c on c.oid = f.conrelid
    join pg_namespace as n on n.oid = c.relnamespace
    where f.contype = 'f' and n.nspname = ward_internal.leaf_schema(p_tenant.schema_name)
  ));
  perform ward_internal.archive_audit_log(p_tenant.id);
  execute format('drop schema if exists %I, %I cascade', p_tenant.schema_name,
    ward_internal.leaf_schema(p_tenant.schema_name));
  if exists (select from pg_roles where rolname = p_tenant.login_role) then
    execute format('drop owned by %I', p_tenant.login_role);
    execute format('drop role %I', p_tenant.login_role);
  end if;
  perform ward_internal.forget_measures(p_tenant.id);
  delete from ward_internal.metrics_tokens where tenant_id = p_tenant.id;
  delete from ward_internal.counts where tenant_id = p_tenant.id;
end
$$;
comment on function ward_internal.drop_ward(ward_internal.tenants) is
  'drops a tenant''s schemas and login role, after its audit log has moved out; its rows of the registry stay';

create or replace function ward_internal.set_up_ward(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid;
  v_new uuid[] := '{}';
begin
  lock table ward_internal.models in share mode;
  perform ward_internal.lock_together(array(
    select relation from ward_internal.models
    where to_regclass(ward_internal.leaf_name(id, p_tenant.schema_name)) is null
  ));
  perform ward_internal.set_up_schema(p_tenant);
  -- all its months: a dump of the ward may be restored
  if to_regclass(ward_internal.audit_leaf(p_tenant.id)) is null then
    perform ward_internal.make_audit_partition(p_tenant.id, month)
      from generate_series(p_tenant.created_at, clock_timestamp(), interval '1 month') as month;
  end if;
  perform ward_internal.make_audit_partition(p_tenant.id);
  for v_model in select id from ward_internal.models order by relation loop
    if to_regclass(ward_internal.leaf_name(v_model, p_tenant.schema_name)) is null then
      perform ward_internal.create_leaf(v_model, p_tenant);
      v_new := v_new || v_model;
    end if;
  end loop;
  foreach v_model in array v_new loop
    perform ward_internal.create_leaf_foreign_keys(v_model, p_tenant);
  end loop;
  for v_model in select id from ward_internal.models loop
    perform ward_internal.build_row_rules(v_model, ward_internal.leaf_name(v_model, p_tenant.schema_name)::regclass);
    perform ward_internal.build_face(v_model, p_tenant);
  end loop;
  perform ward_internal.restore_dependents();
end
$$;
comment on function ward_internal.set_up_ward(ward_internal.tenants) is
  'makes what the ward lacks: schemas, audit log, leaves with their foreign keys, faces';

create or replace function ward.create_tenant(
  p_slug text, p_name text default null, p_mode text default 'envelope', p_id uuid default null,
  p_kek text default null, p_kek_version text default null, p_region text default null
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
  v_region text := coalesce(p_region, ward_internal.region_of());
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_region(v_region);
  if p_slug is null or p_slug !~ '^[a-z][a-z0-9_]{0,47}$' or p_slug = 'platform' then
    perform ward_internal.fail('invalid_slug', 'not a valid slug',
      'use a lower-case letter, then at most 47 lower-case letters, digits and underscores; platform is no tenant');
  elsif (p_mode in ('envelope', 'derived')) is not true or p_id = ward_internal.master_id() then
    perform ward_internal.fail('unsupported', 'no such mode of keys, or an id that is not a tenant''s',
      'modes are envelope (a key of the tenant''s own, wrapped) and derived (from the master secret)');
  elsif exists (select from ward_internal.tenants where slug = p_slug and status in ('shredding', 'shredded')) then
    perform ward_internal.fail('tenant_shredded', format('tenant %s was shredded', p_slug), 'choose another slug');
  end if;
  begin
    insert into ward_internal.tenants (id, slug, name, schema_name, login_role, key_mode, status, region)
      values (coalesce(p_id, gen_random_uuid()), p_slug, coalesce(p_name, p_slug), 'tenant_' || p_slug,
        'tenant_' || p_slug, p_mode, case when ward_internal.is_baa_required() then 'suspended' else 'active' end,
        v_region)
      returning * into v_tenant;
  exception when unique_violation then
    perform ward_internal.fail('duplicate_tenant', 'there is already a tenant of that slug or id', 'choose another');
  end;
  if exists (select from pg_roles where rolname = v_tenant.login_role)
    or exists (select from pg_namespace
      where nspname in (v_tenant.schema_name, ward_internal.leaf_schema(v_tenant.schema_name)))
  then
    perform ward_internal.fail('duplicate_tenant', format('role or schema %I, or schema %I, is there already',
        v_tenant.login_role, ward_internal.leaf_schema(v_tenant.schema_name)),
      'choose another slug; roles are shared by all databases of the cluster');
  end if;

  perform ward_internal.set_up_role(v_tenant);
  -- where events are logged; tables later: they lock what all wards share
  perform ward_internal.set_up_schema(v_tenant);
  perform ward_internal.add_key(v_tenant.id, p_mode, 1, 'provisioned', p_kek, p_kek_version);
  perform ward_internal.set_up_ward(v_tenant);
  return v_tenant.id;
end
$$;
comment on function ward.create_tenant(text, text, text, uuid, text, text, text) is
  'makes a ward: data key, login role tenant_SLUG (without a password), schemas tenant_SLUG (faces) and sealed_SLUG '
  '(leaves). All or nothing; suspended while require_baa is on: ward.resume_tenant lets it in. p_mode: envelope or '
  'derived. p_id, p_kek, p_kek_version: for a KEK that was made before. p_region: for good; that of the setting if '
  'null. Errors: WK201 slug, WK202 there already, WK216 shredded, WK102 keeper down, WK240 the keeper does not serve '
  'the region, WK241 not a region';

create or replace function ward.repair_tenant(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  perform ward_internal.set_up_role(v_tenant);
  perform ward_internal.lock_together(ward_internal.leaves_of(v_tenant));  -- before any face is remade
  perform ward_internal.set_up_ward(v_tenant);
  perform ward_internal.log_event(v_tenant.id, 'repaired');
end
$$;
comment on function ward.repair_tenant(text) is
  'puts a ward right without touching its data: role attributes and settings (which pg_dump leaves behind), missing '
  'leaves, all faces and their grants';

create or replace function ward.bound_tenant(p_slug text, p_name text, p_value text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  if p_name not in ('connections', 'work_mem', 'statement_timeout', 'lock_timeout',
    'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout')
  then
    perform ward_internal.fail('unknown_object', 'no such bound',
      'bounds are connections, work_mem, statement_timeout, lock_timeout, idle_in_transaction_session_timeout, '
      'idle_session_timeout and, from PostgreSQL 17 on, transaction_timeout');
  elsif p_name = 'connections' and p_value !~ '^([0-9]{1,6}|-1)$' then
    perform ward_internal.fail('not_allowed', 'connections is a number', 'give a number, or -1 for no limit');
  end if;
  update ward_internal.tenants
    set bounds = jsonb_strip_nulls(bounds || jsonb_build_object(p_name, p_value))
    where id = v_tenant.id returning * into v_tenant;
  perform ward_internal.set_up_role(v_tenant);
  perform ward_internal.log_event(v_tenant.id, 'set', jsonb_build_object('name', p_name, 'value', p_value));
end
$$;
comment on function ward.bound_tenant(text, text, text) is
  'how many connections a tenant''s login role may have, or with which settings its sessions begin; NULL is the '
  'default. For new sessions. Connections are enforced; the settings a tenant can change in a session: they bound '
  'mistakes, not malice';

create or replace function ward.suspend_tenant(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  update ward_internal.tenants set status = 'suspended', key_epoch = key_epoch + 1
    where id = v_tenant.id and status <> 'suspended';
  if found then
    perform ward_internal.log_event(v_tenant.id, 'suspended');
  end if;
end
$$;
comment on function ward.suspend_tenant(text) is 'refuses the tenant every login from its next transaction on';

create or replace function ward.resume_tenant(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  perform ward_internal.require_baa(v_tenant);
  update ward_internal.tenants set status = 'active', key_epoch = key_epoch + 1
    where id = v_tenant.id and status <> 'active';
  if found then
    perform ward_internal.log_event(v_tenant.id, 'resumed');
  end if;
end
$$;
comment on function ward.resume_tenant(text) is
  'undoes ward.suspend_tenant, and lets in a tenant that was made while require_baa is on. Errors: WK230 no agreement '
  'is in force';

create or replace function ward.drop_tenant(p_slug text, p_confirm text, p_force boolean default false) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
  v_leaf text;
  v_has_rows boolean;
  v_table text;
begin
  if p_confirm is distinct from p_slug then
    perform ward_internal.fail('not_confirmed', 'the tenant''s slug was not repeated',
      'repeat the slug as p_confirm: everything of the tenant goes');
  end if;
  perform ward_internal.require_no_hold(v_tenant.id);
  if not p_force then
    for v_leaf in select ward_internal.leaf_name(id, v_tenant.schema_name) from ward_internal.models loop
      continue when to_regclass(v_leaf) is null;
      execute format('select exists (select from %s)', v_leaf) into v_has_rows;
      if v_has_rows then
        perform ward_internal.fail('ward_not_empty', 'the tenant still has data',
          'p_force => true drops it with the data');
      end if;
    end loop;
  end if;
  perform ward_internal.drop_ward(v_tenant);
  perform ward_internal.log_event(v_tenant.id, 'dropped', jsonb_build_object('slug', p_slug));
  foreach v_table in array '{rotation_requests, rotations, tenant_keys, tenant_policy, budgets, pending_searches,
    honey_rows, cache_policies}'::text[]
  loop
    execute format('delete from ward_internal.%I where tenant_id = $1', v_table) using v_tenant.id;
  end loop;
  delete from ward_internal.tenants where id = v_tenant.id;
end
$$;
comment on function ward.drop_tenant(text, text, boolean) is
  'drops the ward, its role and its wrapped keys; refuses while there is data unless forced. Its audit log stays, in '
  'schema ward_archive. A backup still holds data and keys: shredding is what destroys keys for good';

create or replace view ward.tenants as
  select t.id, t.slug, t.name, t.schema_name, t.login_role, t.status, k.version as key_version, t.created_at,
    t.key_mode, t.region, ward_internal.leaf_schema(t.schema_name) as leaf_schema
  from ward_internal.tenants as t
  left join ward_internal.tenant_keys as k on k.tenant_id = t.id and k.state = 'active';
comment on view ward.tenants is 'the tenants; for operators';
