-- INSERT … ON CONFLICT with a target, and DO UPDATE, do not exist for views with INSTEAD OF triggers: PostgreSQL looks
-- for the index before any trigger runs. This is their documented way; MERGE is another, from PostgreSQL 17 on.

create or replace function ward.upsert(p_face regclass, p_rows jsonb, key text[] default null,
  ignore boolean default false)
returns bigint
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_key name[];
  v_same text;
  v_rows text;
  v_row jsonb;
  v_given name[];
  v_columns text;
  v_count bigint := 0;
  v_number bigint := 0;
  v_found bigint;
begin
  -- a unique key of the leaf, without tenant_id, and its own operators, as those may be in no search_path
  select k.columns, k.same into v_key, v_same
    from pg_class as face
    join pg_class as leaf on leaf.relname = face.relname and leaf.relispartition and leaf.oid in (
      select d.refobjid from pg_rewrite as r
      join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
      where r.ev_class = face.oid and d.refclassid = 'pg_class'::regclass)
    join pg_index as i on i.indrelid = leaf.oid and i.indisunique and i.indpred is null and i.indexprs is null
    cross join lateral (
      select array_agg(a.attname order by place) as columns, string_agg(
          format(case when i.indnullsnotdistinct then '(t.%1$I %2$s n.%1$I or (t.%1$I is null and n.%1$I is null))'
            else 't.%1$I %2$s n.%1$I' end, a.attname, format('operator(%I.%s)', o.oprnamespace::regnamespace::name,
              o.oprname)),
          ' and ' order by place) as same
      from generate_series(1, i.indnkeyatts - 1) as place
      join pg_attribute as a on a.attrelid = leaf.oid and a.attnum = i.indkey[place]
      join pg_opclass as class on class.oid = i.indclass[place]
      join pg_amop as equal on equal.amopfamily = class.opcfamily and equal.amopstrategy = 3
        and equal.amoplefttype = class.opcintype and equal.amoprighttype = class.opcintype
      join pg_operator as o on o.oid = equal.amopopr
    ) as k
    where face.oid = p_face and face.relkind = 'v' and case when key is null then i.indisprimary
      else k.columns::text[] @> key and key @> k.columns::text[] end
    limit 1;
  if v_key is null or jsonb_typeof(p_rows) is distinct from 'array' or ignore is null then
    raise exception using errcode = 'WK204',
      message = 'upsert takes a face, a JSON array of rows, and columns that are a unique key',
      hint = 'select ward.upsert(''patients'', ''[{"mrn": "17", "name": "…"}]'', key => ''{mrn}'', ignore => false); '
        'without key the primary key';
  end if;
  for v_row in select * from jsonb_array_elements(p_rows) loop
    v_number := v_number + 1;
    select coalesce(array_agg(attname), '{}') into v_given from pg_attribute
      where attrelid = p_face and attnum > 0 and not attisdropped and v_row ? attname;
    if jsonb_typeof(v_row) <> 'object' or not v_given @> v_key
      or (select count(*) from jsonb_object_keys(v_row)) <> cardinality(v_given)
    then
      raise exception using errcode = 'WK204',
        message = format('row %s lacks a column of the key or has a column that is not there', v_number),
        hint = format('each row is a JSON object of columns of %s, %s among them', p_face,
          array_to_string(v_key, ', '));
    end if;
    v_rows := format('jsonb_populate_record(null::%s, $1) as n', p_face);
    v_columns := (select string_agg(quote_ident(c), ', ') from unnest(v_given) as c);
    for v_attempt in 1..2 loop
      if ignore then
        execute format('select count(*) from %s as t, %s where %s', p_face, v_rows, v_same) into v_found using v_row;
        exit when v_found > 0;
      else
        execute format('update %s as t set %s from %s where %s', p_face,
          (select string_agg(format('%1$I = n.%1$I', c), ', ') from unnest(v_given) as c), v_rows, v_same) using v_row;
        get diagnostics v_found = row_count;
        v_count := v_count + v_found;
        exit when v_found > 0;
      end if;
      begin
        execute format('insert into %1$s (%2$s) select %2$s from %3$s', p_face, v_columns, v_rows) using v_row;
        v_count := v_count + 1;
        exit;
      exception when unique_violation then
        if v_attempt = 2 then  -- not a race for this row: another unique key
          raise;
        end if;
      end;
    end loop;
  end loop;
  return v_count;
end
$$;
revoke execute on function ward.upsert(regclass, jsonb, text[], bool) from public;
comment on function ward.upsert(regclass, jsonb, text[], boolean) is
  'updates the given columns of the row that has the same key, or inserts it; returns how many rows were written. key: '
  'columns of any unique key, the primary one by default. ignore: leaves a row that is there as it is, as ON CONFLICT '
  '(key) DO NOTHING. Stands in for INSERT … ON CONFLICT with a target, which PostgreSQL does not have for views with '
  'triggers. Error: WK204';
