-- The audit log and its seals. What a tenant's rows are when they are written, who read what and every event is an
-- entry of audit_log; the order of the entries, their hashes and signed checkpoints are in the tables of the scribe,
-- insert-only; audit_topics says how far the publisher has come.
--
-- audit_log has a partition per tenant, tenant_SLUG.audit_log, and that one a partition per month, both made at run
-- time. Only the tenant's partition has indexes, because an extension's own could not be restored: its primary key,
-- (id, at), and (operation, at) of its events, which ward.events, the doctor and the login of an entry are looked for
-- in. The tenant
-- 00000000-0000-0000-0000-000000000000 is the platform; a dropped or shredded tenant's log lives on in schema
-- ward_archive.
--
-- No checks: PostgreSQL reads their expressions again for each statement, and each row written is one here: 10 to 25 µs
-- a row. So a superuser can put in a row of any length; the scribe's memory is bounded all the same. No foreign keys,
-- for the reason given in 02_registry.sql.

create schema ward_archive;
comment on schema ward_archive is 'wardkey: audit logs of tenants that are gone';

create sequence ward_internal.audit_id;

create table ward_internal.audit_log (
  tenant_id uuid not null,
  id bigint not null,
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
  'one entry per row written, per statement and row read, per event. Entries are never changed; sealed values in them '
  'are as they were stored';
comment on column ward_internal.audit_log.id is
  'unique in the whole database; not the order of the log, which audit_batches has';
comment on column ward_internal.audit_log.statement is
  'when the client''s statement began, microseconds since 2000-01-01 UTC';
comment on column ward_internal.audit_log.kind is 'w write, r read, e event';
comment on column ward_internal.audit_log.journalled is
  'came through the journal (see wardkey_core/journal.py) and was inserted by the scribe, not by the transaction '
  'itself';
comment on column ward_internal.audit_log.context is
  'which login: subject, role, purpose, database role, address and application are those of the entry with operation '
  'login and this context; they stand here only where there is no context';
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
  constraint audit_batches_hash_per_entry
    check (pg_catalog.octet_length(leaf_hashes) = 32 * pg_catalog.cardinality(ids))
);
comment on table ward_internal.audit_batches is
  'the order of a tenant''s entries and their leaf hashes, 32 bytes each: from first_position on, as the scribe sealed '
  'them';

create table ward_internal.audit_trees (
  tenant_id uuid constraint audit_trees_pkey primary key,
  size bigint not null,
  frontier bytea not null
);
comment on table ward_internal.audit_trees is
  'each tenant''s Merkle tree as far as it goes: frontier is the hashes of its full subtrees, 32 bytes each, largest '
  'first';

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
  'signed roots; checkpoint is the very text that was signed, key the public key, frontier the tree''s as in '
  'audit_trees';

create table ward_internal.audit_unsigned (
  tenant_id uuid constraint audit_unsigned_pkey primary key,
  checkpoint text not null,
  frontier bytea not null
);
comment on table ward_internal.audit_unsigned is
  'the next checkpoint of a tenant, stored before the keeper is asked to sign it, so that after a crash it is asked '
  'for the same';

create table ward_internal.scribe_state (
  one boolean constraint scribe_state_pkey primary key default true,
  system_identifier text not null,
  slot name not null,
  lsn pg_lsn not null,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  timeline integer,
  failures bigint not null default 0,
  trouble text,
  constraint scribe_state_one_row check (one)
);
comment on table ward_internal.scribe_state is
  'how far the scribe has come: what ends at or before lsn is in the log and sealed';
comment on column ward_internal.scribe_state.failures is
  'how often the scribe failed behind lsn, the last time with trouble';
comment on column ward_internal.scribe_state.timeline is
  'of the WAL it reads; another one is begun by a promotion, and what was journalled last on the former one may be '
  'lost';

create table ward_internal.audit_holds (
  tenant_id uuid not null,
  matter text not null,
  reason text not null,
  placed_by text not null,
  placed_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint audit_holds_pkey primary key (tenant_id, matter)
);
comment on table ward_internal.audit_holds is
  'legal holds: while a log has one, nothing of it is pruned and its keys stay';

create table ward_internal.audit_topics (
  tenant_id uuid constraint audit_topics_pkey primary key,
  topic text not null,
  cluster text not null,
  position bigint not null default 0,
  checkpoint_size bigint not null default 0,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  failures bigint not null default 0,
  trouble text,
  constraint audit_topics_topic_key unique (topic)
);
comment on table ward_internal.audit_topics is
  'the Kafka topic of each tenant''s log, a row once it is made there. A row stays when its tenant is gone, so that a '
  'slug used again gets another topic';
comment on column ward_internal.audit_topics.cluster is
  'the id Kafka''s cluster gives itself: in another one the topic is made again';
comment on column ward_internal.audit_topics.position is 'entries below this are published and acknowledged';
comment on column ward_internal.audit_topics.failures is
  'how often publishing failed at position, the last time with trouble';
comment on column ward_internal.audit_topics.checkpoint_size is
  'size of the last checkpoint that is published and acknowledged; 0: none';

select pg_catalog.pg_extension_config_dump('ward_internal.audit_id', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_batches', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_trees', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_checkpoints', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_unsigned', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_holds', '');
select pg_catalog.pg_extension_config_dump('ward_internal.scribe_state', '');
select pg_catalog.pg_extension_config_dump('ward_internal.audit_topics', '');
