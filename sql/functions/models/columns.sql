-- What a model table's columns are and how their values become bytes: the expressions faces are made of.
--
-- The shape (schema ward_model) has the declared types, the partitioned table the stored ones; the two have columns of
-- the same names. Expressions here are text, made under a pinned search_path so that every name in them is qualified.

create or replace function ward_internal.model_columns(p_model uuid)
returns table (
  place integer, column_name name, type_name text, type_id oid, column_id uuid,
  default_expression text, generated boolean, key_place integer, sequence regclass,
  collation_name text
)
language plpgsql stable strict rows 10 security invoker set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  -- plpgsql, not SQL: it keeps the plan, and provisioning asks seven times a table; few rows, or joins would read all
  -- of pg_class
  return query
    select
      stored.attnum::integer,
      stored.attname,
      format_type(declared.atttypid, declared.atttypmod),
      declared.atttypid,
      sealed.id,
      pg_get_expr(def.adbin, def.adrelid),
      stored.attgenerated <> '',
      array_position(pk.indkey::int2[], declared.attnum)::integer,
      pg_get_serial_sequence(model.shape::text, declared.attname)::regclass,
      case when declared.attcollation not in (0, 'pg_catalog.default'::regcollation)
        then declared.attcollation::regcollation::text end
    from ward_internal.models as model
    join pg_attribute as stored on stored.attrelid = model.relation and stored.attnum > 0 and not stored.attisdropped
    join pg_attribute as declared on declared.attrelid = model.shape and declared.attname = stored.attname
    join pg_index as pk on pk.indrelid = model.shape and pk.indisprimary
    left join ward_internal.sealed_columns as sealed on sealed.model_id = model.id and sealed.name = stored.attname
    left join pg_attrdef as def
      on def.adrelid = case when sealed.id is null then stored.attrelid else declared.attrelid end
      and def.adnum = case when sealed.id is null then stored.attnum else declared.attnum end
    where model.id = p_model
    order by stored.attnum;
end
$$;
comment on function ward_internal.model_columns(uuid) is
  'columns of a model table without tenant_id, in order: declared type, id if sealed, default, place in the primary '
  'key from 0, sequence, collation if it is not the database''s';

create or replace function ward_internal.can_be_sealed(p_type oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return p_type = any ('{
    text, varchar, bpchar, boolean, smallint, integer, bigint, numeric, real, double precision, date, time, timetz,
    timestamp, timestamptz, interval, uuid, json, jsonb, bytea, inet, text[], smallint[], integer[], bigint[]
  }'::regtype[]::oid[])
  or exists (select from pg_type where oid = p_type and typtype = 'e');
comment on function ward_internal.can_be_sealed(oid) is
  'whether the type has a text form from which every value comes back exactly, whatever a session''s settings';

create or replace function ward_internal.row_form(p_shape regclass) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (
  select string_agg(case when a.atttypid = any ('{int2,int4,int8}'::regtype[]) then 'i'
    when a.atttypid = 'uuid'::regtype then 'u'
    else 't' end, '' order by k.place)
  from pg_index as i
  cross join unnest(i.indkey::int2[]) with ordinality as k (number, place)
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.number
  where i.indrelid = p_shape and i.indisprimary);
comment on function ward_internal.row_form(regclass) is
  'what the parts of the bytes of a row id are: i 8 bytes of an integer, u 16 of a uuid, t text';

create or replace function ward_internal.can_be_row_id(p_type oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return p_type = any ('{smallint, integer, bigint, uuid, text, varchar, bpchar}'::regtype[]::oid[]);

-- JSON has one form of dates, ISO 8601 (XSD), whatever DateStyle says, and gets there without setting anything.
create or replace function ward_internal.canonical_expression(p_value text, p_type oid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return case
  when p_type = 'bytea'::regtype then p_value
  when p_type = any ('{date, timestamp}'::regtype[]::oid[]) then format('btrim(to_json(%s)::text, ''"'')', p_value)
  when p_type = any ('{timestamptz, interval, real, double precision}'::regtype[]::oid[])
    then format('ward_internal.canonical(%s)', p_value)
  when p_type = 'bpchar'::regtype then format('textin(bpcharout(%s))', p_value)  -- its cast to text drops blanks
  else format('%s::text', p_value)
end;

create or replace function ward_internal.sealed_bytes(p_value text, p_type oid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return case p_type when 'bytea'::regtype then p_value
  else format('convert_to(%s, ''UTF8'')', ward_internal.canonical_expression(p_value, p_type)) end;
comment on function ward_internal.sealed_bytes(text, oid) is
  'the bytes that are sealed of a value: its canonical text''s, or its own';

create or replace function ward_internal.seal_expression(p_values text[], p_columns uuid[], p_row text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select format($sql$coalesce(ward_internal.seal(array[%s], %L::bytea, %s),
  ward.raise_refusal('{}'::bytea[]))$sql$,
  array_to_string(p_values, E',\n      '), string_agg(uuid_send(id), '' order by place), p_row)
  from unnest(p_columns) with ordinality as c (id, place));
comment on function ward_internal.seal_expression(text[], uuid[], text) is
  'the sealed values, an array, of bytes for the row';

create or replace function ward_internal.masked_null() returns bytea
language sql immutable parallel safe security invoker set search_path = pg_catalog, pg_temp
return '\xff20776172646b65792073686f7773206e756c6c'::bytea;
comment on function ward_internal.masked_null() is
  'what ward.try_unseal returns for NULL that a mask shows, as null is a refusal: NULL in wardkey_pg/masks.py';

create or replace function ward_internal.unseal_expression(
  p_value text, p_type oid, p_type_name text, p_column uuid, p_row text
) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select case
  when p_type = 'bytea'::regtype then opened
  when p_type = 'text'::regtype then text
  when p_type = any ('{text[], smallint[], integer[], bigint[]}'::regtype[]::oid[])
    then format('ward.parse_array(%s)::%s', text, p_type_name)
  else format('%s::%s', text, p_type_name)
end
from format('nullif(coalesce(ward.try_unseal(%1$s, %2$L::bytea, %3$s), ward.raise_refusal(%1$s)), %4$L::bytea)',
  p_value, uuid_send(p_column), p_row, ward_internal.masked_null()) as opened,
    format('convert_from(%s, ''UTF8'')', opened) as text);

create or replace function ward_internal.quoted_name(p_name name) returns text
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return '"' || replace(p_name, '"', '""') || '"';
comment on function ward_internal.quoted_name(name) is
  'a column''s name for PL/pgSQL, which takes begin, by or if for its own words unless they are in quotes; quote_ident '
  'does not know those';

create or replace function ward_internal.row_expression(p_model uuid, p_prefix text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with part as (
    select key_place, count(*) over () as parts, case
      when type_id = any ('{smallint, integer, bigint}'::regtype[]::oid[])
        then format('int8send(%s.%s::bigint)', p_prefix, ward_internal.quoted_name(column_name))
      when type_id = 'uuid'::regtype then format('uuid_send(%s.%s)', p_prefix, ward_internal.quoted_name(column_name))
      else format('convert_to(%s.%s::text, ''UTF8'')', p_prefix, ward_internal.quoted_name(column_name))
    end as bytes
    from ward_internal.model_columns(p_model)
    where key_place is not null
  )
  select string_agg(
    case parts when 1 then bytes else format('int4send(octet_length(%1$s)) || %1$s', bytes) end,
    ' || ' order by key_place)
  from part
$$;
comment on function ward_internal.row_expression(uuid, text) is
  'the row id that goes into ciphertexts, from the primary key of the row called by the prefix';
