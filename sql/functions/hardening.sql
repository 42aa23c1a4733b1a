-- What PostgreSQL grants to PUBLIC and a tenant must not have. Run by every install and update; wardkey doctor checks it.

create or replace function ward_internal.hidden_relations() returns setof regclass
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select oid::regclass from pg_class
  where relnamespace = 'pg_catalog'::regnamespace and relkind in ('v', 'r')
    and (relname ~ '^pg_stat' or relname in ('pg_locks', 'pg_prepared_xacts', 'pg_largeobject_metadata', 'pg_db_role_setting',
      'pg_replication_slots', 'pg_cursors_all', 'pg_shmem_allocations', 'pg_backend_memory_contexts'))
$$;
comment on function ward_internal.hidden_relations() is
  'statistics and activity: they tell about other tenants'' rows, queries and load';

create or replace function ward_internal.hidden_functions() returns setof regprocedure
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'pg_catalog'::regnamespace and (
    proname ~ '^(pg_stat_|pg_show_all_file|pg_replication_|pg_export_snapshot)'
    or proname ~ '^(lo_|lo)(create|creat|open|close|import|export|get|put|read|write|unlink|lseek|tell|truncate|from_bytea)'
    or proname in ('loread', 'lowrite', 'pg_logical_emit_message', 'pg_lock_status', 'pg_prepared_xact', 'pg_relation_size',
      'pg_total_relation_size', 'pg_table_size', 'pg_indexes_size', 'pg_database_size', 'pg_tablespace_size', 'pg_column_size',
      'pg_notify', 'pg_listening_channels', 'pg_notification_queue_usage', 'query_to_xml', 'query_to_xml_and_xmlschema',
      'pg_get_replication_slots', 'pg_ls_dir', 'pg_read_file', 'dblink', 'pg_blocking_pids', 'pg_safe_snapshot_blocking_pids',
      'pg_isolation_test_session_is_blocked', 'pg_xact_commit_timestamp', 'pg_last_committed_xact')
    ) and proname <> 'pg_column_size' and proname !~ '^pg_stat_get_(backend_idset)$'
$$;
comment on function ward_internal.hidden_functions() is
  'functions behind those views, sizes, large objects and WAL messages: open to PUBLIC in a new database';

create or replace function ward_internal.harden() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_name text;
begin
  execute format('revoke all on database %I from public', current_database());
  execute format('grant connect on database %I to ward_tenant', current_database());
  revoke create on schema public from public;
  for v_name in select * from ward_internal.hidden_relations() loop
    execute format('revoke all on %s from public', v_name);
  end loop;
  for v_name in select * from ward_internal.hidden_functions() loop
    execute format('revoke execute on function %s from public', v_name);
  end loop;
  -- how many rows and pages a table has; everything else in pg_class stays readable, tools live on it
  revoke select on pg_class from public;
  execute format('grant select (%s) on pg_class to public', (
    select string_agg(quote_ident(attname), ', ') from pg_attribute
    where attrelid = 'pg_class'::regclass and not attisdropped
      and attname not in ('reltuples', 'relpages', 'relallvisible')));
end
$$;
comment on function ward_internal.harden() is
  'takes from PUBLIC what tells a tenant about others: TEMP, statistics, sizes, large objects, WAL messages. Repeatable';
