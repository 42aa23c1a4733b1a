-- What wardkey remembers. A tenant, a model table and a sealed column are known by a uuid that goes into ciphertexts,
-- so that renaming, dump, restore and pg_upgrade change nothing; regclass columns are dumped as names.
--
-- There are no foreign keys between these tables: pg_restore --jobs makes them with the extension, then loads them in
-- any order. Deleting a tenant or a model also deletes its keys or its sealed columns.
--
-- Lock order: tenants, models, then the tables themselves.

create table ward_internal.settings (
  name text constraint settings_pkey primary key,
  value text not null,
  constraint settings_known check (name in (
    'keeper_socket', 'keeper_timeout', 'key_ttl', 'cryptoperiod', 'kek_cryptoperiod', 'most_fields', 'grace',
    'audit_slot', 'audit_retention', 'no_context', 'catalog', 'require_baa', 'region'))
);
comment on table ward_internal.settings is
  'settings of the server; not GUCs, because a session could SET those and send its token to a keeper of its own';

create table ward_internal.tenants (
  id uuid constraint tenants_pkey primary key default pg_catalog.gen_random_uuid(),
  slug text not null constraint tenants_slug_key unique,
  name text not null,
  schema_name name not null constraint tenants_schema_name_key unique,
  login_role name not null constraint tenants_login_role_key unique,
  status text not null default 'active',
  key_epoch integer not null default 1,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  key_mode text not null default 'envelope',
  bounds jsonb not null default '{}',
  region text not null default 'default',
  constraint tenants_region_form check (region ~ '^[a-z0-9]+(-[a-z0-9]+)*$' and pg_catalog.length(region) <= 63),
  constraint tenants_slug_form check (slug ~ '^[a-z][a-z0-9_]{0,47}$'),
  constraint tenants_status_known check (status in ('active', 'suspended', 'shredding', 'shredded')),
  constraint tenants_key_mode_known check (key_mode in ('envelope', 'derived'))
);
comment on column ward_internal.tenants.bounds is
  'connections and settings that operators gave its login role: ward.bound_tenant';
comment on column ward_internal.tenants.key_epoch is
  'raised by whatever makes keys or rights that backends hold stale; each login compares it';

comment on column ward_internal.tenants.region is
  'where its keys are kept: in the additional data of each wrap, so that no other region''s keeper opens one';

create table ward_internal.tenant_keys (
  tenant_id uuid not null,
  version integer not null,
  state text not null,
  kek text not null,
  kek_version text not null,
  wrapped bytea,
  commitment bytea not null,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  reason text not null,
  wrapped_at timestamptz not null default pg_catalog.clock_timestamp(),
  replaced_at timestamptz,
  retired_at timestamptz,
  destroyed_at timestamptz,
  fence text[],
  region text not null default 'default',
  constraint tenant_keys_pkey primary key (tenant_id, version),
  constraint tenant_keys_version_fits check (version between 1 and 16777215),  -- three bytes of a sealed value
  constraint tenant_keys_state_known check (state in ('active', 'decrypt-only', 'retired', 'destroyed')),
  constraint tenant_keys_commitment_length check (pg_catalog.octet_length(commitment) = 32),
  constraint tenant_keys_wrapped_until_destroyed check ((state = 'destroyed') = (wrapped is null))
);
create unique index tenant_keys_one_active on ward_internal.tenant_keys (tenant_id) where state = 'active';
comment on column ward_internal.tenant_keys.kek is
  '''master'' in mode derived: kek_version is then a version of the master secret, wrapped the salt of this key';
comment on column ward_internal.tenant_keys.region is
  'the one that it was wrapped for. The keeper is asked with that of the tenant; the doctor compares the two';
comment on column ward_internal.tenant_keys.fence is
  'virtual transactions that ran when the key had just left its former state: its next step waits until they are gone';

create sequence ward_internal.issuer_generation;
create table ward_internal.issuers (
  issuer text constraint issuers_pkey primary key,
  document jsonb not null,
  generation bigint not null default pg_catalog.nextval('ward_internal.issuer_generation'),
  constraint issuers_name_agrees check (document ->> 'issuer' = issuer)
);

create table ward_internal.models (
  id uuid constraint models_pkey primary key default pg_catalog.gen_random_uuid(),
  relation regclass not null constraint models_relation_key unique,
  shape regclass not null constraint models_shape_key unique,
  face name not null constraint models_face_key unique,
  row_form text not null,
  audit text not null default 'row',
  audit_reason text,
  constraint models_audit_known check (audit in ('row', 'statement', 'off')),
  constraint models_audit_off_has_reason check (audit <> 'off' or audit_reason is not null)
);
comment on column ward_internal.models.audit is
  'whether each row read is journalled, each statement that reads, or nothing; writes always are';
comment on column ward_internal.models.relation is 'the partitioned table; has a leaf per tenant';
comment on column ward_internal.models.shape is 'the table as it was declared, empty, in schema ward_model';
comment on column ward_internal.models.row_form is
  'ward_internal.row_form of the shape, kept because each backend that logs in reads it';
comment on column ward_internal.models.face is 'what the view in each ward is called; stays when the table is renamed';

create table ward_internal.sealed_columns (
  id uuid constraint sealed_columns_pkey primary key default pg_catalog.gen_random_uuid(),
  model_id uuid not null,
  name name not null,
  labels text[] not null default '{}',
  class text not null default 'clinical',
  mask text,
  constraint sealed_columns_name_key unique (model_id, name)
);
comment on column ward_internal.sealed_columns.mask is 'null: that of its class, where that fits the type';
comment on column ward_internal.sealed_columns.labels is
  'the labels of its enum: sealed values hold them as text, which ALTER TYPE … RENAME VALUE does not reach';

create table ward_internal.dependents (
  transaction xid8 not null,
  catalog oid not null,
  object oid not null,
  place integer not null,
  name text not null,
  statements text[],
  constraint dependents_pkey primary key (transaction, catalog, object)
);
comment on table ward_internal.dependents is
  'what stands on faces, during a command that may take faces away; statements that make it again, NULL where none can';

create table ward_internal.shares (
  relation regclass constraint shares_pkey primary key
);

select pg_catalog.pg_extension_config_dump('ward_internal.settings', '');
select pg_catalog.pg_extension_config_dump('ward_internal.tenants', '');
select pg_catalog.pg_extension_config_dump('ward_internal.tenant_keys', '');
select pg_catalog.pg_extension_config_dump('ward_internal.issuers', '');
select pg_catalog.pg_extension_config_dump('ward_internal.issuer_generation', '');
select pg_catalog.pg_extension_config_dump('ward_internal.models', '');
select pg_catalog.pg_extension_config_dump('ward_internal.sealed_columns', '');
select pg_catalog.pg_extension_config_dump('ward_internal.shares', '');
