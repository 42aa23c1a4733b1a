-- DDL waits for sessions that use what it changes, and later sessions wait behind it: a tenant's session that stays
-- in a transaction would stop DDL, and with it every ward. So functions of ward take their locks together or not at all
-- (ward_internal.lock_together), and other DDL waits for seconds. Nothing keeps a tenant from holding locks in its own
-- ward, also without a token: ward.lock_holders says who does.

create or replace function ward_internal.relations_of(p_relations regclass[]) returns setof regclass
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select unnest(p_relations) union select inhrelid::regclass from pg_inherits where inhparent = any (p_relations)
$$;
comment on function ward_internal.relations_of(regclass[]) is
  'these, and the leaves of those that are parents; without pg_partition_tree, which locks them';

create or replace function ward.lock_holders(p_relations regclass[] default null)
returns table (pid integer, role name, state text, since timestamptz, relation regclass)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select a.pid, a.usename, a.state, a.xact_start, min(l.relation::oid)::regclass
  from pg_locks as l
  join pg_stat_activity as a on a.pid = l.pid
  where l.locktype = 'relation' and l.granted and l.pid <> pg_backend_pid()
    and l.database = (select oid from pg_database where datname = current_database())
    and l.relation in (
      select ward_internal.relations_of(
        coalesce(p_relations, (select array_agg(m.relation) from ward_internal.models as m)))
      union all
      select to_regclass(format('%I.%I', t.schema_name, m.face))
        from ward_internal.tenants as t, ward_internal.models as m
      where p_relations is null)
  group by a.pid, a.usename, a.state, a.xact_start
  order by a.xact_start
$$;
comment on function ward.lock_holders(regclass[]) is
  'for superusers: the sessions that hold locks on these relations and leaves, without argument on those of all wards, '
  'oldest first. To end one: select pg_terminate_backend(pid)';

create or replace function ward_internal.bound_lock_waits() returns event_trigger
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('lock_timeout') = '0' then
    perform set_config('lock_timeout', '5s', true);
  end if;
end
$$;
comment on function ward_internal.bound_lock_waits() is
  'before DDL: no session without a lock_timeout waits for a lock for more than 5 s in that transaction';
