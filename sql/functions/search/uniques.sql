-- Unique over sealed columns. Each of them has two columns of tokens in the leaf: under the live key whose version is
-- odd, and under the one that is even. Over each set, with the plain columns, stands a unique index: PostgreSQL itself
-- refuses duplicates, waits for who may be about to write one, and treats nulls as it does.
--
-- There is no window while a key is replaced. A row that is sealed under a version has a token under each version that
-- was live then and is not newer; so until the former is retired all rows have its tokens, and when it is, when no row
-- is sealed under it, all have those of the next. Then the former's are cleared. A third version has to wait: its
-- tokens would take the place of the first's.

create or replace function ward_internal.is_token_index(p_index oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return exists (
  select from pg_index as i join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
  where i.indexrelid = p_index and ward_internal.is_token_column(a.attname));
comment on function ward_internal.is_token_index(oid) is
  'whether an index is over a column of tokens: a shape has none such';

create or replace function ward_internal.unique_tokens(p_column uuid, p_tenant uuid) returns name
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (
  select s.stored from ward_internal.searches as s
  join ward_internal.tenant_keys as k on k.tenant_id = p_tenant and k.state = 'active'
  where s.column_id = p_column and s.kind = case when k.version % 2 = 1 then 'unique_odd' else 'unique_even' end);
comment on function ward_internal.unique_tokens(uuid, uuid) is
  'the column with the tokens under the tenant''s active key, by which a sealed column is unique';

create or replace view ward_internal.unique_indexes as
  select m.id as model_id, m.relation, i.indexrelid::regclass as index, c.relname as name, k.columns, k.searches,
    k.odd, exists (select from ward_internal.pending_searches where search_id = any (k.searches)) as is_pending
  from ward_internal.models as m
  join pg_index as i on i.indrelid = m.relation and i.indisunique
  join pg_class as c on c.oid = i.indexrelid
  cross join lateral (
    select array_agg(coalesce(sealed.name, a.attname) order by place) as columns,
      array_agg(s.id order by place) filter (where s.id is not null) as searches, bool_or(s.kind = 'unique_odd') as odd
    from generate_series(1, i.indnkeyatts - 1) as place
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[place]
    left join ward_internal.searches as s on s.model_id = m.id and s.stored = a.attname and s.kind like 'unique%'
    left join ward_internal.sealed_columns as sealed on sealed.id = s.column_id
  ) as k
  where k.searches is not null;
comment on view ward_internal.unique_indexes is 'unique indexes of model tables over tokens, two for each constraint';

create or replace view ward.uniques as
  select u.relation, u.name, u.columns, s.normaliser, array(
    select t.slug from ward_internal.pending_searches as p join ward_internal.tenants as t on t.id = p.tenant_id
    where p.search_id = any (u.searches) order by 1) as pending
  from ward_internal.unique_indexes as u
  join ward_internal.searches as s on s.id = u.searches[1]
  where u.odd;
comment on view ward.uniques is
  'what is unique over sealed columns; pending: tenants whose rows have not all got their tokens yet';

create or replace function ward.add_unique(
  p_table regclass, p_columns text[], p_name name default null, p_normaliser text default null,
  p_accept_leakage text default null
) returns integer
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid;
  v_name name := coalesce(p_name, ward_internal.cut_name(concat_ws('_',
    (select relname from pg_class where oid = p_table), array_to_string(p_columns, '_'), 'key')));
  v_missing text;
  v_kind text;
  v_search ward_internal.searches;
  v_due uuid[] := '{}';
  v_tenant ward_internal.tenants;
  v_leaf text;
  v_has_values boolean;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  v_model := ward_internal.model_of(p_table);
  v_missing := (
    select name from unnest(p_columns) as name where name is null or name = 'tenant_id'
      or ward_internal.is_token_column(name)
      or not exists (select from pg_attribute where attrelid = p_table and attname = name and attnum > 0) limit 1);
  if v_missing is not null or coalesce(cardinality(p_columns), 0) = 0 or array_position(p_columns, null) is not null
    or cardinality(p_columns) > (select count(distinct name) from unnest(p_columns) as name)
  then
    perform ward_internal.fail('unknown_object', 'a column is not there, or is named twice, or none is named',
      'name the columns that are to be unique together, each once');
  elsif not exists (select from ward_internal.sealed_columns where model_id = v_model and name = any (p_columns)) then
    perform ward_internal.fail('unsupported', 'none of these columns is sealed',
      format('alter table %s add unique (%s)', (select shape from ward_internal.models where id = v_model),
        (select string_agg(quote_ident(name), ', ') from unnest(p_columns) as name)));
  elsif exists (select from pg_class where relname = v_name and relnamespace = (
    select relnamespace from pg_class where oid = p_table))
  then
    perform ward_internal.fail('unsupported', format('there is already a relation %I', v_name), 'p_name => …');
  end if;
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  foreach v_kind in array '{unique_odd, unique_even}'::text[] loop
    perform ward_internal.create_search(p_table, c, v_kind, case
        when ward_internal.search_normaliser('exact', a.atttypid, 'none') is not null
          then coalesce(p_normaliser, 'none') end, null, p_accept_leakage)
      from ward_internal.sealed_columns as c
      join ward_internal.models as m on m.id = c.model_id
      join pg_attribute as a on a.attrelid = m.shape and a.attname = c.name
      where c.model_id = v_model and c.name = any (p_columns) and not exists (
        select from ward_internal.searches where column_id = c.id and kind = v_kind);
    perform ward_internal.create_unique_index(p_table, v_model, p_columns, v_kind, case v_kind when 'unique_odd'
      then v_name else ward_internal.other_name(v_name) end);
  end loop;
  if p_normaliser is not null and exists (
    select from ward_internal.searches as s join ward_internal.sealed_columns as c on c.id = s.column_id
    where c.model_id = v_model and c.name = any (p_columns) and s.kind like 'unique%' and s.normaliser <> p_normaliser)
  then
    perform ward_internal.fail('invalid_search', 'a column of these is unique by another normaliser',
      'select * from ward.uniques');
  end if;
  for v_tenant in select * from ward_internal.tenants where status not in ('shredding', 'shredded') loop
    v_leaf := ward_internal.leaf_name(v_model, v_tenant.schema_name);
    continue when to_regclass(v_leaf) is null;
    perform ward_internal.name_leaf_indexes(v_leaf::regclass);
    perform ward_internal.name_unique_indexes(v_tenant);
    for v_search in
      select s.* from ward_internal.searches as s join ward_internal.sealed_columns as c on c.id = s.column_id
      where c.model_id = v_model and c.name = any (p_columns) and s.kind = 'unique_odd'
    loop
      execute format('select exists (select from %s where %I is not null and %I is null)', v_leaf,
        (select name from ward_internal.sealed_columns where id = v_search.column_id),
        ward_internal.unique_tokens(v_search.column_id, v_tenant.id)) into v_has_values;
      if v_has_values then
        v_due := v_due || v_tenant.id;
        insert into ward_internal.pending_searches (tenant_id, search_id) values (v_tenant.id, v_search.id)
          on conflict do nothing;
      end if;
    end loop;
  end loop;
  perform ward_internal.rebuild_faces(v_model);
  insert into ward_internal.rotations (tenant_id, version, reason)
    select k.tenant_id, k.version, format('index %I is built', v_name)
    from ward_internal.tenant_keys as k
    where k.state = 'active' and k.tenant_id = any (v_due)
      and not exists (select from ward_internal.rotations as r where r.tenant_id = k.tenant_id
        and finished_at is null);
  perform ward_internal.log_event(ward_internal.master_id(), 'unique added', jsonb_build_object('table', p_table::text,
    'columns', p_columns, 'name', v_name, 'accepted', p_accept_leakage));
  return (select count(distinct id) from unnest(v_due) as id);
end
$$;
comment on function ward.add_unique(regclass, text[], name, text, text) is
  'makes columns, some of them sealed, unique together in each ward: SQLSTATE 23505 with the name of the index, and no '
  'value. Nulls are distinct. p_normaliser: of text; none (the default: as PostgreSQL compares), text, digits, email, '
  'phone. p_accept_leakage: see ward.add_search. Holds for what is written from now on; returns in how many wards rows '
  'have to get their tokens first: wardkey keys reseal, tenant by tenant, which names rows that are not unique by '
  'their keys. Errors: WK204 no such column, WK271 it cannot be unique';

create or replace function ward_internal.other_name(p_name name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name(p_name || '_2');
comment on function ward_internal.other_name(name) is
  'name of the second index of a constraint: whichever in a ward stands over the active key has the first';

create or replace function ward_internal.create_unique_index(
  p_table regclass, p_model uuid, p_columns text[], p_kind text, p_name name
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  execute (
    select format('create unique index %I on %s (tenant_id, %s) where %s', p_name, p_table,
      string_agg(quote_ident(coalesce(s.stored, u.name)), ', ' order by u.place),
      string_agg(format('%I is not null', s.stored), ' and ' order by u.place) filter (where s.stored is not null))
    from unnest(p_columns) with ordinality as u (name, place)
    left join ward_internal.sealed_columns as c on c.model_id = p_model and c.name = u.name
    left join ward_internal.searches as s on s.column_id = c.id and s.kind = p_kind);
end
$$;

create or replace function ward_internal.name_unique_indexes(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_is_odd boolean := (
    select version % 2 = 1 from ward_internal.tenant_keys where tenant_id = p_tenant.id and state = 'active');
  v_index record;
begin
  for v_index in
    select first.oid::regclass as first, second.oid::regclass as second, u.name
    from ward_internal.unique_indexes as u
    join ward_internal.unique_indexes as v on v.model_id = u.model_id and v.columns = u.columns and not v.odd
      and v.name = ward_internal.other_name(u.name)
    join pg_class as leaf on leaf.oid = to_regclass(ward_internal.leaf_name(u.model_id, p_tenant.schema_name))
    join pg_inherits as i on i.inhparent = case when v_is_odd then u.index else v.index end
    join pg_index as x on x.indexrelid = i.inhrelid and x.indrelid = leaf.oid
    join pg_class as first on first.oid = i.inhrelid
    join pg_class as second on second.relname = u.name and second.relnamespace = leaf.relnamespace
    where u.odd and first.relname <> u.name
  loop
    execute format('alter index %s rename to %I', v_index.second, 'ward_renamed');
    execute format('alter index %s rename to %I', v_index.first, v_index.name);
    execute format('alter index %I.ward_renamed rename to %I', ward_internal.leaf_schema(p_tenant.schema_name),
      ward_internal.other_name(v_index.name));
  end loop;
end
$$;
comment on function ward_internal.name_unique_indexes(ward_internal.tenants) is
  'gives the name of the constraint to the index over the tokens under the active key: that is in the error';

create or replace function ward_internal.live_parities(p_tenant uuid) returns boolean[]
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select coalesce(array_agg(distinct version % 2 = 1), '{}') from ward_internal.tenant_keys
  where tenant_id = p_tenant and state in ('active', 'decrypt-only'));
comment on function ward_internal.live_parities(uuid) is 'whether live versions are odd, even, or one and another';

create or replace function ward_internal.former_tokens(p_model uuid, p_tenant uuid) returns name[]
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select coalesce(array_agg(stored), '{}') from ward_internal.searches where model_id = p_model
  and kind like 'unique%' and (kind = 'unique_odd') <> all (ward_internal.live_parities(p_tenant)));
comment on function ward_internal.former_tokens(uuid, uuid) is
  'columns with tokens under a version that is retired, if they have any';

-- wardkey: ignore WL119 because clearing is no change of the data
create or replace function ward_internal.drop_former_tokens(
  p_model uuid, p_tenant ward_internal.tenants, p_from bigint, p_to bigint
) returns bigint
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
set session_replication_role = replica as $$
declare
  v_columns name[] := ward_internal.former_tokens(p_model, p_tenant.id);
  v_rows text;
  v_left bigint := 0;
begin
  if v_columns <> '{}' then
    v_rows := (select format('from %s as l where l.ctid >= ''(%s,0)'' and l.ctid < ''(%s,0)'' and (%s)',
        ward_internal.leaf_name(p_model, p_tenant.schema_name), p_from, p_to,
        string_agg(format('l.%I is not null', name), ' or '))
      from unnest(v_columns) as name);
    -- waiting for one row while it holds others, it would deadlock with a tenant
    execute (select format('update %s set %s where ctid = any (array(select l.ctid %s for no key update skip locked))',
        ward_internal.leaf_name(p_model, p_tenant.schema_name), string_agg(format('%I = null', name), ', '), v_rows)
      from unnest(v_columns) as name);
    execute 'select count(*) ' || v_rows into v_left;
  end if;
  return v_left;
end
$$;
comment on function ward_internal.drop_former_tokens(uuid, ward_internal.tenants, bigint, bigint) is
  'clears the tokens under a version that is retired, in a range of blocks; returns how many rows others had locked';

create or replace function ward_internal.is_cleared(p_tenant ward_internal.tenants) returns boolean
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column record;
  v_has_some boolean;
begin
  for v_column in
    select ward_internal.leaf_name(m.id, p_tenant.schema_name) as leaf, name
    from ward_internal.models as m, unnest(ward_internal.former_tokens(m.id, p_tenant.id)) as name
  loop
    continue when to_regclass(v_column.leaf) is null;
    execute format('select exists (select from %s where %I is not null)', v_column.leaf, v_column.name) into v_has_some;
    if v_has_some then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function ward_internal.is_cleared(ward_internal.tenants) is
  'whether no tokens of unique columns are left under a version that is retired';

create or replace function ward_internal.check_unique_versions(p_tenant ward_internal.tenants, p_version integer)
returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from ward_internal.searches where kind like 'unique%') and exists (
    select from ward_internal.tenant_keys where tenant_id = p_tenant.id and state in ('active', 'decrypt-only')
      and version <> p_version and (p_version - version) % 2 = 0)
  then
    perform ward_internal.fail('key_in_use', 'a key that is live would share its tokens'' place with this one',
      format('sealed columns that are unique have tokens under two keys at most; finish what is under way: wardkey '
        'keys reseal %1$s; if nothing is: wardkey keys rotate %1$s', p_tenant.slug));
  end if;
end
$$;
comment on function ward_internal.check_unique_versions(ward_internal.tenants, integer) is
  'raises WK214 where the tokens of a new version would take the place of those of one that is live';

create or replace function ward.drop_unique(p_table regclass, p_name name) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid;
  v_index record;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  v_model := ward_internal.model_of(p_table);
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  if not exists (select from ward.uniques where relation = p_table and name = p_name) then
    perform ward_internal.fail('unknown_object', format('%s has no %I over sealed columns', p_table, p_name),
      'list them: select * from ward.uniques');
  end if;
  for v_index in
    select index from ward_internal.unique_indexes
    where model_id = v_model and name in (p_name, ward_internal.other_name(p_name))
  loop
    execute format('drop index %s', v_index.index);
  end loop;
  perform ward_internal.forget_uniques(v_model);
  perform ward_internal.rebuild_faces(v_model);
  perform ward_internal.log_event(ward_internal.master_id(), 'unique dropped', jsonb_build_object('table',
    p_table::text, 'name', p_name));
end
$$;
comment on function ward.drop_unique(regclass, name) is
  'drops what ward.add_unique made, with the tokens. Errors: WK204 there is none of that name';

create or replace function ward_internal.forget_uniques(p_model uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_search ward_internal.searches;
begin
  for v_search in
    select * from ward_internal.searches as s where model_id = p_model and kind like 'unique%' and not exists (
      select from ward_internal.unique_indexes where s.id = any (searches))
  loop
    perform ward_internal.forget_search(v_search);
  end loop;
end
$$;
comment on function ward_internal.forget_uniques(uuid) is 'drops tokens over which no unique index stands any more';
