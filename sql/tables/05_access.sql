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

-- Measures: what a payer may have counted in the systems that delegated to it (functions/access/measures.sql).

create table ward_internal.measures (
  name text constraint measures_pkey primary key,
  query text not null,
  group_floor integer not null,
  registered_by text not null default session_user,
  registered_at timestamptz not null default pg_catalog.clock_timestamp(),
  removed_at timestamptz,
  constraint measures_name_form check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
  constraint measures_group_floor_least check (group_floor >= 11)
);
comment on column ward_internal.measures.query is
  'as PostgreSQL reads it: what it names without a schema is of the ward';
comment on column ward_internal.measures.removed_at is 'rows stay: what a name has meant once it means for good';

create table ward_internal.payers (
  tenant_id uuid constraint payers_pkey primary key,
  registered_by text not null default session_user,
  registered_at timestamptz not null default pg_catalog.clock_timestamp()
);

create table ward_internal.delegations (
  payer_id uuid not null,
  system_id uuid not null,
  measure text not null,
  delegated_by text not null,
  delegated_at timestamptz not null default pg_catalog.clock_timestamp(),
  publications integer not null default 0,
  constraint delegations_pkey primary key (payer_id, system_id, measure)
);
comment on table ward_internal.delegations is 'those in force; a payer reads what these name, and nothing else';
comment on column ward_internal.delegations.publications is
  'how many periods were published under it; publishing updates it, so that a system does so once at a time';

create table ward_internal.publications (
  id uuid constraint publications_pkey primary key default pg_catalog.gen_random_uuid(),
  system_id uuid not null,
  measure text not null,
  period daterange not null,
  published_by text not null,
  published_at timestamptz not null default pg_catalog.clock_timestamp(),
  released_at timestamptz,
  constraint publications_once unique (measure, period, system_id)
);
comment on table ward_internal.publications is
  'what a system counted in a closed period; nobody reads it before it is released, with all others of the period';

create table ward_internal.measure_cells (
  publication_id uuid not null,
  group_values jsonb not null,
  numerator bigint,
  complement bigint,
  constraint measure_cells_pkey primary key (publication_id, group_values),
  constraint measure_cells_counts_or_none check ((numerator is null) = (complement is null))
);
comment on table ward_internal.measure_cells is
  'counts by group, in clear. Those of cells that are not shown are forgotten with the release: null from then on';

create table ward_internal.measure_totals (
  payer_id uuid not null,
  measure text not null,
  period daterange not null,
  group_values jsonb not null,
  system_ids uuid[] not null,
  numerator bigint not null,
  complement bigint not null,
  constraint measure_totals_pkey primary key (payer_id, measure, period, group_values)
);
comment on table ward_internal.measure_totals is
  'released sums over the systems of a payer, by group; group {}: of all groups. Kept for good, as are cells: whether '
  'they tell a cell that is not shown depends on all that was ever released';

select pg_catalog.pg_extension_config_dump('ward_internal.measures', '');
select pg_catalog.pg_extension_config_dump('ward_internal.payers', '');
select pg_catalog.pg_extension_config_dump('ward_internal.delegations', '');
select pg_catalog.pg_extension_config_dump('ward_internal.publications', '');
select pg_catalog.pg_extension_config_dump('ward_internal.measure_cells', '');
select pg_catalog.pg_extension_config_dump('ward_internal.measure_totals', '');

create table ward_internal.row_rules (
  model_id uuid not null,
  name text not null,
  roles text[] not null,
  expression text not null,
  made_by text not null default session_user,
  made_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint row_rules_pkey primary key (model_id, name)
);
comment on table ward_internal.row_rules is
  'row rules, whose policies are called ward_rule_NAME. Where expression differs from the policy of the shape, '
  'somebody altered that';

select pg_catalog.pg_extension_config_dump('ward_internal.row_rules', '');

-- Break-glass: what was asked, and what the keeper answered. Its own ledger decides, not these rows: they are for
-- people, and tell backends whose keys to ask for.

create table ward_internal.break_glass (
  id uuid constraint break_glass_pkey primary key,
  tenant_id uuid not null,
  issuer text not null,
  subject text not null,
  role text not null,
  classes text[] not null,
  minutes integer not null,
  reason text not null,
  emergency boolean not null,
  requested_at timestamptz not null default pg_catalog.clock_timestamp(),
  state text not null default 'requested',
  approver text,
  started_at timestamptz,
  until timestamptz,
  closed_by text,
  closed_at timestamptz,
  reviewer text,
  reviewed_at timestamptz,
  finding text,
  constraint break_glass_state_known check (state in ('requested', 'started', 'denied', 'ended')),
  constraint break_glass_review_whole check (
    (reviewed_at is null) = (finding is null) and (reviewed_at is null) = (reviewer is null))
);
create index break_glass_of_tenant on ward_internal.break_glass (tenant_id, until);
comment on table ward_internal.break_glass is
  'break-glass requests and grants (45 CFR 164.312(a)(2)(ii)); rows outlive their tenant, as its log does';
comment on column ward_internal.break_glass.emergency is 'granted without an approver, by the tenant''s policy';

select pg_catalog.pg_extension_config_dump('ward_internal.break_glass', '');
