-- Searches of sealed columns, and what finds tokens by an index. No foreign keys, for the reason given in
-- 02_registry.sql.

create table ward_internal.searches (
  id uuid constraint searches_pkey primary key default pg_catalog.gen_random_uuid(),
  model_id uuid not null,
  column_id uuid not null,
  kind text not null,
  normaliser text not null,
  step numeric,
  version integer not null default 1,
  stored name not null,
  former_classes text[] not null default '{}',
  accepted text,
  constraint searches_kind_key unique (column_id, kind),
  constraint searches_kind_known check (
    kind in ('exact', 'prefix', 'words', 'substring', 'phonetic', 'range', 'unique_odd', 'unique_even')),
  constraint searches_normaliser_known check (
    normaliser in ('none', 'text', 'digits', 'email', 'phone', 'number', 'day'))
);
comment on table ward_internal.searches is
  'how sealed columns are searched: wardkey_core/search.py says what a kind is';
comment on column ward_internal.searches.kind is
  'unique_odd and unique_even: for unique indexes, see functions/search/uniques.sql';
comment on column ward_internal.searches.accepted is 'why tokens may tell what ward.search_leakage says; null: not yet';
comment on column ward_internal.searches.version is 'of kind and normaliser: what they do does not change under it';
comment on column ward_internal.searches.stored is 'the column of the model table, and of its leaves, with the tokens';
comment on column ward_internal.searches.former_classes is
  'classes that the column had: until all tenants are resealed, tokens may be under their keys';

create table ward_internal.pending_searches (
  tenant_id uuid not null,
  search_id uuid not null,
  constraint pending_searches_pkey primary key (tenant_id, search_id)
);
comment on table ward_internal.pending_searches is
  'searches that came when the tenant had rows: not all of these have tokens yet';

select pg_catalog.pg_extension_config_dump('ward_internal.searches', '');
select pg_catalog.pg_extension_config_dump('ward_internal.pending_searches', '');
