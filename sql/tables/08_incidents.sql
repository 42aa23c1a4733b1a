-- Incidents: what was lost, what the evidence says of it, how the officer judges, what was done. The log is evidence
-- that a scope is counted from; what state an incident is in stands here alone. Rows outlive tenants: 45 CFR 164.530(j)
-- wants them for six years. No secret is here: a token is known by its SHA-256. No foreign keys, for the reason given
-- in 02_registry.sql.

create table ward_internal.incidents (
  id uuid constraint incidents_pkey primary key default pg_catalog.gen_random_uuid(),
  title text not null,
  discovered_at timestamptz not null,
  patients_model uuid not null,
  opened_by text not null default session_user,
  opened_at timestamptz not null default pg_catalog.clock_timestamp(),
  conclusion text,
  reason text,
  closed_by text,
  closed_at timestamptz,
  constraint incidents_discovered_before_opened check (discovered_at <= opened_at),
  constraint incidents_conclusion_known check (conclusion in ('breach', 'low-probability', 'secured')),
  constraint incidents_closed_whole check ((closed_at is null) = (conclusion is null)
    and (closed_at is null) = (reason is null) and (closed_at is null) = (closed_by is null))
);
comment on column ward_internal.incidents.patients_model is
  'the model table of which a row is a patient; rows of tables that reference it are of that patient';

create table ward_internal.incident_losses (
  incident_id uuid not null,
  number integer not null,
  kind text not null,
  what text,
  tenant_id uuid,
  version integer,
  since timestamptz not null,
  until timestamptz,
  constraint incident_losses_pkey primary key (incident_id, number),
  constraint incident_losses_kind_known check (kind in ('dump', 'token', 'password', 'key', 'subject', 'host')),
  constraint incident_losses_named check ((what is null) = (kind in ('dump', 'key'))),
  constraint incident_losses_key_whole check ((kind = 'key') = (version is not null)
    and (kind <> 'key' or tenant_id is not null)),
  constraint incident_losses_token_is_digest check (kind <> 'token' or what ~ '^[0-9a-f]{64}$'),
  constraint incident_losses_window check (until > since)
);
comment on column ward_internal.incident_losses.what is
  'the token''s SHA-256 in hexadecimal; the login role; the subject; the address of the host, or server';
comment on column ward_internal.incident_losses.tenant_id is 'null: whichever tenant it concerns';
comment on column ward_internal.incident_losses.since is
  'of a dump: when it was made; else from when on somebody else may have used it';

create table ward_internal.incident_scopes (
  incident_id uuid not null,
  at timestamptz not null default pg_catalog.clock_timestamp(),
  tenants integer not null,
  patients bigint not null,
  is_secured boolean not null,
  evidence jsonb not null,
  constraint incident_scopes_pkey primary key (incident_id, at)
);
comment on table ward_internal.incident_scopes is
  'each count of the evidence; the last one is what is assessed and reported. Counts and names, no value of a table';
comment on column ward_internal.incident_scopes.is_secured is
  'whether all that went is ciphertext whose keys nobody else had, as far as the evidence reaches';

create table ward_internal.incident_judgements (
  incident_id uuid not null,
  factor integer not null,
  is_low boolean not null,
  reason text not null,
  judged_by text not null default session_user,
  judged_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint incident_judgements_pkey primary key (incident_id, factor),
  constraint incident_judgements_factor_known check (factor between 1 and 4)
);
comment on table ward_internal.incident_judgements is
  'the officer''s word on each factor of 45 CFR 164.402(2)(i) to (iv): whether it makes a compromise improbable';

create table ward_internal.incident_acts (
  incident_id uuid not null,
  act text not null,
  tenant_id uuid not null,
  what text not null default '',
  done_by text not null default session_user,
  done_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint incident_acts_pkey primary key (incident_id, act, tenant_id, what),
  constraint incident_acts_known check (act in ('rotate', 'revoke', 'password', 'suspend'))
);
comment on table ward_internal.incident_acts is 'what was done about it, once each';

select pg_catalog.pg_extension_config_dump('ward_internal.incidents', '');
select pg_catalog.pg_extension_config_dump('ward_internal.incident_losses', '');
select pg_catalog.pg_extension_config_dump('ward_internal.incident_scopes', '');
select pg_catalog.pg_extension_config_dump('ward_internal.incident_judgements', '');
select pg_catalog.pg_extension_config_dump('ward_internal.incident_acts', '');
