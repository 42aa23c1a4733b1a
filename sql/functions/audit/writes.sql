-- Every change of a row of a leaf is an entry: through a face, by a foreign key, or by a superuser's own statement. An
-- update that leaves the stored row as it was is no change. The triggers are ALWAYS: session_replication_role does not
-- get round them. Images are as stored: sealed values are ciphertext.
--
-- An entry is bounded, or one value could stop the scribe, which reads all tenants' entries as text: of a record
-- that has more than 50,000 bytes, values beyond 1,000 stand in it as length and SHA-256, and its detail names their
-- columns.
--
-- What an entry says does not follow the session's settings: values are compared as they are stored, and the settings
-- on which their texts depend are pinned.
--
-- Resealing is no change of the data; that it is resealing only wardkey_pg's own code can say
-- (ward_internal.begin_entry).

create or replace function ward_internal.begin_entry(p_tenant text) returns bytea
language plpython3u volatile strict parallel unsafe security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "begin_entry")
return SD["call"](*args)
$$;
comment on function ward_internal.begin_entry(text) is
  'for an entry in the tenant''s log: its id in 8 bytes, out of those that this backend has leased, and the id of the '
  'context if it is of this tenant; empty while rows are resealed; null when refused. Sees to it that the log has a '
  'partition for this month';

create or replace function ward_internal.base_type(p_type oid) returns oid
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_type oid := p_type;
begin
  while (select typtype = 'd' from pg_type where oid = v_type) loop
    v_type := (select typbasetype from pg_type where oid = v_type);
  end loop;
  return v_type;
end
$$;
comment on function ward_internal.base_type(oid) is 'the type below all domains';

create or replace function ward_internal.text_length(p_value anyelement) returns bigint
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return octet_length(p_value::text);
exception when program_limit_exceeded or out_of_memory or internal_error then
  perform ward_internal.fail('entry_too_long', 'a value is too long for the audit log',
    'the text of a value has to be shorter than 1 GB: divide the value, or store it as text or bytea');
end
$$;
comment on function ward_internal.text_length(anyelement) is
  'bytes of a value''s text. Error: WK402 PostgreSQL cannot make it';

create or replace function ward_internal.digest(p_value bytea) returns jsonb
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return jsonb_build_object('bytes', octet_length(p_value), 'sha256', encode(sha256(p_value), 'hex'));
comment on function ward_internal.digest(bytea) is
  'what stands for a long value in old and new: length and SHA-256, of a text those of its UTF-8';

create or replace function ward_internal.entry_form(p_type oid)
returns table (image text, length text, digest text, settings text[])
language plpgsql stable strict rows 1 security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return query select  -- plpgsql keeps the plan: a tenant that is made asks this of each column
    case
      when base = '"char"'::regtype then '%1$s::"char"::int4'  -- where its highest bit is set, the text is no character
      when is_short or element = any ('{text, varchar, bpchar, bytea, numeric, jsonb}'::regtype[]::oid[]) then '%1$s'
      else '%1$s::text'
    end,
    case
      when base = element and is_short or base = '"char"'::regtype then null
      when base = any ('{text, varchar, bpchar, bytea}'::regtype[]::oid[])
        then 'coalesce(octet_length(%1$s), 0)'  -- without reading what is stored out of line
      else 'case when pg_column_size(%1$s) < 2000 and pg_column_compression(%1$s) is null '
        'then coalesce(octet_length(%1$s::text), 0) else coalesce(ward_internal.text_length(%1$s), 0) end'
    end,
    format('ward_internal.digest(%s)',
      case base when 'bytea'::regtype then '%1$s' else 'convert_to(%1$s::text, ''UTF8'')' end),
    case
      when element = 'bytea'::regtype then '{bytea_output = hex}'::text[]
      when element = any ('{float4, float8}'::regtype[]::oid[]) then '{extra_float_digits = 1}'
      when element = 'interval'::regtype then '{intervalstyle = postgres}'
      when element = 'timestamptz'::regtype then array['timezone = ''UTC''']
      when element = 'money'::regtype then array['lc_monetary = ''C''']
      when is_short or element = any ('{text, varchar, bpchar, numeric, json, jsonb}'::regtype[]::oid[]) then '{}'
      else array['bytea_output = hex', 'extra_float_digits = 1', 'intervalstyle = postgres', 'timezone = ''UTC''',
        'lc_monetary = ''C''', 'datestyle = ''ISO, YMD''', 'quote_all_identifiers = off']
    end
  from ward_internal.base_type(p_type) as base
  join pg_type as b on b.oid = base,
    ward_internal.base_type(case when b.typcategory = 'A' and b.typelem <> 0 then b.typelem else base end) as element
  join pg_type as e on e.oid = element,
    lateral (select e.typtype = 'e' or element = any ('{
      bool, int2, int4, int8, float4, float8, money, uuid, oid, name, date, time, timetz, timestamp, timestamptz,
      interval, inet, cidr, macaddr, macaddr8}'::regtype[]::oid[]) as is_short) as s;
end
$$;
comment on function ward_internal.entry_form(oid) is
  'how entries hold a type, for format: image stands in old and new, the value itself where jsonb can hold all of the '
  'type''s (a json text may hold what jsonb cannot), else its text; length: bytes of its text, null where they are '
  'always few (few stored bytes may be a long text: 1e131071); digest: for a long one; settings: on which the text '
  'depends, as they have to be';

create or replace function ward_internal.entry_columns(p_model uuid, p_record text)
returns table (
  number bigint, name text, key_place integer, type_id oid, is_sealed boolean, value text, image text, length text,
  digest text, settings text[]
)
language plpgsql stable strict rows 10 security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return query
  select row_number() over (order by c.place), c.column_name::text, c.key_place, c.type_id, c.column_id is not null,
    v.value, format(f.image, v.value), format(f.length, v.value), format(f.digest, v.value), f.settings
  from ward_internal.model_columns(p_model) as c,
    lateral (select p_record || '.' || ward_internal.quoted_name(c.column_name) as value) as v,
    ward_internal.entry_form(case when c.column_id is null then c.type_id else 'bytea'::regtype end) as f;
end
$$;
comment on function ward_internal.entry_columns(uuid, text) is
  'a leaf''s columns as they are stored, with expressions for the values of the record of that name';

create or replace function ward_internal.audit_writer(p_face name, p_schema name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name(p_face || '_log' || substr(p_schema, length('tenant_')));
comment on function ward_internal.audit_writer(name, name) is
  'name of a leaf''s function that writes entries: patients_log_acme. Its own in each ward, as with '
  'ward_internal.writer_name';

create or replace function ward_internal.object_expression(p_names text[], p_values text[]) returns text
language sql immutable strict security invoker set search_path = pg_catalog, pg_temp as $$
  -- a function takes 100 arguments
  select '(' || string_agg(members, E' ||\n        ' order by piece) || ')' from (
    select (place - 1) / 40 as piece,
      format('jsonb_build_object(%s)', string_agg(format('%L, %s', p_names[place], p_values[place]),
      ', ' order by place)) as members
    from generate_subscripts(p_names, 1) as place group by 1) as pieces
$$;
comment on function ward_internal.object_expression(text[], text[]) is 'an expression that makes a jsonb object';

create or replace function ward_internal.entry_row(p_model uuid, p_record text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select case count(*)
    when 1 then min(case
      when type_id = any ('{int2, int4, int8, bpchar}'::regtype[]::oid[]) then value || '::text'
      else format('jsonb_build_array(%s) ->> 0', image) end)
    else format('jsonb_build_array(%s)::text', string_agg(
      -- blanks at its end are no part of the key
      case when type_id = 'bpchar'::regtype then value || '::text' else image end, ', ' order by key_place)) end
  from ward_internal.entry_columns(p_model, p_record) where key_place is not null
$$;
comment on function ward_internal.entry_row(uuid, text) is 'expression for the row id that entries have of a record';

create or replace function ward_internal.entry_image(p_model uuid, p_record text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select ward_internal.filled($body$
    v_row := @row@;
    if (@length@) <= 50000 then
      v_@record@ := @image@;
    else
      v_lengths := array[@lengths@];
      v_@record@ := @digests@;
      v_long := v_long || array(
        select name from unnest(@names@::text[], v_lengths) as c (name, length) where length > 1000);
    end if;$body$, jsonb_build_object(
      'record', p_record, 'row', ward_internal.entry_row(p_model, p_record),
      'names', quote_literal(array_agg(name order by number)),
      'length', coalesce(string_agg(length, ' + ' order by number), '0'),
      'lengths', string_agg(case when length is null then '0'
        else format('case when v_changed[%s] is false then 0 else %s end', number, length) end, ', ' order by number),
      'image', ward_internal.object_expression(array_agg(name order by number), array_agg(image order by number)),
      'digests', ward_internal.object_expression(array_agg(name order by number), array_agg(case
        when length is null then image
        else format('case when v_changed[%1$s] is false then null when v_lengths[%1$s] > 1000 then %2$s '
          'else to_jsonb(%3$s) end', number, digest, image) end order by number))))
  from ward_internal.entry_columns(p_model, p_record)
$$;
comment on function ward_internal.entry_image(uuid, text) is
  'statements of an audit writer that set v_row, v_old or v_new, the image of the record old or new, and v_long, the '
  'columns whose values are digests in it; of a long record only what changed is looked at';

create or replace function ward_internal.audit_writer_body(p_model uuid, p_tenant ward_internal.tenants) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp set quote_all_identifiers = off as $$
  select ward_internal.filled($body$
declare
  v_entry bytea := coalesce(ward_internal.begin_entry(@tenant@), ward.raise_refusal(''::bytea));
  v_context bytea := nullif(substr(v_entry, 9), '');
  v_changed boolean[];  -- of an update: which columns
  v_same text[];
  v_columns text;
  v_lengths bigint[];
  v_long text[];
  v_old jsonb;
  v_new jsonb;
  v_row text;
  v_detail jsonb;
  v_id bigint := ('x' || encode(substr(v_entry, 1, 8), 'hex'))::bit(64)::bigint;
  v_model uuid := @model@;
  -- PL/pgSQL keeps expressions ready from call to call, those inside a statement it does not
  v_transaction xid8 := pg_current_xact_id();
  v_statement bigint := (date_part('epoch', statement_timestamp()) * 1000000)::bigint - 946684800000000;
  v_operation text := lower(tg_op);
  v_role text;
  v_address text;
  v_application text;
begin
  if v_entry = '' then  -- resealing
    return null;
  end if;
  if tg_op = 'UPDATE' then
    v_changed := array[@changed@];
    if true <> all (v_changed) then
      return null;
    end if;
    v_same := array[@same@];
    v_columns := array_to_string(array[@columns@]::text[], ',');
  end if;
  if tg_op in ('INSERT', 'UPDATE') then@new@
  end if;
  if tg_op in ('UPDATE', 'DELETE') then@old@
  end if;
  if tg_op = 'UPDATE' then
    v_old := v_old - v_same;
    v_new := v_new - v_same;
  end if;
  if v_long <> '{}' then
    v_detail := jsonb_build_object('digests', (select jsonb_agg(distinct name) from unnest(v_long) as name));
  end if;
  if v_context is null then
    v_role := session_user;
    v_address := host(inet_client_addr());
    v_application := current_setting('application_name');
  end if;
  insert into @log@ (tenant_id, id, transaction, statement, model_id, kind, context, operation, row_id, columns, old,
      new, detail, database_role, address, application)
    values (@tenant@, v_id, v_transaction, v_statement, v_model, 'w', v_context, v_operation, v_row, v_columns, v_old,
      v_new, v_detail, v_role, v_address, v_application);
  return null;
end
$body$, jsonb_build_object(
    'tenant', quote_literal(p_tenant.id), 'log', format('%I.audit_log', p_tenant.schema_name),
    'model', quote_literal(p_model), 'changed', c.changed, 'same', c.same, 'columns', c.columns,
    'new', ward_internal.entry_image(p_model, 'new'), 'old', ward_internal.entry_image(p_model, 'old')))
  from (
    select string_agg(format('record_image_ne(row(%s), row(new.%s))', value, ward_internal.quoted_name(name::name)),
        ', ' order by number) as changed,
      string_agg(format('case when not v_changed[%s] then %L end', number, name), ', ' order by number) as same,
      string_agg(format('case when v_changed[%s] then %L end', number, format('%I', name)), ', ' order by number)
        as columns
    from ward_internal.entry_columns(p_model, 'old')) as c
$$;
comment on function ward_internal.audit_writer_body(uuid, ward_internal.tenants) is
  'body of the trigger function of a leaf that writes an entry per row';

create or replace function ward_internal.build_audit_trigger(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_tenant.schema_name);
  v_writer name := ward_internal.audit_writer((select face from ward_internal.models where id = p_model),
    p_tenant.schema_name);
  v_event record;
begin
  perform ward_internal.create_writer(p_tenant.schema_name, v_writer,
    ward_internal.audit_writer_body(p_model, p_tenant), (
      select string_agg(distinct ' set ' || setting, '')
      from ward_internal.entry_columns(p_model, ''), unnest(settings) as setting));
  for v_event in
    select * from (values
      ('ward_audit', 'insert or update or delete', 'row'),
      ('ward_audit_truncate', 'truncate', 'statement')) as e (trigger_name, events, level)
    where not exists (select from pg_trigger where tgrelid = v_leaf::regclass and tgname = trigger_name
      and tgenabled = 'A' and tgqual is null and tgnargs = 0
      and tgfoid = to_regprocedure(format('%I.%I()', p_tenant.schema_name, v_writer)))
  loop
    execute format('create or replace trigger %I after %s on %s for each %s execute function %I.%I()',
      v_event.trigger_name, v_event.events, v_leaf, v_event.level, p_tenant.schema_name, v_writer);
    execute format('alter table %s enable always trigger %I', v_leaf, v_event.trigger_name);
  end loop;
end
$$;
comment on function ward_internal.build_audit_trigger(uuid, ward_internal.tenants) is
  'makes the trigger function of a leaf that writes an entry per row, a definer: a role that may change a row of the '
  'leaf, by whatever mistake, may not write the log; and puts the triggers on the leaf, or puts them right: a restore '
  'of data alone leaves them enabled, but not ALWAYS';
