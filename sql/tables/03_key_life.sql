-- The life of keys: what was asked for and what was done; each step is an event of the audit log too.
--
-- The master secret of mode derived is kept as the keys of tenant 00000000-0000-0000-0000-000000000000, which has no row
-- in tenants. No row here holds a secret.
--
-- Lock order: tenants, tenant_keys, rotations, the leaves.

create table ward_internal.rotations (
  id uuid constraint rotations_pkey primary key default pg_catalog.gen_random_uuid(),
  tenant_id uuid not null,
  version integer not null,
  reason text not null,
  incident boolean not null default false,
  requested_by text,
  started_at timestamptz not null default pg_catalog.clock_timestamp(),
  fenced_at timestamptz,
  paused boolean not null default false,
  finished_at timestamptz,
  rows bigint not null default 0,
  fields bigint not null default 0,
  failed bigint not null default 0
);
create index rotations_unfinished on ward_internal.rotations (tenant_id) where finished_at is null;
comment on column ward_internal.rotations.version is 'the version rows are moved to';
comment on column ward_internal.rotations.fenced_at is 'when resealing began: the first moment after which a new transaction knows the version';

create table ward_internal.rotation_requests (
  id uuid constraint rotation_requests_pkey primary key default pg_catalog.gen_random_uuid(),
  tenant_id uuid not null,
  reason text not null,
  requested_by text not null,
  requested_at timestamptz not null default pg_catalog.clock_timestamp(),
  version integer,
  done_at timestamptz
);
create unique index rotation_requests_one_open on ward_internal.rotation_requests (tenant_id) where done_at is null;

create table ward_internal.shreddings (
  tenant_id uuid constraint shreddings_pkey primary key,
  code text not null,
  facts jsonb not null,
  begun_at timestamptz not null default pg_catalog.clock_timestamp(),
  certificate jsonb,
  finished_at timestamptz
);

select pg_catalog.pg_extension_config_dump('ward_internal.rotations', '');
select pg_catalog.pg_extension_config_dump('ward_internal.rotation_requests', '');
select pg_catalog.pg_extension_config_dump('ward_internal.shreddings', '');
