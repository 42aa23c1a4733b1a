-- What clients may cache in Redis. No foreign keys, for the reason given in 02_registry.sql.

create table ward_internal.cache_state (
  one boolean constraint cache_state_pkey primary key default true,
  url text not null,
  generation uuid,
  secret bytea,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint cache_state_one_row check (one),
  constraint cache_state_secret_length check (pg_catalog.octet_length(secret) = 32),
  constraint cache_state_whole check ((generation is null) = (secret is null))
);
comment on table ward_internal.cache_state is
  'where Redis is, and the invalidator that is at work; no row: there is no cache';
comment on column ward_internal.cache_state.url is 'for clients: without user and password';
comment on column ward_internal.cache_state.secret is
  'drawn by each invalidator as it starts. Of it derive, by tenant, the password of its Redis user and the key that '
  'authenticates marks. No value opens with it: that takes a key of the keeper''s';

create table ward_internal.cache_policies (
  tenant_id uuid constraint cache_policies_pkey primary key,
  ttl integer not null default 300,
  phi boolean not null default false,
  decided_by text not null default session_user,
  decided_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint cache_policies_ttl_bounded check (ttl between 1 and 300)
);
comment on table ward_internal.cache_policies is
  'of tenants that have another policy than 300 s and nothing that was sealed';
comment on column ward_internal.cache_policies.phi is
  'whether what was opened from sealed columns may be cached; then each hit is journalled as reads';

select pg_catalog.pg_extension_config_dump('ward_internal.cache_state', '');
select pg_catalog.pg_extension_config_dump('ward_internal.cache_policies', '');
