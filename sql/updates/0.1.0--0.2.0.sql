-- Keys get a life: states with their times, rotations, requests, events, shreddings.

alter table ward_internal.settings drop constraint settings_known;
alter table ward_internal.settings add constraint settings_known check (name in (
  'keeper_socket', 'keeper_timeout', 'key_ttl', 'cryptoperiod', 'kek_cryptoperiod', 'most_fields', 'grace'));

alter table ward_internal.tenants
  drop constraint tenants_status_known,
  add column key_mode text not null default 'envelope',
  add constraint tenants_status_known check (status in ('active', 'suspended', 'shredding', 'shredded')),
  add constraint tenants_key_mode_known check (key_mode in ('envelope', 'derived'));

alter table ward_internal.tenant_keys
  alter column wrapped drop not null,
  add column wrapped_at timestamptz not null default pg_catalog.clock_timestamp(),
  add column replaced_at timestamptz,
  add column retired_at timestamptz,
  add column destroyed_at timestamptz,
  add column fence text[],
  add constraint tenant_keys_wrapped_until_destroyed check ((state = 'destroyed') = (wrapped is null));
update ward_internal.tenant_keys set wrapped_at = created_at;
comment on column ward_internal.tenant_keys.kek is
  '''master'' in mode derived: kek_version is then a version of the master secret, wrapped the salt of this key';
comment on column ward_internal.tenant_keys.fence is
  'virtual transactions that ran when the key had just left its former state: its next step waits until they are gone';

-- replaced by functions of other parameters
drop function ward.create_tenant(text, text);
drop function ward_internal.provision_key(uuid);

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

create sequence ward_internal.event_id;
create table ward_internal.events (
  id bigint constraint events_pkey primary key default pg_catalog.nextval('ward_internal.event_id'),
  at timestamptz not null default pg_catalog.clock_timestamp(),
  tenant_id uuid not null,
  slug text,
  kind text not null,
  actor text not null,
  detail jsonb not null default '{}',
  constraint events_kind_form check (kind ~ '^[a-z]+( [a-z]+)*$')
);
create index events_of_tenant on ward_internal.events (tenant_id, id);

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
select pg_catalog.pg_extension_config_dump('ward_internal.event_id', '');
select pg_catalog.pg_extension_config_dump('ward_internal.events', '');
select pg_catalog.pg_extension_config_dump('ward_internal.shreddings', '');
