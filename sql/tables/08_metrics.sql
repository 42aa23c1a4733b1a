-- What is counted for Prometheus, and who may read it. Numbers only: no subject, table or row has a name here. No
-- foreign keys, for the reason given in 02_registry.sql.

create table ward_internal.counts (
  tenant_id uuid not null,
  name text not null,
  label text not null default '',
  value bigint not null,
  constraint counts_pkey primary key (tenant_id, name, label)
) with (fillfactor = 50);
comment on table ward_internal.counts is
  'counters of each tenant and the platform, which only rise. The scribe adds what it seals in the transaction that '
  'seals it, so that each entry counts once; wardkey/scribe/counts.py has the names';

create table ward_internal.metrics_tokens (
  tenant_id uuid constraint metrics_tokens_pkey primary key,
  sha256 bytea not null,
  made_by text not null default session_user,
  made_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint metrics_tokens_digest_length check (pg_catalog.octet_length(sha256) = 32)
);
comment on table ward_internal.metrics_tokens is
  'the digest of the token that reads a tenant''s metrics, or the platform''s (00000000-0000-0000-0000-000000000000)';

create table ward_internal.backups (
  id uuid constraint backups_pkey primary key default pg_catalog.gen_random_uuid(),
  made_at timestamptz not null,
  database_bytes bigint not null,
  state_bytes bigint not null,
  recorded_by text not null default session_user,
  drilled_at timestamptz,
  drill_is_good boolean,
  constraint backups_drill_whole check ((drilled_at is null) = (drill_is_good is null))
);
comment on table ward_internal.backups is
  'backups of database and keys that wardkey has made, and how the last restore drill of each ended: alerts are '
  'raised where the newest backup is old, or the last that was proven to open';

select pg_catalog.pg_extension_config_dump('ward_internal.counts', '');
select pg_catalog.pg_extension_config_dump('ward_internal.backups', '');
select pg_catalog.pg_extension_config_dump('ward_internal.metrics_tokens', '');
