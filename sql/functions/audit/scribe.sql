-- What the scribe does that takes more than its role, ward_scribe, has. ward_scribe and ward_publisher can log in, are
-- members of nothing and have what sql/privileges.sql grants; ward_scribe has REPLICATION, for the slot. Neither can
-- change an entry.

-- definer because a publication takes the owner of its tables
create or replace function ward_internal.make_publications() returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  drop publication if exists wardkey_audit;
  drop publication if exists wardkey_audit_ids;
  create publication wardkey_audit for table ward_internal.audit_log
    where (not journalled) with (publish = 'insert', publish_via_partition_root = true);
  create publication wardkey_audit_ids for table ward_internal.audit_log (tenant_id, id)
    where (not journalled) with (publish = 'insert', publish_via_partition_root = true);
end
$$;
revoke execute on function ward_internal.make_publications() from public;
comment on function ward_internal.make_publications() is
  'remakes the publications that the scribe reads: whole rows, and their ids alone. The slot has to be younger';

-- definer because settings are a superuser's
create or replace function ward_internal.set_audit_slot(p_slot name) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from pg_replication_slots
    where slot_name = p_slot and database = current_database() and plugin = 'pgoutput')
  then
    perform ward_internal.fail('unknown_object', 'no such replication slot', 'the scribe makes it: wardkey scribe run');
  end if;
  insert into ward_internal.settings values ('audit_slot', p_slot)
    on conflict (name) do update set value = excluded.value;
  perform ward_internal.log_event(ward_internal.master_id(), 'set',
    jsonb_build_object('name', 'audit_slot', 'value', p_slot));
end
$$;
revoke execute on function ward_internal.set_audit_slot(name) from public;
comment on function ward_internal.set_audit_slot(name) is
  'from now on nobody logs in without this slot, which has to be there. Errors: WK204 it is not';

-- definer because others' transactions are seen
create or replace function ward_internal.open_transactions(out oldest timestamptz, out has_prepared boolean)
  returns record
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  select min(xact_start), exists (select from pg_prepared_xacts where database = current_database())
  from pg_stat_activity where backend_type <> 'walsender' and datname = current_database()
$$;
revoke execute on function ward_internal.open_transactions() from public;
comment on function ward_internal.open_transactions() is
  'since when the oldest transaction of this database is open, and whether there are prepared ones';

-- definer because the publisher writes no log but for this
create or replace function ward_internal.report_unpublished(p_tenant uuid, p_detail jsonb) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.log_event(p_tenant, 'not published', p_detail);
end
$$;
revoke execute on function ward_internal.report_unpublished(uuid, jsonb) from public;
comment on function ward_internal.report_unpublished(uuid, jsonb) is
  'an event: a tenant''s topic has no content of some entries';
