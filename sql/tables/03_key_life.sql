-- The life of keys: what was asked for and what was done; each step is an event of the audit log too.
--
-- The master secret of mode derived is kept as the keys of tenant 00000000-0000-0000-0000-000000000000, which has no
-- row in tenants. No row here holds a secret.
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
  failed bigint not null default 0,
  unopened jsonb not null default '[]'
);
create index rotations_unfinished on ward_internal.rotations (tenant_id) where finished_at is null;
comment on column ward_internal.rotations.version is 'the version rows are moved to';
comment on column ward_internal.rotations.fenced_at is
  'when resealing began: the first moment after which a new transaction knows the version';

comment on column ward_internal.rotations.unopened is 'what its events named as not opening: they name it once';

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

create table ward_internal.kek_versions (
  tenant_id uuid not null,
  kek text not null,
  kek_version text not null,
  left_at timestamptz,
  disabled_at timestamptz,
  destroyed_at timestamptz,
  constraint kek_versions_pkey primary key (tenant_id, kek, kek_version),
  constraint kek_versions_disabled_first check (disabled_at is not null or destroyed_at is null)
);
comment on table ward_internal.kek_versions is
  'versions of KEKs that data keys were taken from, or that were disabled: until one is destroyed, who has it reads '
  'backups. Rows outlive their tenant, as backups do. The version that wraps a key now is in tenant_keys';
comment on column ward_internal.kek_versions.left_at is 'when a data key was first wrapped under another version';

create table ward_internal.rewrap_runs (
  id uuid constraint rewrap_runs_pkey primary key default pg_catalog.gen_random_uuid(),
  scope text not null,
  tenants integer not null,
  started_at timestamptz not null default pg_catalog.clock_timestamp(),
  finished_at timestamptz
);
create index rewrap_runs_unfinished on ward_internal.rewrap_runs (scope, started_at) where finished_at is null;
comment on table ward_internal.rewrap_runs is 'rotations of KEKs: one that did not finish is continued within a day';

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
select pg_catalog.pg_extension_config_dump('ward_internal.kek_versions', '');
select pg_catalog.pg_extension_config_dump('ward_internal.rewrap_runs', '');
select pg_catalog.pg_extension_config_dump('ward_internal.shreddings', '');
