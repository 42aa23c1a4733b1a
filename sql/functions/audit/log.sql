-- The audit log: where a tenant's part of it lives, its months, events, and what becomes of it when the tenant goes.
--
-- A month's partition that is missing is made by the first transaction that writes to it, or ahead of time by the
-- scribe. An entry that cannot be written makes what it is about fail: it is in the same transaction.

create or replace function ward_internal.lease_audit_ids(p_count bigint) returns bigint
language plpgsql volatile strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_first bigint;
begin
  -- not nextval, after which a client's lastval() would be ours; the lock goes with the savepoint, the counter stays
  begin
    perform pg_advisory_xact_lock('ward_internal.audit_id'::regclass::bigint);
    v_first := (select last_value + is_called::integer from ward_internal.audit_id);
    perform setval('ward_internal.audit_id', v_first + p_count - 1);
    raise triggered_action_exception;
  exception when triggered_action_exception then
    return v_first;
  end;
end
$$;
comment on function ward_internal.lease_audit_ids(bigint) is
  'takes so many ids of entries, one after the other, and returns the first. They stay taken after a rollback. Nothing '
  'else may move the counter';
alter table only ward_internal.audit_log alter column id set default ward_internal.lease_audit_ids(1);

create or replace function ward_internal.audit_leaf(p_tenant uuid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select case
    when p_tenant = '00000000-0000-0000-0000-000000000000' then 'ward_internal.audit_platform'
    when to_regclass(archived) is null and to_regnamespace(quote_ident(schema_name)) is not null
      then format('%I.audit_log', schema_name)
    else archived
  end
  from (select format('ward_archive.log_%s', replace(p_tenant::text, '-', '')) as archived) as a
  left join ward_internal.tenants on id = p_tenant
$$;
comment on function ward_internal.audit_leaf(uuid) is
  'the partition of audit_log that is this tenant''s, or is to be: in its ward; of a tenant that is gone in '
  'ward_archive';

create or replace function ward_internal.create_audit_leaf(p_tenant uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
begin
  -- made, then attached: a partition made in one step would lock the log against the scribe
  execute format('create table %s (like ward_internal.audit_log including defaults including constraints, '
    'constraint %I primary key (id, at)) partition by range (at)', v_leaf, split_part(v_leaf, '.', 2) || '_pkey');
  execute format('alter table %s owner to ward_owner, enable row level security, force row level security', v_leaf);
  execute format('revoke all on %s from ward_owner; grant select, insert on %1$s to ward_owner', v_leaf);
  -- a superuser is kept out of nothing; of a context, the tenant's part of the log is all its owner reads
  execute format('create policy ward_read on %s for select using ((select ward_internal.is_operator()) '
    'or tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_if_refused(null::uuid))))', v_leaf);
  execute format('create policy ward_write on %s for insert with check (true)', v_leaf);
  execute format('create index %I on %s (operation, at) where kind = %L',
    split_part(v_leaf, '.', 2) || '_events', v_leaf, 'e');
  execute format('alter table ward_internal.audit_log attach partition %s for values in (%L)', v_leaf, p_tenant);
end
$$;
comment on function ward_internal.create_audit_leaf(uuid) is
  'makes the tenant''s part of the log, which its owner, ward_owner, may read and add to, not change';

-- definer because the scribe makes months of logs that are not its own
create or replace function ward_internal.make_audit_partition(p_tenant uuid, p_at timestamptz default clock_timestamp())
returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
  v_month timestamptz := date_trunc('month', p_at, 'UTC');
  v_part text := v_leaf || to_char(v_month at time zone 'UTC', '_YYYY_MM');
begin
  if exists (select from pg_inherits where inhrelid = to_regclass(v_part)) then
    return false;
  end if;
  if to_regclass(v_leaf) is null then
    perform ward_internal.create_audit_leaf(p_tenant);
  end if;
  -- detached: DETACH … CONCURRENTLY leaves a CHECK, which each row would pay for
  if to_regclass(v_part) is not null then
    execute coalesce((
      select format('alter table %s ', v_part) || string_agg(format('drop constraint %I', conname), ', ')
      from pg_constraint where conrelid = v_part::regclass and contype = 'c'), 'select');
  else
    begin
      execute format('create table %s (like %s including defaults including constraints)', v_part, v_leaf);
    exception when duplicate_table or unique_violation then  -- somebody else made it meanwhile
      return false;
    end;
    execute format('alter table %s owner to ward_owner, enable row level security, force row level security', v_part);
  end if;
  execute format('alter table %s attach partition %s for values from (%L) to (%L)', v_leaf, v_part,
    v_month, (v_month at time zone 'UTC' + interval '1 month') at time zone 'UTC');
  return true;
end
$$;
revoke execute on function ward_internal.make_audit_partition(uuid, timestamptz) from public;
comment on function ward_internal.make_audit_partition(uuid, timestamptz) is
  'makes the partition of the tenant''s log for the month (UTC) of that time, if it is missing, or attaches it again '
  'with all that is in it: returns whether it was missing';

create or replace function ward_internal.make_audit_partitions() returns bigint
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select count(*) filter (where ward_internal.make_audit_partition(t.id, m.month))
  from (select ward_internal.master_id() as id union all
    select id from ward_internal.tenants where status not in ('shredding', 'shredded')) as t,
    (values (clock_timestamp()), (clock_timestamp() + interval '1 month')) as m (month)
$$;
comment on function ward_internal.make_audit_partitions() is
  'makes the partitions of this month and the next that are missing, for every tenant and the platform; returns how '
  'many';

create or replace function ward_internal.log_event(p_tenant uuid, p_kind text, p_detail jsonb default '{}') returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.make_audit_partition(p_tenant);
  execute format('insert into %s (tenant_id, transaction, statement, kind, operation, detail, subject, role, '
    'database_role, address, application) values ($1, $2, $3, ''e'', $4, $5, $6, $7, $8, $9, $10)',
    ward_internal.audit_leaf(p_tenant))
  using p_tenant, pg_current_xact_id(),
    (date_part('epoch', statement_timestamp()) * 1000000)::bigint - 946684800000000, replace(p_kind, ' ', '_'),
    nullif(jsonb_strip_nulls(p_detail), '{}'), ward.subject(), ward.role(), session_user::text,
    host(inet_client_addr()), current_setting('application_name');
end
$$;
comment on function ward_internal.log_event(uuid, text, jsonb) is
  'writes an event into the tenant''s log, or the platform''s; the detail may hold names, numbers and reasons, no '
  'plaintext and no key, wrapped or not';

create or replace function ward_internal.log_event_in_all(p_kind text, p_detail jsonb) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select ward_internal.log_event(id, p_kind, p_detail)
  from (select ward_internal.master_id() as id union all
    select id from ward_internal.tenants where status not in ('shredding', 'shredded')) as t
$$;
comment on function ward_internal.log_event_in_all(text, jsonb) is
  'writes an event into the platform''s log and each tenant''s: what says how far a log is to be believed';

create or replace function ward_internal.archive_audit_log(p_tenant uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf regclass;
  v_part record;
  v_name text := 'log_' || replace(p_tenant::text, '-', '');
begin
  perform ward_internal.make_audit_partition(p_tenant);
  v_leaf := ward_internal.audit_leaf(p_tenant)::regclass;
  if v_leaf::text like 'ward_archive.%' then
    return;
  end if;
  for v_part in  -- indexes go with their tables, but keep their names
    with tables as (select v_leaf as oid union all select inhrelid from pg_inherits where inhparent = v_leaf)
    select oid::regclass as relation, relkind in ('r', 'p') as is_table, replace(relname, 'audit_log', v_name) as name
    from pg_class where oid in (select oid from tables)
      or oid in (select indexrelid from pg_index where indrelid in (select oid from tables))
  loop
    execute format('alter table %s rename to %I', v_part.relation, v_part.name);
    if v_part.is_table then
      execute format('alter table %s set schema ward_archive', v_part.relation);
    end if;
  end loop;
end
$$;
comment on function ward_internal.archive_audit_log(uuid) is
  'moves the log of a tenant that is about to go out of its ward; it outlives the tenant and its keys';

create or replace function ward_internal.check_audit_level(p_level text, p_reason text) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if (p_level in ('row', 'statement', 'off')) is not true then
    perform ward_internal.fail('unsupported', 'no such level of the read journal', 'levels are row, statement and off');
  elsif p_reason is not null or p_level = 'off' then
    perform ward_internal.check_reason(p_reason);
  end if;
end
$$;

create or replace function ward.set_audit(p_table regclass, p_level text, p_reason text default null) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models;
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_audit_level(p_level, p_reason);
  lock table ward_internal.tenants in share row exclusive mode;
  select * into v_model from ward_internal.models where id = ward_internal.model_of(p_table) for update;
  update ward_internal.models set audit = p_level, audit_reason = p_reason where id = v_model.id;
  update ward_internal.tenants set key_epoch = key_epoch + 1;  -- backends learn it
  perform ward_internal.log_event_in_all('audit level', jsonb_build_object('table', p_table::text,
    'model', v_model.id, 'from', v_model.audit, 'to', p_level, 'reason', p_reason));
end
$$;
comment on function ward.set_audit(regclass, text, text) is
  'how reading the table''s sealed columns is journalled, from the next login on: row (each row a statement opens), '
  'statement (that it opened some), off. Off needs a reason, and each change is an event. Writes are always logged. '
  'Errors: WK204 not protected, WK209 no such level, WK212 no reason';

create or replace view ward.events as
  select e.id, e.at, coalesce(t.slug, e.detail ->> 'slug') as slug, replace(e.operation, '_', ' ') as kind,
    coalesce(e.subject, e.database_role) as actor, coalesce(e.detail, '{}') as detail, e.tenant_id
  from ward_internal.audit_log as e
  left join ward_internal.tenants as t on t.id = e.tenant_id
  where e.kind = 'e';
comment on view ward.events is
  'events of the audit log: logins, refusals, the life of keys, what operators did. Slug is null for the platform''s';
