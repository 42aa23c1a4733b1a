-- Budgets and honey rows. No foreign keys, for the reason given in 02_registry.sql.

create table ward_internal.budgets (
  tenant_id uuid not null,
  role text not null,
  model_id uuid not null,
  row_limit integer not null,
  is_distinct boolean not null,
  seconds integer not null,
  decided_by text not null default session_user,
  decided_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint budgets_pkey primary key (tenant_id, role, model_id),
  constraint budgets_limit_bounded check (
    row_limit between 1 and case when is_distinct then 100000 else 1000000000 end),
  constraint budgets_window_bounded check (seconds between 60 and 366 * 86400)
);
comment on table ward_internal.budgets is
  'for people: the keeper has budgets and counts of its own, and goes by those. wardkey access budget changes both';

create table ward_internal.honey_rows (
  tenant_id uuid not null,
  model_id uuid not null,
  row_id bytea not null,
  row_key text[] not null,
  ends_logins boolean not null,
  made_by text not null default session_user,
  made_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint honey_rows_pkey primary key (tenant_id, model_id, row_id)
);
comment on table ward_internal.honey_rows is
  'rows that nobody has a reason to open. No tenant reads this table, nor the log in which opening one is told';
comment on column ward_internal.honey_rows.row_id is
  'as the additional data of its values has it, so that its own key is all that a backend compares';

select pg_catalog.pg_extension_config_dump('ward_internal.budgets', '');
select pg_catalog.pg_extension_config_dump('ward_internal.honey_rows', '');
