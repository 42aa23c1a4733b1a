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

create or replace function ward_internal.is_short(p_type oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return p_type = any ('{
    bool, int2, int4, int8, float4, float8, money, uuid, oid, name, date, time, timetz, timestamp, timestamptz,
      interval,
    inet, cidr, macaddr, macaddr8
  }'::regtype[]::oid[])
  or exists (select from pg_type where oid = p_type and typtype = 'e');
comment on function ward_internal.is_short(oid) is 'whether each value of the type has a short text';

create or replace function ward_internal.image_expression(p_value text, p_type oid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (
  select case
    -- where its highest bit is set, the text is no character
    when type_id = '"char"'::regtype then format('%s::"char"::int4', p_value)
    when ward_internal.is_short(type_id)
      or type_id = any ('{text, varchar, bpchar, bytea, numeric, jsonb}'::regtype[]::oid[])
      or exists (
        select from pg_type as t where t.oid = type_id and t.typcategory = 'A'
          and (ward_internal.is_short(t.typelem)
            or t.typelem = any ('{text, varchar, bpchar, bytea, numeric}'::regtype[]::oid[])))
      then p_value
    else format('%s::text', p_value)
  end
  from ward_internal.base_type(p_type) as type_id);
comment on function ward_internal.image_expression(text, oid) is
  'what stands for a value in old and new: itself where jsonb can hold all of the type''s values, else its text. A '
  'json text may hold what jsonb cannot';

create or replace function ward_internal.length_expression(p_value text, p_type oid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (
  select case
    when ward_internal.is_short(type_id) or type_id = '"char"'::regtype then null
    when type_id = any ('{text, varchar, bpchar, bytea}'::regtype[]::oid[])
      then format('coalesce(octet_length(%s), 0)', p_value)  -- without reading what is stored out of line
    else format('case when pg_column_size(%1$s) < 2000 and pg_column_compression(%1$s) is null '
      'then coalesce(octet_length(%1$s::text), 0) else coalesce(ward_internal.text_length(%1$s), 0) end', p_value)
  end
  from ward_internal.base_type(p_type) as type_id);
comment on function ward_internal.length_expression(text, oid) is
  'how many bytes the text of a value has; null where it is always few. Few bytes that are stored may be a long text: '
  '1e131071';

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
  'what stands for a long value in old and new: its length and SHA-256';

create or replace function ward_internal.digest(p_value text) returns jsonb
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return ward_internal.digest(convert_to(p_value, 'UTF8'));
comment on function ward_internal.digest(text) is 'the same of a text, in UTF-8';

create or replace function ward_internal.needed_settings(p_type oid) returns text[]
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (
  select case
    when type_id = 'bytea'::regtype then '{bytea_output = hex}'::text[]
    when type_id = any ('{float4, float8}'::regtype[]::oid[]) then '{extra_float_digits = 1}'
    when type_id = 'interval'::regtype then '{intervalstyle = postgres}'
    when type_id = 'timestamptz'::regtype then array['timezone = ''UTC''']
    when type_id = 'money'::regtype then array['lc_monetary = ''C''']
    when ward_internal.is_short(type_id)
      or type_id = any ('{text, varchar, bpchar, numeric, json, jsonb}'::regtype[]::oid[])
      then '{}'
    else array['bytea_output = hex', 'extra_float_digits = 1', 'intervalstyle = postgres', 'timezone = ''UTC''',
      'lc_monetary = ''C''', 'datestyle = ''ISO, YMD''', 'quote_all_identifiers = off']
  end
  from (
    select ward_internal.base_type(case when typcategory = 'A' and typelem <> 0 then typelem else oid end) as type_id
    from pg_type where oid = ward_internal.base_type(p_type)) as element);
comment on function ward_internal.needed_settings(oid) is
  'the settings on which texts of the type''s values depend, as they have to be';

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

create or replace function ward_internal.audit_expressions(p_model uuid, p_record text)
returns table (row_id text, length text, lengths text, image text, digests text)
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with col as (
    select c.place, c.key_place, c.column_name::text as name, c.type_id, value, stored_type,
      row_number() over (order by c.place) as number,
      ward_internal.image_expression(value, stored_type) as image, ward_internal.length_expression(value,
      stored_type) as length
    from ward_internal.model_columns(p_model) as c,
      lateral (select p_record || '.' || ward_internal.quoted_name(c.column_name) as value,
        case when c.column_id is null then c.type_id else 'bytea'::regtype end as stored_type) as v
  )
  select
    case count(key_place)
      when 1 then min(case
        when type_id = any ('{int2, int4, int8, bpchar}'::regtype[]::oid[]) then value || '::text'
        else format('jsonb_build_array(%s) ->> 0', image) end) filter (where key_place is not null)
      else format('jsonb_build_array(%s)::text', string_agg(
        -- blanks at its end are no part of the key
        case when type_id = 'bpchar'::regtype then value || '::text' else image end,
        ', ' order by key_place) filter (where key_place is not null))
    end,
    coalesce(string_agg(length, ' + ' order by place), '0'),
    format('array[%s]', string_agg(
      case when length is null then '0' else format('case when v_changed[%s] is false then 0 else %s end', number,
      length) end,
      ', ' order by place)),
    ward_internal.object_expression(array_agg(name order by place), array_agg(image order by place)),
    ward_internal.object_expression(array_agg(name order by place), array_agg(case
        when length is null then image
        else format('case when v_changed[%1$s] is false then null '
          'when v_lengths[%1$s] > 1000 then ward_internal.digest(%2$s) '
          'else to_jsonb(%3$s) end', number,
          case when ward_internal.base_type(stored_type) = 'bytea'::regtype then value else value || '::text' end,
          image)
      end order by place))
  from col
$$;
comment on function ward_internal.audit_expressions(uuid, text) is
  'of the record old or new of a leaf: the row id as the log has it; how many bytes its values have, in all and of '
  'each column that changed; its image, whole and with digests in place of long values';

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
  v_length bigint;
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
  if tg_op in ('INSERT', 'UPDATE') then
    v_row := @new_row@;
    v_length := @new_length@;
    if v_length <= 50000 then
      v_new := @new_image@;
    else
      v_lengths := @new_lengths@;
      v_new := @new_digests@;
      v_long := v_long || ward_internal.long_columns(@names@, v_lengths);
    end if;
  end if;
  if tg_op in ('UPDATE', 'DELETE') then
    v_row := @old_row@;
    v_length := @old_length@;
    if v_length <= 50000 then
      v_old := @old_image@;
    else
      v_lengths := @old_lengths@;
      v_old := @old_digests@;
      v_long := v_long || ward_internal.long_columns(@names@, v_lengths);
    end if;
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
    'tenant', quote_literal(p_tenant.id), 'log', format('%I.audit_log', p_tenant.schema_name), 'model',
    quote_literal(p_model),
    'names', quote_literal(c.names), 'changed', c.changed, 'same', c.same, 'columns', c.columns,
    'new_row', n.row_id, 'new_length', n.length, 'new_lengths', n.lengths, 'new_image', n.image, 'new_digests',
    n.digests,
    'old_row', o.row_id, 'old_length', o.length, 'old_lengths', o.lengths, 'old_image', o.image, 'old_digests',
    o.digests))
  from ward_internal.audit_expressions(p_model, 'new') as n, ward_internal.audit_expressions(p_model, 'old') as o, (
    select array_agg(column_name::text order by place) as names,
      string_agg(format('record_image_ne(row(old.%1$s), row(new.%1$s))', ward_internal.quoted_name(column_name)),
      ', ' order by place) as changed,
      string_agg(format('case when not v_changed[%s] then %L end', number, column_name), ', ' order by place) as same,
      string_agg(format('case when v_changed[%s] then %L end', number, format('%I', column_name)),
      ', ' order by place) as columns
    from (select row_number() over (order by place) as number,
      * from ward_internal.model_columns(p_model)) as numbered) as c
$$;
comment on function ward_internal.audit_writer_body(uuid, ward_internal.tenants) is
  'body of the trigger function of a leaf that writes an entry per row';

create or replace function ward_internal.long_columns(p_names text[], p_lengths bigint[]) returns text[]
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return (
  select coalesce(array_agg(name), '{}') from unnest(p_names, p_lengths) as c (name, length) where length > 1000);

create or replace function ward_internal.build_audit_writer(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_name name := ward_internal.audit_writer((select face from ward_internal.models where id = p_model),
    p_tenant.schema_name);
  v_role text := current_setting('role');
  v_body text := ward_internal.audit_writer_body(p_model, p_tenant);
  v_settings text := (
    select string_agg(distinct ' set ' || setting, '')
    from ward_internal.model_columns(p_model),
      unnest(ward_internal.needed_settings(case when column_id is null then type_id
      else 'bytea'::regtype end)) as setting);
begin
  -- made by its owner, whose default privileges are not PUBLIC's; replacing it leaves owner and privileges
  if not exists (select from pg_proc where proname = v_name and proargtypes = ''::oidvector
    and pronamespace = p_tenant.schema_name::text::regnamespace)
  then
    perform set_config('role', 'ward_owner', true);
  end if;
  execute format('create or replace function %I.%I() returns trigger language plpgsql volatile security definer '
    'set search_path = pg_catalog, pg_temp%s as %L', p_tenant.schema_name, v_name, v_settings, v_body);
  if current_setting('role') <> v_role then
    perform set_config('role', v_role, true);
  end if;
end
$$;
comment on function ward_internal.build_audit_writer(uuid, ward_internal.tenants) is
  'makes the trigger function of a leaf that writes an entry per row; a definer: a role that may change a row of the '
  'leaf, by whatever mistake, may not write the log';

create or replace function ward_internal.build_audit_trigger(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_tenant.schema_name);
  v_writer text := format('%I.%I()', p_tenant.schema_name,
    ward_internal.audit_writer((select face from ward_internal.models where id = p_model), p_tenant.schema_name));
  v_event record;
begin
  perform ward_internal.build_audit_writer(p_model, p_tenant);
  for v_event in
    select * from (values
      ('ward_audit', 'insert or update or delete', 'row'),
      ('ward_audit_truncate', 'truncate', 'statement')) as e (trigger_name, events, level)
    where not exists (select from pg_trigger where tgrelid = v_leaf::regclass and tgname = trigger_name
      and tgenabled = 'A' and tgfoid = to_regprocedure(v_writer) and tgqual is null and tgnargs = 0)
  loop
    execute format('create or replace trigger %I after %s on %s for each %s execute function %s', v_event.trigger_name,
      v_event.events, v_leaf, v_event.level, v_writer);
    execute format('alter table %s enable always trigger %I', v_leaf, v_event.trigger_name);
  end loop;
end
$$;
comment on function ward_internal.build_audit_trigger(uuid, ward_internal.tenants) is
  'puts the triggers on a leaf, or puts them right: a restore of data alone leaves them enabled, but not ALWAYS';
