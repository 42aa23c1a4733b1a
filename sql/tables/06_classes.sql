-- Classes of sealed columns, and what each role sees of them. Only what differs from what wardkey brings is kept: the
-- five classes and the matrix are in functions/access/classes.sql, so that a dump restores into a new extension. No
-- foreign keys, for the reason given in 02_registry.sql.

create table ward_internal.classes (
  name text constraint classes_pkey primary key,
  number smallint not null constraint classes_number_key unique,
  description text not null,
  mask text not null,
  constraint classes_name_form check (name ~ '^[a-z][a-z0-9_]{0,47}$'),
  constraint classes_number_fits check (number between 1 and 255)
);
comment on table ward_internal.classes is
  'classes that a DBA added, and built-in ones whose mask or description was changed';
comment on column ward_internal.classes.number is
  'stands in each sealed value of the class; its key is derived from the name. Never given twice: no class is removed';

create table ward_internal.policy (
  role text not null,
  class text not null,
  access text not null,
  writes boolean not null,
  decided_by text not null default session_user,
  decided_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint policy_pkey primary key (role, class),
  constraint policy_access_known check (access in ('none', 'mask', 'clear')),
  constraint policy_writer_sees check (access <> 'none' or not writes)
);
comment on table ward_internal.policy is
  'where the platform''s policy differs from the default; the keeper has it too, and no key is released beyond its own';

create table ward_internal.tenant_policy (
  tenant_id uuid not null,
  role text not null,
  class text not null,
  access text not null,
  writes boolean not null,
  decided_by text not null,
  decided_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint tenant_policy_pkey primary key (tenant_id, role, class),
  constraint tenant_policy_access_known check (access in ('none', 'mask', 'clear')),
  constraint tenant_policy_writer_sees check (access <> 'none' or not writes)
);
comment on table ward_internal.tenant_policy is
  'how tenants narrowed the policy for themselves; the stricter of the two holds';

select pg_catalog.pg_extension_config_dump('ward_internal.classes', '');
select pg_catalog.pg_extension_config_dump('ward_internal.policy', '');
select pg_catalog.pg_extension_config_dump('ward_internal.tenant_policy', '');
