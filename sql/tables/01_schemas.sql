-- Roles are of the cluster, not of the database: another database may have made them already.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_owner') then
    create role ward_owner nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_tenant') then
    create role ward_tenant nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_scribe') then
    create role ward_scribe login noinherit replication;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_publisher') then
    create role ward_publisher login noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_invalidator') then
    create role ward_invalidator login noinherit replication;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'ward_metrics') then
    create role ward_metrics login noinherit;
  end if;
end
$$;

comment on role ward_owner is 'owns model tables, leaves and faces; nobody is a member of it';
comment on role ward_tenant is 'carries what every tenant''s login role may do';
comment on role ward_scribe is
  'the scribe: reads the audit stream, adds to the log, changes none of it; has no password';
comment on role ward_publisher is 'the publisher: reads the sealed log, remembers how far it has come; has no password';
comment on role ward_invalidator is
  'the invalidator: reads from the WAL which tables of which tenants were written, tells Redis; has no password';
comment on role ward_metrics is 'the metrics service: reads counts and dates; has no password';

create schema ward;
comment on schema ward is 'wardkey: the functions applications, DBAs and operators call';

create schema ward_internal;
comment on schema ward_internal is 'wardkey: registry and machinery; no tenant may use it';

create schema ward_model;
comment on schema ward_model is
  'wardkey: the model tables as they were declared, with their plaintext types; always empty';
