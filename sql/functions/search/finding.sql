-- What a search adds to a model: a column of tokens on the table and its leaves with an index, that the face's trigger
-- fills, and one argument of a function in each ward, find_patients, that returns the keys of the rows that match.
--
-- The function is a definer: no tenant reads tokens. It narrows by tokens, opens what is left, and returns what matches
-- then: so what it opened is journalled and counted as any read is. Its query stands under the leaf's policies and row
-- rules. Conditions on tokens are leakproof: PostgreSQL looks them up before the policies are asked.

create or replace function ward_internal.is_token_column(p_name name) returns boolean
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return p_name ~ '^ward_search_[0-9a-f]{12}$';
comment on function ward_internal.is_token_column(name) is
  'whether a column of a model table is one of tokens: its shape has none';

create or replace function ward_internal.find_name(p_face name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name('find_' || p_face);
comment on function ward_internal.find_name(name) is 'name of the function of each ward that finds rows of a face';

create or replace function ward_internal.finder_name(p_face name, p_schema name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name(p_face || '_find' || substr(p_schema, length('tenant_')));
comment on function ward_internal.finder_name(name, name) is
  'name of the definer behind a find function: patients_find_acme. Its own in each ward, as with '
  'ward_internal.writer_name: PostgreSQL reads all functions of a name, so those called find_patients are short';

create or replace function ward_internal.range_type(p_type oid) returns text
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return case
  when p_type = 'date'::regtype then 'daterange'
  when p_type = any ('{smallint, integer, bigint}'::regtype[]::oid[]) then 'int8range'
  when p_type = 'numeric'::regtype then 'numrange'
  when p_type = 'timestamp'::regtype then 'tsrange'
  when p_type = 'timestamptz'::regtype then 'tstzrange'
end;

create or replace function ward_internal.model_searches(p_model uuid)
returns table (
  place bigint, id uuid, number bigint, column_name name, type_id oid, column_id uuid, kind text, normaliser text,
  step text, stored name, argument text, argument_type text
)
language plpgsql stable strict rows 5 security invoker set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  return query
    select row_number() over (order by s.kind in ('unique_odd', 'unique_even'), c.number, s.kind), s.id, c.number,
      c.column_name, c.type_id, c.column_id,
      s.kind || '/' || s.version, s.normaliser || '/' || s.version, coalesce(trim_scale(s.step)::text, ''), s.stored,
      case when s.kind not in ('unique_odd', 'unique_even') then c.column_name end
        || case s.kind when 'exact' then '' when 'prefix' then '_starts' when 'words' then '_words'
        when 'substring' then '_contains' when 'phonetic' then '_sounds' else '_between' end,
      case s.kind when 'exact' then format_type(c.type_id, null) when 'range' then ward_internal.range_type(c.type_id)
        else 'text' end
    from (select row_number() over (order by m.place) as number, m.* from ward_internal.model_columns(p_model) as m
      where m.column_id is not null) as c
    join ward_internal.searches as s on s.column_id = c.column_id
    order by 1;
end
$$;
comment on function ward_internal.model_searches(uuid) is
  'the searches of a model; number: of the column among the sealed ones; argument: of the find function, null of those '
  'that are for a unique index only';

create or replace function ward_internal.search_facts(p_search ward_internal.searches) returns jsonb
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return jsonb_build_array(p_search.kind || '/' || p_search.version, p_search.normaliser || '/' || p_search.version,
  coalesce(trim_scale(p_search.step)::text, ''), quote_ident(p_search.stored));
comment on function ward_internal.search_facts(ward_internal.searches) is
  'kind, normaliser, step and column of a search, as resealing reads them';

create or replace function ward_internal.face_tokens(p_model uuid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select format($body$
    v_tokens := case when v_row is not null then coalesce(ward_internal.make_tokens(array[%s], %L),
      ward.raise_refusal('{}'::text[])) end;$body$,
    string_agg(format('case when v_kept[%s] then null else %s end', number,
      ward_internal.sealed_bytes('new.' || ward_internal.quoted_name(column_name), type_id)), E',\n      '
      order by place),
    jsonb_agg(jsonb_build_object('column', encode(uuid_send(column_id), 'hex'), 'kind', kind, 'normaliser', normaliser,
      'step', step) order by place))
  from ward_internal.model_searches(p_model) having count(*) > 0
$$;
comment on function ward_internal.face_tokens(uuid) is
  'PL/pgSQL that makes the tokens of the values of the row, but those that an update leaves; null without a search';

create or replace function ward_internal.find_body(p_model uuid, p_tenant ward_internal.tenants) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with head as materialized (
    select format('select %s from %s as l where (select coalesce(ward.require_context(%L), ward.raise_refusal(true)))',
      string_agg('l.' || ward_internal.quoted_name(column_name), ', ' order by key_place),
      ward_internal.leaf_name(p_model, p_tenant.schema_name), p_model) as query,
      ward_internal.row_expression(p_model, 'l') as row_id
    from ward_internal.model_columns(p_model) where key_place is not null
  ), search as (  -- as its query has the tokens and what is looked for: a statement of the body, or one of its own
    select s.*, bound, is_own, '$' || place as given,
      format(case kind when 'exact/1' then 'l.%I = any (%s)' when 'range/1' then 'l.%I operator(ward_internal.&&) %s'
        else 'l.%I operator(ward_internal.@>) %s' end, stored, tokens) as token,
      case kind when 'range/1' then format('%s::%s <@ (select %s[%s]::%s)',
          ward_internal.unseal_expression(value, type_id, format_type(type_id, null), column_id, row_id), bound, ranges,
          place, argument_type)
        else format('coalesce(ward_internal.is_found(%s, %L, %L, %s[%s]), ward.raise_refusal(true))',
          ward_internal.unseal_expression(value, 'text'::regtype, 'text', column_id, row_id), kind, normaliser,
          needles, place) end as opened
    from (select * from ward_internal.model_searches(p_model) where argument is not null) as s, head, lateral (
      select case argument_type when 'int8range' then 'bigint'::regtype else type_id::regtype end as bound,
        'l.' || ward_internal.quoted_name(column_name) as value) as v,
      (values (true, '$1', '$2', '$3'), (false, 'v_tokens', 'v_wanted', 'v_ranges')) as way (is_own, tokens, needles,
        ranges)
  )
  select ward_internal.filled($body$
declare
  v_wanted text[] := array[@needles@]::text[];
  v_ranges text[] := array[@ranges@]::text[];
  v_query text[];
  v_tokens bigint[];
begin
  v_query := coalesce(ward_internal.find_query(@searches@, v_wanted,
    ward_internal.check_searches(@tenant@, @ids@, v_wanted)), ward.raise_refusal('{}'::text[]));
  v_tokens := v_query[2];
  case v_query[3]  -- the one search that was used; planned once
@alone@
    else return query execute v_query[1] using v_tokens, v_wanted, v_ranges;
  end case;
end
$body$, jsonb_build_object(
    'tenant', quote_literal(p_tenant.id),
    'ids', quote_literal(array_agg(id order by place) filter (where is_own)),
    'needles', string_agg(case kind
      when 'range/1' then format('case when isempty(%1$s) then ''/'' when %1$s is not null then '
        'coalesce(%2$s, '''') || ''/'' || coalesce(%3$s, '''') end', given,
        ward_internal.canonical_expression(format('lower(%s)', given), bound),
        ward_internal.canonical_expression(format('upper(%s)', given), bound))
      else ward_internal.canonical_expression(given, argument_type::regtype) end, E',\n    ' order by place)
      filter (where is_own),
    'ranges', string_agg(case kind when 'range/1' then given || '::text' else 'null' end, ', ' order by place)
      filter (where is_own),
    'alone', string_agg(format('    when ''%s'' then return query %s and %s and %s;', place, query, token, opened),
      E'\n' order by place) filter (where not is_own),
    'searches', quote_literal(jsonb_build_object(
      'table', (select face from ward_internal.models where id = p_model), 'head', min(query),
      'searches', jsonb_agg(jsonb_build_object('place', place::text, 'id', id, 'name', column_name,
        'column', encode(uuid_send(column_id), 'hex'), 'kind', kind, 'normaliser', normaliser, 'step', step,
        'token', token, 'check', opened) order by place) filter (where is_own))::text)))
  from search, head
  having count(*) > 0
$$;
comment on function ward_internal.find_body(uuid, ward_internal.tenants) is
  'body of the find function of one ward; null without a search';

create or replace function ward_internal.find_call(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select format('begin return query select * from %I.%I(%s); end', p_schema,
    ward_internal.finder_name(face, p_schema),
  (select string_agg('$' || place, ', ' order by place) from ward_internal.model_searches(p_model)
    where argument is not null))
  from ward_internal.models where id = p_model);
comment on function ward_internal.find_call(uuid, name) is 'body of find_patients: a call of patients_find_acme';

create or replace function ward_internal.build_find(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_face name := (select face from ward_internal.models where id = p_model);
  v_name name := ward_internal.find_name(v_face);
  v_finder name := ward_internal.finder_name(v_face, p_tenant.schema_name);
  v_body text := ward_internal.find_body(p_model, p_tenant);
  v_call text := ward_internal.find_call(p_model, p_tenant.schema_name);
  v_arguments text;
  v_key text;
  v_function text;
begin
  perform ward_internal.drop_find(v_face, p_tenant.schema_name);
  if v_body is null then
    return;
  end if;
  v_arguments := (select string_agg(format('%I %s default null', argument, argument_type), ', ' order by place)
    from ward_internal.model_searches(p_model) where argument is not null);
  v_key := (select case count(*) when 1 then 'setof ' || min(type_name)
      else format('table (%s)', string_agg(format('%I %s', column_name, type_name), ', ' order by key_place)) end
    from ward_internal.model_columns(p_model) where key_place is not null);
  execute format('create function %I.%I(%s) returns %s language plpgsql stable security definer rows 1 parallel '
    'restricted set search_path = pg_catalog, pg_temp set enable_seqscan = off '
    'set plan_cache_mode = force_generic_plan as %L', p_tenant.schema_name, v_finder, v_arguments, v_key, v_body);
  execute format('create function %I.%I(%s) returns %s language plpgsql stable rows 1 parallel restricted as %L',
    p_tenant.schema_name, v_name, v_arguments, v_key, v_call);
  for v_function in
    select oid::regprocedure from pg_proc
    where proname in (v_name, v_finder) and pronamespace = p_tenant.schema_name::text::regnamespace
  loop
    execute format('revoke execute on function %s from public', v_function);
    execute format('alter function %s owner to ward_owner', v_function);
    execute format('grant execute on function %s to %I', v_function, p_tenant.login_role);
  end loop;
end
$$;
comment on function ward_internal.build_find(uuid, ward_internal.tenants) is
  'makes the find functions of one ward, or drops them where nothing of the model can be searched';

create or replace function ward_internal.is_find(p_function oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return exists (
  select from pg_proc as p
  join ward_internal.tenants as t on t.schema_name::text = p.pronamespace::regnamespace::text
  join ward_internal.models as m
    on p.proname in (ward_internal.find_name(m.face), ward_internal.finder_name(m.face, t.schema_name))
  where p.oid = p_function and pg_get_userbyid(p.proowner) = 'ward_owner' and case p.proname
    when ward_internal.find_name(m.face) then p.prosrc = ward_internal.find_call(m.id, t.schema_name)
      and not p.prosecdef and p.proconfig is null
    else p.prosrc = ward_internal.find_body(m.id, t) and p.prosecdef
      and p.proconfig = array['search_path=pg_catalog, pg_temp', 'enable_seqscan=off',
        'plan_cache_mode=force_generic_plan'] end);
comment on function ward_internal.is_find(oid) is
  'whether it is a find function of a ward, or the definer behind one, as it is made now';

create or replace function ward_internal.drop_find(p_face name, p_schema name) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_function regprocedure;
begin
  for v_function in
    select p.oid from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    where p.proname in (ward_internal.find_name(p_face), ward_internal.finder_name(p_face, p_schema))
      and n.nspname = p_schema
  loop
    execute format('drop function %s', v_function);
  end loop;
end
$$;
