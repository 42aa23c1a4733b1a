-- INSERT … ON CONFLICT does not exist for views with INSTEAD OF triggers; this is its documented way.

create or replace function ward.upsert(p_face regclass, p_rows jsonb) returns bigint
language plpgsql volatile strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_key name[];
  v_row jsonb;
  v_given name[];
  v_count bigint := 0;
  v_updated bigint;
begin
  select array_agg(a.attname order by array_position(i.indkey::int2[], a.attnum)) into v_key
    from pg_class as face
    join pg_class as leaf on leaf.relnamespace = face.relnamespace and leaf.relname = face.relname || '_sealed'
    join pg_index as i on i.indrelid = leaf.oid and i.indisprimary
    join pg_attribute as a on a.attrelid = leaf.oid and a.attnum = any (i.indkey) and a.attname <> 'tenant_id'
    where face.oid = p_face and face.relkind = 'v';
  if v_key is null or jsonb_typeof(p_rows) <> 'array' then
    raise exception using errcode = 'WK204', message = 'upsert takes a face and a JSON array of rows',
      hint = 'select ward.upsert(''patients'', ''[{"id": 1, "name": "…"}]'')';
  end if;
  for v_row in select * from jsonb_array_elements(p_rows) loop
    select coalesce(array_agg(attname), '{}') into v_given from pg_attribute
      where attrelid = p_face and attnum > 0 and not attisdropped and v_row ? attname;
    if jsonb_typeof(v_row) <> 'object' or not v_given @> v_key
      or (select count(*) from jsonb_object_keys(v_row)) <> cardinality(v_given)
    then
      raise exception using errcode = 'WK204',
        message = format('row %s lacks the primary key or has a column that is not there', v_count + 1),
        hint = format('each row is a JSON object of columns of %s, its key among them', p_face);
    end if;
    for v_attempt in 1..2 loop
      execute format('update %1$s as t set %2$s from jsonb_populate_record(null::%1$s, $1) as n where %3$s', p_face,
        (select string_agg(format('%1$I = n.%1$I', c), ', ') from unnest(v_given) as c),
        (select string_agg(format('t.%1$I = n.%1$I', c), ' and ') from unnest(v_key) as c)) using v_row;
      get diagnostics v_updated = row_count;
      exit when v_updated > 0;
      begin
        execute format('insert into %1$s (%2$s) select %2$s from jsonb_populate_record(null::%1$s, $1)', p_face,
          (select string_agg(quote_ident(c), ', ') from unnest(v_given) as c)) using v_row;
        exit;
      exception when unique_violation then
        if v_attempt = 2 then  -- not a race for this row: another unique key
          raise;
        end if;
      end;
    end loop;
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
revoke execute on function ward.upsert(regclass, jsonb) from public;
comment on function ward.upsert(regclass, jsonb) is
  'updates the given columns of the row with each row''s primary key, or inserts it; returns how many. Stands in for '
  'INSERT … ON CONFLICT (primary key) DO UPDATE, which PostgreSQL does not have for views';
