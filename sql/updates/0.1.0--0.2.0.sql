-- Keys get a life: states with their times, rotations, requests, events, shreddings. What happens gets a log.

alter table ward_internal.settings drop constraint settings_known;
alter table ward_internal.settings add constraint settings_known check (name in (
  'keeper_socket', 'keeper_timeout', 'key_ttl', 'cryptoperiod', 'kek_cryptoperiod', 'most_fields', 'grace',
  'audit_slot', 'audit_retention'));

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

alter table ward_internal.models
  add column audit text not null default 'row',
  add column audit_reason text,
  add constraint models_audit_known check (audit in ('row', 'statement', 'off')),
  add constraint models_audit_off_has_reason check (audit <> 'off' or audit_reason is not null);
comment on column ward_internal.models.audit is 'whether each row read is journalled, each statement that reads, or nothing; writes always are';

-- replaced by functions of other parameters
drop function ward.create_tenant(text, text);
drop function ward.protect(regclass, text[]);
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

-- The audit log.

create schema ward_archive;
comment on schema ward_archive is 'wardkey: audit logs of tenants that are gone';

create sequence ward_internal.audit_id;

create table ward_internal.audit_log (
  tenant_id uuid not null,
  id bigint not null default pg_catalog.nextval('ward_internal.audit_id'),
  at timestamptz not null default pg_catalog.clock_timestamp(),
  transaction xid8,
  statement bigint,
  model_id uuid,
  kind "char" not null,
  journalled boolean not null default false,
  context bytea,
  operation text not null,
  row_id text,
  columns text,
  old jsonb,
  new jsonb,
  detail jsonb,
  subject text,
  role text,
  purpose text,
  database_role text,
  address text,
  application text
) partition by list (tenant_id);
comment on table ward_internal.audit_log is
  'one entry per row written, per statement and row read, per event. Entries are never changed; sealed values in them are as '
  'they were stored';
comment on column ward_internal.audit_log.id is 'unique in the whole database; not the order of the log, which audit_batches has';
comment on column ward_internal.audit_log.statement is 'when the client''s statement began, microseconds since 2000-01-01 UTC';
comment on column ward_internal.audit_log.kind is 'w write, r read, e event';
comment on column ward_internal.audit_log.journalled is
  'came through the journal (see wardkey_pg/journal.py) and was inserted by the scribe, not by the transaction itself';
comment on column ward_internal.audit_log.context is
  'which login: subject, role, purpose, database role, address and application are those of the entry with operation login '
  'and this context; they stand here only where there is no context';
comment on column ward_internal.audit_log.row_id is
  'the primary key as text: 17, a uuid; a JSON array if it has several columns. Of an update: before it';
comment on column ward_internal.audit_log.columns is 'columns read or changed, quoted as in SQL, comma-separated';

create table ward_internal.audit_batches (
  tenant_id uuid not null,
  first_position bigint not null,
  ids bigint[] not null,
  leaf_hashes bytea not null,
  lsn pg_lsn not null,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint audit_batches_pkey primary key (tenant_id, first_position),
  constraint audit_batches_hash_per_entry check (pg_catalog.octet_length(leaf_hashes) = 32 * pg_catalog.cardinality(ids))
);
comment on table ward_internal.audit_batches is
  'the order of a tenant''s entries and their leaf hashes, 32 bytes each: from first_position on, as the scribe sealed them';

create table ward_internal.audit_trees (
  tenant_id uuid constraint audit_trees_pkey primary key,
  size bigint not null,
  frontier bytea not null
);
comment on table ward_internal.audit_trees is
  'each tenant''s Merkle tree as far as it goes: frontier is the hashes of its full subtrees, 32 bytes each, largest first';

create table ward_internal.audit_checkpoints (
  tenant_id uuid not null,
  size bigint not null,
  checkpoint text not null,
  signature bytea not null,
  key bytea not null,
  frontier bytea not null,
  constraint audit_checkpoints_pkey primary key (tenant_id, size)
);
comment on table ward_internal.audit_checkpoints is
  'signed roots; checkpoint is the very text that was signed, key the public key, frontier the tree''s as in audit_trees';

create table ward_internal.audit_unsigned (
  tenant_id uuid constraint audit_unsigned_pkey primary key,
  checkpoint text not null,
  frontier bytea not null
);
comment on table ward_internal.audit_unsigned is
  'the next checkpoint of a tenant, stored before the keeper is asked to sign it, so that after a crash it is asked for the same';

create table ward_internal.scribe_state (
  one boolean constraint scribe_state_pkey primary key default true,
  system_identifier text not null,
  slot name not null,
  lsn pg_lsn not null,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  detail jsonb not null default '{}',
  constraint scribe_state_one_row check (one)
);
comment on table ward_internal.scribe_state is 'how far the scribe has come: what ends at or before lsn is in the log and sealed';

create table ward_internal.audit_holds (
  tenant_id uuid not null,
  matter text not null,
  reason text not null,
  placed_by text not null,
  placed_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint audit_holds_pkey primary key (tenant_id, matter)
);
comment on table ward_internal.audit_holds is 'legal holds: while a log has one, nothing of it is pruned and its keys stay';

create table ward_internal.audit_topics (
  tenant_id uuid constraint audit_topics_pkey primary key,
  topic text not null,
  cluster text not null,
  position bigint not null default 0,
  checkpoint_size bigint not null default 0,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint audit_topics_topic_key unique (topic)
);
comment on table ward_internal.audit_topics is
  'the Kafka topic of each tenant''s log, a row once it is made there. A row stays when its tenant is gone, so that a slug used '
  'again gets another topic';
comment on column ward_internal.audit_topics.cluster is 'the id Kafka''s cluster gives itself: in another one the topic is made anew';
comment on column ward_internal.audit_topics.position is 'entries below this are published and acknowledged';
comment on column ward_internal.audit_topics.checkpoint_size is 'size of the last checkpoint that is published and acknowledged; 0: none';

select pg_catalog.pg_extension_config_dump('ward_internal.audit_id', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_batches', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_trees', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_checkpoints', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_unsigned', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_holds', '');
select pg_catalog.pg_extension_config_dump('ward_internal.scribe_state', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_topics', '');
