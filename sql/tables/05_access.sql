-- Who may see what, by contract and by policy. No foreign keys, for the reason given in 02_registry.sql.

create table ward_internal.baas (
  id uuid constraint baas_pkey primary key default pg_catalog.gen_random_uuid(),
  tenant_id uuid not null,
  slug text not null,
  covered_entity text not null,
  business_associate text not null,
  begins date not null,
  ends date,
  document text not null,
  document_sha256 bytea not null,
  subcontractors text[] not null default '{}',
  notice_days integer not null,
  recorded_by text not null default session_user,
  recorded_at timestamptz not null default pg_catalog.clock_timestamp(),
  ended_on date,
  ended_reason text,
  constraint baas_document_once unique (tenant_id, document_sha256),
  constraint baas_ends_after_it_begins check (ends >= begins),
  constraint baas_digest_length check (pg_catalog.octet_length(document_sha256) = 32),
  constraint baas_notice_bounded check (notice_days between 0 and 3650),
  constraint baas_end_has_reason check ((ended_on is null) = (ended_reason is null))
);
comment on table ward_internal.baas is
  'business associate agreements (45 CFR 164.504(e)): what was agreed stands in the document, of which this is a '
  'record. Rows outlive their tenant: 45 CFR 164.316(b)(2)(i) wants them for six years';
comment on column ward_internal.baas.ends is 'the last day; null: until it is ended';
comment on column ward_internal.baas.notice_days is 'how many days before its end a party has to say so';

select pg_catalog.pg_extension_config_dump('ward_internal.baas', '');
