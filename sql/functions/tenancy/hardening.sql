-- What PostgreSQL grants to PUBLIC in every new database and a tenant must not have: whatever tells about other
-- tenants' rows, statements or load, and what all sessions of a database share and anybody could hold, fill or listen
-- to.
--
-- Everything else in pg_catalog stays readable, tools live on it: names of schemas, roles and columns and the ids of
-- tenants are no secret. Privileges cannot take NOTIFY and LISTEN away: no payload may carry anything worth hiding.
--
-- Run by every install and update. pg_upgrade, and a database made with "create database … template", lose part of it:
-- ward_internal.open_to_public() says what, ward_internal.harden() closes it again; wardkey up and wardkey install do.

create or replace function ward_internal.is_catalog_open() returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return exists (select from ward_internal.settings where name = 'catalog' and value = 'open');
comment on function ward_internal.is_catalog_open() is
  'whether tenants may see sizes and counts of all tables, which BI tools ask for';

create or replace function ward_internal.size_functions() returns setof regprocedure
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'pg_catalog'::regnamespace and proname in ('pg_database_size', 'pg_indexes_size',
    'pg_relation_size', 'pg_table_size', 'pg_tablespace_size', 'pg_total_relation_size')
$$;

create or replace function ward_internal.hidden_relations() returns setof regclass
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select oid::regclass from pg_class
  where relnamespace = 'pg_catalog'::regnamespace and relkind in ('r', 'v') and (
    relname ~ '^pg_stat' and relname <> 'pg_statistic_ext'  -- rows, values and use of tables; activity of backends
    or relname in (
      'pg_db_role_setting',       -- settings of other tenants' roles
      'pg_largeobject_metadata',  -- who has large objects
      'pg_locks',                 -- who works on which table
      'pg_prepared_xacts',        -- others' transactions
      'pg_replication_slots',     -- how much is written
      'pg_subscription_rel'
    ))
  union all
  select d.objid from pg_depend as d join pg_extension as e on e.oid = d.refobjid
  where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    and e.extname = 'pg_stat_statements'
$$;
comment on function ward_internal.hidden_relations() is 'tables and views of which PUBLIC may read nothing';

create or replace function ward_internal.hidden_columns()
returns table (relation regclass, column_name name)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select attrelid::regclass, attname from pg_attribute
  where (attrelid, attname) in (
    ('pg_class'::regclass, 'reltuples'),      -- how many rows, pages and dead rows a table has,
    ('pg_class'::regclass, 'relpages'),
    ('pg_class'::regclass, 'relallvisible'),
    ('pg_class'::regclass, 'relallfrozen'),
    ('pg_class'::regclass, 'relfrozenxid'),   -- and when it was vacuumed
    ('pg_class'::regclass, 'relminmxid'),
    ('pg_roles'::regclass, 'rolconfig'),      -- settings of other tenants' roles
    ('pg_user'::regclass, 'useconfig'))
    and not (attrelid = 'pg_class'::regclass and ward_internal.is_catalog_open())
$$;
comment on function ward_internal.hidden_columns() is
  'columns PUBLIC may not read, of catalogs it may read otherwise; "select *" from those fails';

create or replace function ward_internal.hidden_functions() returns setof regprocedure
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select oid::regprocedure from pg_proc
  where pronamespace = 'pg_catalog'::regnamespace and (
    -- what stands behind the views above
    proname ~ '^pg_stat_'
    or proname in ('has_largeobject_privilege', 'pg_blocking_pids', 'pg_get_replication_slots',
      'pg_isolation_test_session_is_blocked', 'pg_lock_status', 'pg_prepared_xact', 'pg_safe_snapshot_blocking_pids')
    -- which processes there are: refused for another's, a warning for none; clients cancel by the protocol
    or proname in ('pg_cancel_backend', 'pg_terminate_backend')
    -- sizes of others' tables
    or oid in (select ward_internal.size_functions()) and not ward_internal.is_catalog_open()
    -- counters of the whole server, which tell how much the others write, and when
    or proname ~ '^pg_(current|last)_wal_' or proname ~ '^pg_control_' or proname ~ '^txid_(current|status)'
    or proname in ('mxid_age', 'pg_available_wal_summaries', 'pg_column_toast_chunk_id', 'pg_current_snapshot',
      'pg_current_xact_id', 'pg_current_xact_id_if_assigned', 'pg_get_multixact_members', 'pg_get_wal_summarizer_state',
      'pg_last_committed_xact', 'pg_last_xact_replay_timestamp', 'pg_wal_summary_contents', 'pg_xact_commit_timestamp',
      'pg_xact_commit_timestamp_origin', 'pg_xact_status')
    or oid = 'age(xid)'::regprocedure
    -- locks by number, common to all tenants: whether one is held is a fact, and enough of them exhaust the lock table
    or proname ~ '^pg_(try_)?advisory_' and proname <> 'pg_advisory_unlock_all'  -- which pools call to reset a session
    -- messages every session of the database can hear
    or proname in ('pg_listening_channels', 'pg_notification_queue_usage', 'pg_notify')
    -- a snapshot of before a suspension, in which later transactions could log in
    or proname = 'pg_export_snapshot'
    -- records in the write-ahead log that readers of the log would believe
    or proname = 'pg_logical_emit_message'
    -- large objects: out of reach of row-level security
    or proname ~ '^lo_' or proname in ('loread', 'lowrite'))
  union all
  select d.objid from pg_depend as d join pg_extension as e on e.oid = d.refobjid
  where d.classid = 'pg_proc'::regclass and d.refclassid = 'pg_extension'::regclass and d.deptype = 'e'
    and e.extname = 'pg_stat_statements'
$$;
comment on function ward_internal.hidden_functions() is 'functions PUBLIC may not call';

create or replace function ward_internal.open_to_public() returns table (object text, fix text)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select format('relation %s', r), format('revoke all on %s from public', r)
  from ward_internal.hidden_relations() as r
  join pg_class as c on c.oid = r, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) as acl
  where acl.grantee = 0
  union
  select format('column %s.%I', h.relation, h.column_name), 'select ward_internal.harden()'
  from ward_internal.hidden_columns() as h
  join pg_class as c on c.oid = h.relation
  join pg_attribute as a on a.attrelid = h.relation and a.attname = h.column_name,
    aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)) || coalesce(a.attacl, '{}')) as acl
  where acl.grantee = 0
  union
  select format('function %s', f), format('revoke execute on function %s from public', f)
  from ward_internal.hidden_functions() as f
  join pg_proc as p on p.oid = f, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl
  where acl.grantee = 0
  union
  select format('%s on database %I', lower(acl.privilege_type), datname),
    format('revoke all on database %I from public', datname)
  from pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) as acl
  where datname = current_database() and acl.grantee = 0
  union
  select 'create on schema public', 'revoke create on schema public from public'
  from pg_namespace, aclexplode(nspacl) as acl
  where nspname = 'public' and acl.grantee = 0 and acl.privilege_type = 'CREATE'
$$;
comment on function ward_internal.open_to_public() is
  'what PUBLIC has in this database and should not, with the statement that mends it; empty after '
  'ward_internal.harden()';

create or replace function ward_internal.harden() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_name text;
begin
  execute format('revoke all on database %I from public', current_database());
  execute format('grant connect on database %I to ward_tenant, ward_scribe, ward_publisher, ward_invalidator, '
    'ward_metrics',
    current_database());
  if to_regnamespace('public') is not null then
    revoke create on schema public from public;
  end if;
  for v_name in select ward_internal.hidden_relations() loop
    execute format('revoke all on %s from public', v_name);
  end loop;
  for v_name in select ward_internal.hidden_functions() loop
    execute format('revoke execute on function %s from public', v_name);
  end loop;
  for v_name in select distinct relation from ward_internal.hidden_columns() loop
    execute format('revoke all on %s from public', v_name);
    execute format('grant select (%s) on %s to public', (
      select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
      where attrelid = v_name::regclass and attnum > 0 and not attisdropped
        and (attrelid, attname) not in (select * from ward_internal.hidden_columns())), v_name);
  end loop;
  -- MAINTAIN came with 17: pg_upgrade from before leaves it with the logs' owner
  if current_setting('server_version_num')::int >= 170000 then
    for v_name in
      select relid from pg_partition_tree('ward_internal.audit_log') join pg_class on oid = relid
      where relowner = 'ward_owner'::regrole and relacl is not null
    loop
      execute format('revoke maintain on %s from ward_owner', v_name);
    end loop;
  end if;
  if ward_internal.is_catalog_open() then
    -- wardkey: ignore WL115 because PostgreSQL itself grants it, and it is taken away elsewhere
    grant select on pg_class to public;
    for v_name in select ward_internal.size_functions() loop
      execute format('grant execute on function %s to public', v_name);
    end loop;
  end if;
end
$$;
comment on function ward_internal.harden() is
  'takes from PUBLIC what tells a tenant about others, but for sizes and counts where the catalog is open. Repeatable; '
  'grants to other roles stay';
