-- What a model adds to each ward, and what of it cannot be: names that are taken or too long, columns that do not fit.
-- All of it is known from the registry and the declared table, so that the answer before the first tenant is the answer
-- after it.

create or replace function ward_internal.cut_name(p_name text) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return case when octet_length(p_name) < 64 then p_name else (
  select left(p_name, max(n)) || '_' || left(md5(p_name), 8) from generate_series(1, 54) as n
  where octet_length(left(p_name, n)) <= 54) end;
comment on function ward_internal.cut_name(text) is
  'the name itself, or one of at most 63 bytes that ends in a digest of the whole: PostgreSQL would cut names until '
  'they are equal';

create or replace function ward_internal.made_names(p_model ward_internal.models)
  returns table (name name, made_for text)
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select (p_model).face, 'the face'
  union all
  select c.relname, 'an index' from pg_index as i join pg_class as c on c.oid = i.indexrelid
    where i.indrelid = (p_model).shape
  union all
  select c.relname, 'a sequence' from pg_depend as d join pg_class as c on c.oid = d.objid and c.relkind = 'S'
  where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = (p_model).shape
    and d.deptype in ('a', 'i')
$$;
comment on function ward_internal.made_names(ward_internal.models) is
  'names of relations that the model has in every ward, the leaf''s being the face''s; those of indexes and sequences '
  'are in schema ward_model too';

create or replace function ward_internal.check_names(p_model ward_internal.models) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_clash record;
begin
  select * into v_clash from (
    select mine.name, mine.made_for, 'audit log of each ward' as other from ward_internal.made_names(p_model) as mine
    where mine.name ~ '^audit_log(_|$)' and mine.made_for <> 'an index'  -- those lie with the leaves
    union all
    select mine.name, mine.made_for, format('%s of %s', substr(theirs.made_for, strpos(theirs.made_for, ' ') + 1),
      m.relation)
    from ward_internal.made_names(p_model) as mine
    join (ward_internal.models as m cross join lateral ward_internal.made_names(m) as theirs)
      on theirs.name = mine.name and m.id <> (p_model).id
    union all
    select mine.name, mine.made_for, format('%I.%I', n.nspname, c.relname)
    from (select * from ward_internal.made_names(p_model)
      union all
      select ward_internal.cut_name(nspname || '__' || relname), 'the shape'
      from pg_class as t join pg_namespace as s on s.oid = t.relnamespace where t.oid = (p_model).relation) as mine
    join pg_class as c on c.relname = mine.name
    join pg_namespace as n on n.oid = c.relnamespace
    where not exists (select from ward_internal.models where id = (p_model).id)
      and (n.nspname = 'ward_model' or n.nspname in (select schema_name from ward_internal.ward_schemas()))
  ) as clash limit 1;
  if found then
    perform ward_internal.fail('unsupported', format('%s of %s would be called %I, which is the name of the %s',
      v_clash.made_for, (p_model).relation, v_clash.name, v_clash.other), 'rename one of the two');
  end if;
end
$$;
comment on function ward_internal.check_names(ward_internal.models) is
  'raises if the model would have a name in a ward, or in schema ward_model, that something else has there or will '
  'have';

create or replace function ward_internal.check_size(p_table regclass, p_sealed name[]) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_columns bigint;
  v_sealed bigint;
  v_bytes bigint;
begin
  if exists (select from pg_index as i join pg_class as c on c.oid = i.indexrelid join pg_am as am on am.oid = c.relam
    where i.indrelid = p_table and i.indnatts > 31 and am.amname = 'btree')
  then
    perform ward_internal.fail('unsupported', format('%s has a key or index of 32 columns', p_table),
      'use at most 31: tenant_id stands in front of them, and 32 is what PostgreSQL has');
  end if;
  -- 24 bytes of header, tenant_id, columns of fixed length; a sealed value takes 18 where the rest of it is stored out
  -- of line
  select count(*), count(*) filter (where attname = any (p_sealed)),
      40 + sum(case when attname = any (p_sealed) then 18 when attlen > 0 then attlen else 1 end)
    into v_columns, v_sealed, v_bytes
    from pg_attribute where attrelid = p_table and attnum > 0 and not attisdropped;
  if v_columns > 1599 then
    perform ward_internal.fail('unsupported', format('%s has %s columns', p_table, v_columns),
      'use at most 1599: tenant_id is one more, and 1600 is what PostgreSQL has');
  elsif v_sealed > 0 and v_bytes > current_setting('block_size')::integer - 32 then
    perform ward_internal.fail('unsupported',
      format('%s seals %s columns: a row that fills them all does not fit a page',
      p_table, v_sealed), 'seal fewer, or move some to a table of their own: each takes at least 18 bytes of a row');
  end if;
end
$$;
comment on function ward_internal.check_size(regclass, name[]) is
  'raises unless the table fits a page and PostgreSQL''s limits with tenant_id, and these columns sealed';

create or replace function ward_internal.filled(p_template text, p_parts jsonb) returns text
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp as $$
  select case when bool_and(place % 2 = 1 or p_parts ->> piece is not null) then
    string_agg(case when place % 2 = 1 then piece else p_parts ->> piece end, '' order by place) end
  from string_to_table(p_template, '@') with ordinality as pieces (piece, place)
$$;
comment on function ward_internal.filled(text, jsonb) is
  'the template with the part of that name in place of each @name@; null if one is missing. What is in the parts is '
  'not looked at';
