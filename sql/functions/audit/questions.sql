-- What a compliance officer asks of the audit log. A tenant's ADMIN is told of its own log; a superuser names the log
-- by p_tenant: a slug, platform, or the id of a tenant that is gone. Nothing is opened here: sealed values in old and
-- new images are ciphertext. p_from is inclusive, p_to is not, null is no bound. Days are UTC's.
--
-- The questions are definers because no tenant may read the log's tables. The policy of the log shows their owner the
-- part of the context's tenant (ward_internal.create_audit_leaf).
--
-- Each login sets temp_file_limit to 0. What the log answers has no plaintext of a sealed column: sorting may use
-- files. The answer has to fit into work_mem, because it is still written to when it is read outside of the function;
-- so a question takes 512 MB at most, for the answer and for sorting it.

create or replace function ward_internal.is_operator() returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return (select rolsuper from pg_roles
  where rolname = coalesce(nullif(current_setting('role'), 'none'), session_user));
comment on function ward_internal.is_operator() is 'whether a superuser called the outermost function, also a definer';

create or replace function ward_internal.audit_reader(
  p_question text, p_about text, p_from timestamptz, p_to timestamptz, p_tenant text
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
begin
  if p_tenant is not null and ward_internal.is_operator() then
    return ward_internal.audit_tenant(p_tenant);
  elsif v_tenant is null then
    perform coalesce(ward_internal.begin_write('', ''), ward.raise_refusal(true));  -- WK001
  elsif p_tenant is not null then
    perform ward_internal.refuse('only a superuser names a log', 'leave p_tenant out: the log is that of the token');
  elsif ward.role() is distinct from 'ADMIN' then
    perform ward_internal.refuse('only an ADMIN may read the audit log', 'use a token of that role');
  end if;
  -- journalled, so that it stays when the transaction is rolled back
  if p_question <> 'export' then  -- which has an entry of its own
    perform coalesce(ward_internal.report_event('log_read', jsonb_build_object('question', p_question,
      'about', left(p_about, 200), 'from', p_from, 'to', p_to)::text), ward.raise_refusal(true));
  end if;
  return v_tenant;
end
$$;
comment on function ward_internal.audit_reader(text, text, timestamptz, timestamptz, text) is
  'the tenant whose log may be read. That a context reads it, and a refusal, are entries. Errors: WK001, WK203, WK212';

create or replace function ward_internal.audit_entries(
  p_tenant uuid, p_from timestamptz, p_to timestamptz, p_operations text[] default null, p_model uuid default null,
  p_row text default null, p_subject text default null
)
returns table (
  id bigint, at timestamptz, kind text, operation text, subject text, role text, purpose text, database_role text,
  address text, application text, table_name text, row_id text, columns text[], old jsonb, new jsonb, detail jsonb,
  context bytea, statement timestamptz, transaction xid8
)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp set work_mem = '64MB'
set enable_nestloop = off as $$  -- of a log that was never analyzed few rows are expected
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
begin
  if to_regclass(v_leaf) is null then
    return;
  end if;
  return query execute format($sql$
    select e.id, e.at, case e.kind when 'w' then 'write' when 'r' then 'read' else 'event' end, e.operation,
      coalesce(e.subject, l.subject), coalesce(e.role, l.role), coalesce(e.purpose, l.purpose),
      coalesce(e.database_role, l.database_role), coalesce(e.address, l.address),
      coalesce(e.application, l.application), coalesce(m.face::text, e.model_id::text), e.row_id,
      case when strpos(e.columns, '"') = 0 then string_to_array(e.columns, ',') else (
        select array_agg(coalesce(replace(c[1], '""', '"'), c[2]))
        from regexp_matches(e.columns, '"((?:[^"]|"")*)"|([^",]+)', 'g') as c) end,
      e.old, e.new, e.detail, e.context, '2000-01-01 00:00Z'::timestamptz + e.statement * interval '1 microsecond',
      e.transaction
    from %1$s as e
    left join ward_internal.models as m on m.id = e.model_id
    left join (
      select distinct on (context) context, subject, role, purpose, database_role, address, application from %1$s
      where kind = 'e' and operation = 'login' and context is not null and ($1 is null or at >= $1 - interval '2 days')
      order by context, id) as l on l.context = e.context
    where ($1 is null or e.at >= $1) and ($2 is null or e.at < $2) and ($3 is null or e.operation = any ($3))
      and ($4 is null or e.model_id = $4) and ($5 is null or e.row_id = $5 or e.row_id is null)
      and ($6 is null or coalesce(e.subject, l.subject) = $6)$sql$, v_leaf)
  using p_from, p_to, p_operations, p_model, p_row, p_subject;
end
$$;
comment on function ward_internal.audit_entries(uuid, timestamptz, timestamptz, text[], uuid, text, text) is
  'the tenant''s entries, in no order, each with who did it as its login says. No login lasts for more than a day. '
  'table_name is the face''s, or the model''s id when that is gone. The last arguments leave out others than they '
  'name, null leaves out none; of entries p_row leaves those that name no row alone, or many in their detail';

-- definer because of what stands above
create or replace function ward.audit_entries(
  p_from timestamptz default null, p_to timestamptz default null, p_tenant text default null,
  p_operations text[] default null
)
returns table (
  id bigint, at timestamptz, kind text, operation text, subject text, role text, purpose text, database_role text,
  address text, application text, table_name text, row_id text, columns text[], old jsonb, new jsonb, detail jsonb,
  context bytea, statement timestamptz, transaction xid8
)
language sql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '512MB' as $$
  select * from ward_internal.audit_entries(
    ward_internal.audit_reader('entries', p_operations::text, p_from, p_to, p_tenant), p_from, p_to, p_operations)
$$;
revoke execute on function ward.audit_entries(timestamptz, timestamptz, text, text[]) from public;
comment on function ward.audit_entries(timestamptz, timestamptz, text, text[]) is
  'the entries of a log from p_from to before p_to, in no order, of all operations or of those named; any may be left '
  'out. Refusals and values that failed their authentication tag: {refusal, tampered}, where detail has the SQLSTATE; '
  'of a refused login there is no subject, as its token was not to be believed. Sealed values are ciphertext: '
  'ward.unseal opens one, given the column''s id and the row''s. Errors, of all questions: WK001, WK203, WK212';

create or replace function ward_internal.rows_of(p_row text, p_detail jsonb) returns setof text
language sql stable rows 10 security invoker set search_path = pg_catalog, pg_temp as $$
  select p_row where p_detail -> 'rows' is null
  union all
  select n::text from jsonb_array_elements(p_detail -> 'rows') as part,
    generate_series((part ->> 0)::bigint, (part ->> 1)::bigint) as n where jsonb_typeof(part) = 'array'
  union all
  select part #>> '{}' from jsonb_array_elements(p_detail -> 'rows') as part where jsonb_typeof(part) <> 'array'
$$;
comment on function ward_internal.rows_of(text, jsonb) is
  'the ids of the rows that an entry of kind read names: its row_id, or rows of its detail: ids, and pairs of integers '
  'for all between them and themselves';

create or replace function ward_internal.names_row(p_detail jsonb, p_row text) returns boolean
language sql immutable security invoker set search_path = pg_catalog, pg_temp
return p_detail -> 'rows' ? p_row or p_row ~ '^(0|-?[1-9][0-9]{0,18})$' and exists (
  select from jsonb_array_elements(p_detail -> 'rows') as part
  where case jsonb_typeof(part) when 'array' then p_row::numeric between (part ->> 0)::numeric and (part ->> 1)::numeric
    else part = to_jsonb(p_row::numeric) end);
comment on function ward_internal.names_row(jsonb, text) is
  'whether rows of the detail of a read have the row: as ward_internal.rows_of, without making all of them';

create or replace function ward_internal.audit_model(p_tenant uuid, p_table text) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
  v_model uuid := (
    select id from ward_internal.models where p_table in (face::text, relation::text, id::text)
    order by p_table = face::text desc limit 1);
begin
  if v_model is null and to_regclass(v_leaf) is not null then  -- a model that is gone is called by its id
    execute format('select model_id from %s where model_id::text = $1 limit 1', v_leaf) into v_model using p_table;
  end if;
  if v_model is null then
    perform ward_internal.fail('not_in_the_log', 'no model table has that name, and the log knows none',
      format('model tables: %s', (select coalesce(string_agg(face, ', ' order by face), 'none')
        from ward_internal.models)));
  end if;
  return v_model;
end
$$;
comment on function ward_internal.audit_model(uuid, text) is
  'the model that entries of a table name: patients, clinic.patients. Errors: WK228 there is none';

-- definer because a superuser asks without a context, in which the policy of the leaf shows its owner no row
create or replace function ward_internal.audit_row(p_tenant uuid, p_model uuid, p_row text) returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_log text := ward_internal.audit_leaf(p_tenant);
  v_leaf text := (select ward_internal.leaf_name(p_model, schema_name) from ward_internal.tenants where id = p_tenant);
  v_row text := p_row;
  v_there boolean;
begin
  if to_regclass(v_leaf) is not null then
    begin
      execute (
        select format('select %s, exists (select from %s as l where (%s) = (%s)) from (select %s) as given',
          ward_internal.entry_row(p_model, 'given'), v_leaf, string_agg(format('l.%I', name), ', '),
          string_agg(format('given.%I', name), ', '), string_agg(format('(%s)::%s as %I', case parts when 1 then '$1'
            else format('($1::jsonb ->> %s)', key_place) end, format_type(type_id, -1), name), ', '))
        from (select *, count(*) over () as parts from ward_internal.entry_columns(p_model, '')
          where key_place is not null) as k)
      into v_row, v_there using p_row;
    exception when data_exception then
      v_there := false;
    end;
  end if;
  v_row := coalesce(v_row, p_row);
  if v_there is not true and to_regclass(v_log) is not null then
    execute format('select exists (select from %s where model_id = $1 and (row_id = $2
      or kind = ''r'' and ward_internal.names_row(detail, $2)))', v_log) into v_there using p_model, v_row;
  end if;
  if v_there is not true then
    perform ward_internal.fail('not_in_the_log', 'neither is there such a row, nor does the log know one',
      'a row is its primary key: 17, a uuid; a JSON array of several columns: [17, "a"]');
  end if;
  return v_row;
end
$$;
revoke execute on function ward_internal.audit_row(uuid, uuid, text) from public;
comment on function ward_internal.audit_row(uuid, uuid, text) is
  'a row''s id as entries have it: 17 for 017, a uuid in lower case. Errors: WK228 neither table nor log have the row';

-- definer because of what stands above
create or replace function ward.audit_coverage(
  p_table text default null, p_from timestamptz default null, p_to timestamptz default null, p_tenant text default null
)
returns table (kind text, begins timestamptz, ends timestamptz, table_name text, detail text)
language sql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '256MB' as $$
  with asked as materialized (
    select tenant, model, coalesce(p_to, statement_timestamp()) as ends,
      greatest(p_from, (select min(begins) from ward_internal.audit_months(tenant)), '-infinity') as begins
    from ward_internal.audit_reader('coverage', p_table, p_from, p_to, p_tenant) as tenant,
      lateral (select case when p_table is not null then ward_internal.audit_model(tenant, p_table) end) as m (model)
  ), told as materialized (
    select e.* from asked, ward_internal.audit_entries(tenant, null, null, '{audit_level, journal_gap}') as e
    where e.kind = 'event'
  ), levels as (
    select m.face::text as face, c.at as begins, c.level,
      lead(c.at) over (partition by m.id order by c.at, c.id) as ends
    from asked join ward_internal.models as m on model is null or model = m.id
    cross join lateral (
      select at, id, detail ->> 'to' as level from told where detail ->> 'model' = m.id::text
      union all
      select '-infinity', 0, coalesce((select detail ->> 'from' from told where detail ->> 'model' = m.id::text
        order by at, id limit 1), m.audit)) as c
  )
  select 'log', begins, ends, null, null from asked
  union all
  (select 'level', greatest(l.begins, a.begins), least(l.ends, a.ends), l.face, l.level
    from levels as l join asked as a on l.begins < a.ends and coalesce(l.ends, 'infinity') > a.begins
    where model is not null or l.level <> 'row' order by l.face, l.begins)
  union all
  (select 'gap', (t.detail ->> 'since')::timestamptz, t.at, null, t.detail ->> 'why'
    from told as t join asked as a on (t.detail ->> 'since')::timestamptz < a.ends and t.at > a.begins
    where operation = 'journal_gap' order by t.at)
  union all
  (select 'queries', min(e.at), max(e.at), e.table_name, count(*)::text
    from asked, ward_internal.audit_entries(tenant, p_from, p_to, '{query}', model) as e
    where model is not null and e.kind = 'read' group by e.table_name)
$$;
revoke execute on function ward.audit_coverage(text, timestamptz, timestamptz, text) from public;
comment on function ward.audit_coverage(text, timestamptz, timestamptz, text) is
  'how far an answer of the log reaches. log: from when to when it was looked at; level: how reads of the table were '
  'journalled, and when (without a table: of those not journalled row by row); gap: reads of that time may be lost, '
  'and why; queries: of the table, how many transactions queried it: what they saw of columns that are NULL or not '
  'sealed is not told by row. Errors: WK228 no such table';

-- definer because of what stands above
create or replace function ward.audit_acts(
  p_subject text default null, p_table text default null, p_row text default null, p_from timestamptz default null,
  p_to timestamptz default null, p_tenant text default null
)
returns table (
  at timestamptz, subject text, role text, purpose text, kind text, operation text, table_name text, rows bigint,
  row_ids text[], columns text[], database_role text, address text, application text, detail jsonb, ids bigint[]
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '256MB' as $$
declare
  v_tenant uuid := ward_internal.audit_reader('acts', concat_ws(' ', p_subject, p_table, p_row), p_from, p_to,
    p_tenant);
  v_model uuid := case when p_table is not null then ward_internal.audit_model(v_tenant, p_table) end;
  v_row text := case when p_row is not null then ward_internal.audit_row(v_tenant, v_model, p_row) end;
begin
  return query
    select min(e.at), e.subject, e.role, e.purpose, e.kind, e.operation, e.table_name, count(distinct r.id),
      (array_agg(distinct r.id) filter (where r.id is not null))[1:20],
      array_agg(distinct c.name order by c.name) filter (where c.name is not null), e.database_role, e.address,
      e.application, d.detail,
      (array_agg(distinct e.id order by e.id))[1:case when p_row is null then 20 else 2147483647 end]
    from ward_internal.audit_entries(v_tenant, p_from, p_to, null, v_model, v_row, p_subject) as e
    left join unnest(e.columns) as c (name) on true
    cross join lateral (select case when e.kind <> 'read' then e.detail end as detail) as d
    left join ward_internal.rows_of(coalesce(e.row_id, case when e.detail ? 'rows' then v_row end),
      case when e.kind = 'read' and v_row is null then e.detail end) as r (id) on true
    where v_row is null or (e.detail ? 'rows') is not true or ward_internal.names_row(e.detail, v_row)
    group by e.context, e.statement, e.subject, e.role, e.purpose, e.kind, e.operation, e.table_name, e.database_role,
      e.address, e.application, d.detail
    order by 1, min(e.id);
  if not found and p_subject is not null
    and not exists (select from ward_internal.audit_entries(v_tenant, null, null, p_subject => p_subject))
  then
    perform ward_internal.fail('not_in_the_log', 'nobody of that name is in the log',
      'a subject is spelled as in its tokens; what the log had of one before it was pruned is gone');
  end if;
end
$$;
revoke execute on function ward.audit_acts(text, text, text, timestamptz, timestamptz, text) from public;
comment on function ward.audit_acts(text, text, text, timestamptz, timestamptz, text) is
  'what a subject did, or what was done to a table or a row of it: a line a statement and table, with how many rows, '
  'and the ids of the first 20 rows and entries, of a row asked for those of all entries. Of a row, where operation is '
  'read: an accounting of disclosures, 45 CFR 164.528. row_ids is null where only statements are journalled: rows were '
  'read, and the one asked for may be among them. p_row: 17, a uuid, a JSON array. ward.audit_coverage says how far '
  'the answer reaches. Errors: WK228 no such subject, table, row';

-- definer because of what stands above
create or replace function ward.audit_of_key(
  p_version integer default null, p_from timestamptz default null, p_to timestamptz default null,
  p_tenant text default null
)
returns table (at timestamptz, until timestamptz, operation text, version text, who text, times bigint, detail jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '256MB' as $$
declare
  v_tenant uuid := ward_internal.audit_reader('of_key', p_version::text, p_from, p_to, p_tenant);
  v_steps text[] := '{provisioned, requested, rotated, rewrapped, unopened, paused, suspended, resumed, retired,
    destroyed, readmitted, shredding, shredded, key_released}';
begin
  return query
    select min(e.at), max(e.at), e.operation, e.detail ->> 'version', coalesce(e.subject, e.database_role), count(*),
      (array_agg(e.detail order by e.id))[1]
    from ward_internal.audit_entries(v_tenant, p_from, p_to, v_steps) as e
    where p_version is null or p_version::text in (e.detail ->> 'version', e.detail ->> 'from', e.detail ->> 'to')
    group by e.operation, e.detail ->> 'version', coalesce(e.subject, e.database_role),
      case e.operation when 'key_released' then date_trunc('day', e.at, 'UTC')::text else e.id::text end
    order by 1;
  if not found and p_version is not null and not exists (
    select from ward_internal.audit_entries(v_tenant, null, null, v_steps) as e
    where p_version::text in (e.detail ->> 'version', e.detail ->> 'from', e.detail ->> 'to'))
  then
    perform ward_internal.fail('not_in_the_log', 'the log knows no such version of the key',
      'list them: wardkey keys status');
  end if;
end
$$;
revoke execute on function ward.audit_of_key(int4, timestamptz, timestamptz, text) from public;
comment on function ward.audit_of_key(integer, timestamptz, timestamptz, text) is
  'what happened to the tenant''s key, or one version: its life step by step, releases a line a day and subject. While '
  'a tenant is suspended its key is released to nobody. Errors: WK228 no such version';

-- definer because of what stands above
create or replace function ward.audit_activity(
  p_from timestamptz default null, p_to timestamptz default null, p_tenant text default null
)
returns table (hour timestamptz, subject text, role text, reads bigint, writes bigint, events bigint)
language sql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '256MB' as $$
  select date_trunc('hour', e.at, 'UTC'), coalesce(e.subject, e.database_role), e.role,
    count(distinct (e.table_name, r.id, e.statement)) filter (where e.operation = 'read'),
    count(*) filter (where e.kind = 'write'), count(*) filter (where e.kind = 'event')
  from ward_internal.audit_entries(
    ward_internal.audit_reader('activity', null, p_from, p_to, p_tenant), p_from, p_to) as e
  left join ward_internal.rows_of(e.row_id, case when e.kind = 'read' then e.detail end) as r (id) on true
  group by 1, 2, 3 order by 1, 2
$$;
revoke execute on function ward.audit_activity(timestamptz, timestamptz, text) from public;
comment on function ward.audit_activity(timestamptz, timestamptz, text) is
  'rows read and written and events, by hour and subject (or database role, where nobody was logged in)';

-- definer because of what stands above
create or replace function ward.audit_anomalies(
  p_from timestamptz default null, p_to timestamptz default null, p_score numeric default 5, p_tenant text default null
)
returns table (subject text, day date, rows bigint, usual numeric, spread numeric, days bigint, score numeric)
language sql volatile security definer set search_path = pg_catalog, pg_temp
set temp_file_limit = -1 set work_mem = '256MB' as $$
  with per_day as materialized (
    select e.subject, (e.at at time zone 'UTC')::date as day, count(distinct (e.table_name, r.id)) as rows
    from ward_internal.audit_reader('anomalies', null, p_from, p_to, p_tenant) as tenant,
        ward_internal.audit_entries(tenant, p_from - interval '90 days', p_to, '{read}') as e
    left join ward_internal.rows_of(e.row_id, e.detail) as r (id) on true
    where e.subject is not null group by 1, 2
  ), pairs as (
    select d.*, o.rows as others from per_day as d join per_day as o
      on o.subject = d.subject and o.day <> d.day and o.day between d.day - 90 and d.day + 90
    where p_from is null or d.day >= (p_from at time zone 'UTC')::date
  ), medians as (
    select p.subject, p.day, p.rows, count(*) as days, percentile_cont(0.5) within group (order by others) as median
    from pairs as p group by 1, 2, 3 having count(*) >= 5
  ), scored as (
    -- 1.4826: a median absolute deviation as a standard deviation; who reads the same each day may read a few more
    select m.*, greatest(1.4826 * percentile_cont(0.5) within group (order by abs(p.others - m.median)),
      0.1 * m.median, 1) as spread
    from medians as m join pairs as p using (subject, day) group by m.subject, m.day, m.rows, m.days, m.median
  )
  select s.subject, s.day, s.rows, round(median::numeric, 1), round(s.spread::numeric, 1), s.days,
    round(((s.rows - median) / s.spread)::numeric, 1)
  from scored as s where (s.rows - median) / s.spread >= p_score and s.rows >= 2 * median
  order by (s.rows - median) / s.spread desc, s.subject, s.day
$$;
revoke execute on function ward.audit_anomalies(timestamptz, timestamptz, numeric, text) from public;
comment on function ward.audit_anomalies(timestamptz, timestamptz, numeric, text) is
  'days on which a subject read far more different rows than is usual for it: above the median of its other days '
  '(within 90 days, at least 5 of them) by p_score times their median absolute deviation, scaled to a standard '
  'deviation. Median and deviation hold though some of those days were unusual too. Nothing is said of who has too few '
  'days, nor of slow growth';
