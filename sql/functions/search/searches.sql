-- Declaring how sealed columns are searched. What that tells a thief of the disk is in docs/search.md.
--
-- A new search holds for what is written from then on: its column and the trigger come under a lock that no writer
-- shares. Rows that are there get their tokens from resealing, as they get a new key: in the background, resumed where
-- it stopped. Until all have them the search is refused in that ward.
--
-- Lock order: tenants, models, then the tables themselves.

create or replace function ward_internal.search_normaliser(p_kind text, p_type oid, p_normaliser text) returns text
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select case
    when p_type = any ('{text, varchar, bpchar}'::regtype[]::oid[]) then case
      when p_kind = 'range' then null
      when p_kind in ('words', 'phonetic') and coalesce(p_normaliser, 'text') <> 'text' then null
      when coalesce(p_normaliser, 'text') in ('none', 'text', 'digits', 'email', 'phone')
        then coalesce(p_normaliser, 'text') end
    when p_normaliser is not null then null
    when p_kind = 'range' and p_type = any ('{date, timestamp, timestamptz}'::regtype[]::oid[]) then 'day'
    when p_kind = 'range' and ward_internal.range_type(p_type) is not null then 'number'
    when p_kind not in ('exact', 'unique_odd', 'unique_even') then null
    when p_type = 'numeric'::regtype then 'number'
    when p_type = any ('{smallint, integer, bigint, date, timestamp, timestamptz, uuid}'::regtype[]::oid[])
      or exists (select from pg_type where oid = p_type and typtype = 'e') then 'none'
  end
$$;
comment on function ward_internal.search_normaliser(text, oid, text) is
  'what is left of a value of the type for a kind of search: what was asked for, or the default; null: it does not fit';

create or replace function ward_internal.create_search(
  p_table regclass, p_column ward_internal.sealed_columns, p_kind text, p_normaliser text, p_step numeric,
  p_accept_leakage text
) returns ward_internal.searches
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_id uuid := gen_random_uuid();
  v_type oid := (select a.atttypid from pg_attribute as a join ward_internal.models as m on m.shape = a.attrelid
    where m.id = p_column.model_id and a.attname = p_column.name);
  v_normaliser text := ward_internal.search_normaliser(p_kind, v_type, p_normaliser);
  v_search ward_internal.searches;
begin
  if v_normaliser is null then
    perform ward_internal.fail('invalid_search', format('column %I of type %s cannot be %s%s', p_column.name,
        v_type::regtype, case when p_kind like 'unique%' then 'unique' else 'searched by ' || p_kind end,
        coalesce(' with normaliser ' || quote_literal(p_normaliser), '')),
      'exact and unique: text, integers, numeric, dates, timestamps, uuid, enums · range: dates, timestamps, integers, '
      'numeric · the others: text. Normalisers, of text: none, text, digits, email, phone; words and phonetic: text');
  elsif p_step is not null and (v_normaliser <> 'number' or p_kind <> 'range' or p_step <= 0 or p_step = 'NaN'
    or p_step = 'Infinity' or length(trim_scale(p_step)::text) > 60)
  then
    perform ward_internal.fail('invalid_search', 'a step is a positive number, for the range of numbers',
      'leave it out, or: p_step => 0.1');
  elsif p_accept_leakage is null and (select count(*) between 1 and 31 from pg_enum where enumtypid = v_type) then
    perform ward_internal.fail('invalid_search', format('tokens of column %I would tell its values: there are fewer '
      'than 32', p_column.name),
      'how often each occurs tells which it is; if that may be so, give the reason as p_accept_leakage');
  elsif exists (select from ward_internal.searches where column_id = p_column.id and kind = p_kind) then
    perform ward_internal.fail('invalid_search', format('column %I has this search already: %s', p_column.name, p_kind),
      'to change it, drop it first: select ward.drop_search(…)');
  end if;
  insert into ward_internal.searches (id, model_id, column_id, kind, normaliser, step, accepted, stored)
    values (v_id, p_column.model_id, p_column.id, p_kind, v_normaliser, p_step, p_accept_leakage,
      'ward_search_' || substr(encode(uuid_send(v_id), 'hex'), 1, 12))
    returning * into v_search;
  execute format('alter table %s add column %I %s', p_table, v_search.stored,
    case when p_kind in ('exact', 'unique_odd', 'unique_even') then 'bigint' else 'bigint[]' end);
  execute case p_kind
    when 'unique_odd' then 'select'  -- ward.add_unique makes it
    when 'unique_even' then 'select'
    when 'exact' then format('create index %1$I on %2$s (%1$I) where %1$I is not null', v_search.stored, p_table)
    -- without fastupdate: a search would read what is pending from end to end
    else format('create index %1$I on %2$s using gin (%1$I ward_internal.token_ops) with (fastupdate = off) '
      'where %1$I is not null', v_search.stored, p_table) end;
  return v_search;
end
$$;
comment on function ward_internal.create_search(regclass, ward_internal.sealed_columns, text, text, numeric, text) is
  'registers a search and makes its column and index';

create or replace function ward.add_search(
  p_table regclass, p_column name, p_kinds text[], p_normaliser text default null, p_step numeric default null,
  p_accept_leakage text default null
) returns integer
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns;
  v_kind text;
  v_search ward_internal.searches;
  v_tenant ward_internal.tenants;
  v_leaf text;
  v_has_values boolean;
  v_double text;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  v_column := ward_internal.sealed_column(p_table, p_column);
  if coalesce(cardinality(p_kinds), 0) = 0 then
    perform ward_internal.fail('invalid_search', 'no kind of search was named',
      'select ward.add_search(…, ''{exact, prefix}'')');
  elsif not coalesce(p_kinds <@ '{exact, prefix, words, substring, phonetic, range}' and array_position(p_kinds, null)
    is null, false)
  then
    perform ward_internal.fail('invalid_search', 'there is no such kind of search',
      'exact, prefix, words, substring, phonetic, range');
  end if;
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  foreach v_kind in array p_kinds loop
    v_search := ward_internal.create_search(p_table, v_column, v_kind, p_normaliser, p_step, p_accept_leakage);
    for v_tenant in select * from ward_internal.tenants where status not in ('shredding', 'shredded') loop
      v_leaf := ward_internal.leaf_name(v_column.model_id, v_tenant.schema_name);
      continue when to_regclass(v_leaf) is null;
      perform ward_internal.name_leaf_indexes(v_leaf::regclass);
      execute format('select exists (select from %s where %I is not null)', v_leaf, p_column) into v_has_values;
      if v_has_values then
        insert into ward_internal.pending_searches (tenant_id, search_id) values (v_tenant.id, v_search.id);
      end if;
    end loop;
    perform ward_internal.log_event(ward_internal.master_id(), 'search added', jsonb_build_object('table',
      p_table::text, 'column', p_column, 'kind', v_kind, 'normaliser', v_search.normaliser, 'step', p_step, 'accepted',
      p_accept_leakage));
  end loop;
  v_double := (
    select argument from (
      select argument from ward_internal.model_searches(v_column.model_id) where argument is not null
      union all
      select column_name from ward_internal.model_columns(v_column.model_id) where key_place is not null) as a
    group by argument having count(*) > 1 or length(argument) > 63 limit 1);
  if v_double is not null then
    perform ward_internal.fail('invalid_search', format('two searches, or a search and a key, would be called %I',
      v_double), 'rename one of the columns');
  end if;
  perform ward_internal.rebuild_faces(v_column.model_id);
  insert into ward_internal.rotations (tenant_id, version, reason)
    select k.tenant_id, k.version, format('column %I is searched', p_column)
    from ward_internal.tenant_keys as k
    where k.state = 'active'
      and exists (select from ward_internal.pending_searches where tenant_id = k.tenant_id)
      and not exists (select from ward_internal.rotations as r where r.tenant_id = k.tenant_id
        and finished_at is null);
  return (select count(distinct p.tenant_id) from ward_internal.pending_searches as p
    join ward_internal.searches as s on s.id = p.search_id where s.column_id = v_column.id);
end
$$;
comment on function ward.add_search(regclass, name, text[], text, numeric, text) is
  'lets a sealed column be searched: an argument of find_FACE(…) for each kind. exact: name; prefix: name_starts; '
  'words: name_words; substring: name_contains; phonetic: name_sounds; range: name_between. p_normaliser, of text: '
  'text (case, accents and punctuation do not count; the default), none, digits, email, phone. p_step: of a range of '
  'numbers. p_accept_leakage: why tokens may tell the values of a type that has few. '
  'Returns in how many wards rows have to get their tokens first: wardkey keys reseal, tenant by tenant. What tokens '
  'tell is in docs/search.md. Errors: WK204 no sealed column, WK271 it cannot be searched so';

create or replace function ward.drop_search(p_table regclass, p_column name, p_kinds text[] default null) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns;
  v_search ward_internal.searches;
  v_found boolean := false;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  v_column := ward_internal.sealed_column(p_table, p_column);
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  for v_search in
    select * from ward_internal.searches where column_id = v_column.id and kind not like 'unique%'
      and (p_kinds is null or kind = any (p_kinds))
  loop
    v_found := true;
    perform ward_internal.forget_search(v_search);
    perform ward_internal.log_event(ward_internal.master_id(), 'search dropped', jsonb_build_object('table',
      p_table::text, 'column', p_column, 'kind', v_search.kind));
  end loop;
  if not v_found then
    perform ward_internal.fail('unknown_object', format('column %I has no such search', p_column),
      'list them: select * from ward.searches');
  end if;
  perform ward_internal.rebuild_faces(v_column.model_id);
end
$$;
comment on function ward.drop_search(regclass, name, text[]) is
  'drops searches of a sealed column, all by default, with their tokens. Errors: WK204 no sealed column, or no such '
  'search';

create or replace function ward.accept_leakage(p_table regclass, p_column name, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns := ward_internal.sealed_column(p_table, p_column);
begin
  perform ward_internal.require_superuser();
  if coalesce(btrim(p_reason), '') = '' then
    perform ward_internal.fail('invalid_search', 'a reason is needed', 'say why these tokens may tell what they do');
  end if;
  update ward_internal.searches set accepted = p_reason where column_id = v_column.id;
  if not found then
    perform ward_internal.fail('unknown_object', format('column %I has no search', p_column),
      'list them: select * from ward.searches');
  end if;
  perform ward_internal.log_event(ward_internal.master_id(), 'search leakage accepted', jsonb_build_object('table',
    p_table::text, 'column', p_column, 'reason', p_reason));
end
$$;
comment on function ward.accept_leakage(regclass, name, text) is
  'says why the searches of a column may tell what ward.search_leakage shows; an event. Errors: WK204 no sealed column '
  'or no search, WK271 no reason';

create or replace function ward_internal.forget_search(p_search ward_internal.searches) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_table regclass := (select relation from ward_internal.models where id = p_search.model_id);
begin
  delete from ward_internal.searches where id = p_search.id;
  delete from ward_internal.pending_searches where search_id = p_search.id;
  execute format('alter table %s drop column if exists %I', v_table, p_search.stored);
end
$$;

create or replace function ward_internal.forget_model_searches(p_model uuid) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  delete from ward_internal.pending_searches using ward_internal.searches
    where search_id = id and model_id = p_model;
  delete from ward_internal.searches where model_id = p_model
$$;
comment on function ward_internal.forget_model_searches(uuid) is 'forgets the searches of a model that goes';

create or replace function ward_internal.forget_searches(p_model uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_search ward_internal.searches;
begin
  for v_search in
    select * from ward_internal.searches as s where model_id = p_model and not exists (
      select from ward_internal.sealed_columns where id = s.column_id)
  loop
    perform ward_internal.forget_search(v_search);
  end loop;
end
$$;
comment on function ward_internal.forget_searches(uuid) is 'drops the searches of columns that are gone';

create or replace function ward_internal.finish_searches(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_search record;
  v_has_none boolean;
begin
  for v_search in
    select s.*, c.name, m.face, ward_internal.leaf_name(s.model_id, p_tenant.schema_name) as leaf
    from ward_internal.pending_searches as p
    join ward_internal.searches as s on s.id = p.search_id
    join ward_internal.sealed_columns as c on c.id = s.column_id
    join ward_internal.models as m on m.id = s.model_id
    where p.tenant_id = p_tenant.id
  loop
    execute format('select exists (select from %s where %I is not null and %I is null)', v_search.leaf, v_search.name,
      case when v_search.kind like 'unique%' then ward_internal.unique_tokens(v_search.column_id, p_tenant.id)
        else v_search.stored end) into v_has_none;
    if v_has_none then
      perform ward_internal.fail('key_in_use', format('rows of %s have no tokens of column %I yet', v_search.face,
        v_search.name), format('wardkey keys reseal %s; what does not open, or is not unique, is named in '
        'ward.events', p_tenant.slug));
    end if;
    delete from ward_internal.pending_searches where tenant_id = p_tenant.id and search_id = v_search.id;
  end loop;
end
$$;
comment on function ward_internal.finish_searches(ward_internal.tenants) is
  'lets the searches be used of which all rows of the tenant have tokens; raises WK214 where some have none';

create or replace view ward.searches as
  select m.relation, m.face, c.name as column_name, s.kind, s.normaliser, s.step, s.version,
    array(select t.slug from ward_internal.pending_searches as p join ward_internal.tenants as t on t.id = p.tenant_id
      where p.search_id = s.id order by 1) as pending
  from ward_internal.searches as s
  join ward_internal.models as m on m.id = s.model_id
  join ward_internal.sealed_columns as c on c.id = s.column_id
  where s.kind not like 'unique%';
comment on view ward.searches is
  'how sealed columns are searched; pending: tenants whose rows have not all got their tokens yet';

-- Equal values have equal tokens, or equal sets of them but for what fills these: PostgreSQL's statistics of a column
-- of tokens are those of its values. The set of a value always is the same, so this holds for sets, too.
create or replace view ward.search_leakage as
  select t.slug, m.relation, m.face, c.name as column_name, s.kind,
    (greatest(l.reltuples, 0) * (1 - coalesce(p.null_frac, 0)))::bigint as rows,
    case when p.n_distinct < 0 then round(-p.n_distinct * l.reltuples)::bigint else p.n_distinct::bigint end
      as distinct_values,
    (p.most_common_freqs::real[])[1] as commonest_value,
    case when s.kind <> 'exact' then (select max(share) from unnest(p.most_common_elem_freqs) as share) end
      as commonest_token,
    s.accepted,
    l.reltuples * (1 - p.null_frac) >= 1000
      and (p.n_distinct between 0 and 31 or coalesce(p.most_common_freqs[1], 0) > 0.05)
      as tells_too_much
  from ward_internal.searches as s
  join ward_internal.models as m on m.id = s.model_id
  join ward_internal.sealed_columns as c on c.id = s.column_id
  join ward_internal.tenants as t on t.status not in ('shredding', 'shredded')
  join pg_class as l on l.oid = to_regclass(ward_internal.leaf_name(m.id, t.schema_name))
  left join pg_stats as p on p.schemaname = l.relnamespace::regnamespace::name and p.tablename = l.relname
    and p.attname = s.stored;
comment on view ward.search_leakage is
  'what tokens tell of the values of each tenant, by the statistics of the last ANALYZE: how many there are, the share '
  'of rows that has the commonest one, and the commonest token. tells_too_much: fewer than 32 values, or one of them '
  'in more than 5 % of the rows, in 1,000 rows or more. rows: that have a value';
