-- What a compliance officer asks of the audit log. Each question is two functions: ward.audit_… is for a tenant's ADMIN and
-- tells of its own log only; ward_internal.audit_… takes the tenant first and is for operators (wardkey audit).
--
-- Nothing is opened here: sealed values in old and new images are ciphertext. Times without a bound: p_from is inclusive,
-- p_to is not, null is no bound. Days are UTC's.

create or replace function ward_internal.audit_entries(p_tenant uuid, p_from timestamptz, p_to timestamptz)
returns table (
  id bigint, at timestamptz, kind text, operation text, subject text, role text, purpose text, database_role text,
  address text, application text, table_name text, row_id text, columns text[], old jsonb, new jsonb, detail jsonb,
  context bytea, statement timestamptz, transaction xid8
)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
begin
  if to_regclass(v_leaf) is null then
    return;
  end if;
  return query execute format($sql$
    select e.id, e.at, case e.kind when 'w' then 'write' when 'r' then 'read' else 'event' end, e.operation,
      coalesce(e.subject, l.subject), coalesce(e.role, l.role), coalesce(e.purpose, l.purpose),
      coalesce(e.database_role, l.database_role), coalesce(e.address, l.address), coalesce(e.application, l.application),
      coalesce(m.face::text, e.model_id::text), e.row_id,
      case when strpos(e.columns, '"') = 0 then string_to_array(e.columns, ',') else (
        select array_agg(coalesce(replace(c[1], '""', '"'), c[2]))
        from regexp_matches(e.columns, '"((?:[^"]|"")*)"|([^",]+)', 'g') as c) end,
      e.old, e.new, e.detail, e.context, '2000-01-01 00:00Z'::timestamptz + e.statement * interval '1 microsecond',
      e.transaction
    from %1$s as e
    left join ward_internal.models as m on m.id = e.model_id
    left join (
      select distinct on (context) * from %1$s
      where kind = 'e' and operation = 'login' and context is not null and ($1 is null or at >= $1 - interval '2 days')
      order by context, id) as l on l.context = e.context
    where ($1 is null or e.at >= $1) and ($2 is null or e.at < $2)$sql$, v_leaf)
  using p_from, p_to;
end
$$;
comment on function ward_internal.audit_entries(uuid, timestamptz, timestamptz) is
  'the tenant''s entries, in no order, each with who did it as its login says. No login lasts for more than a day. table_name '
  'is the face''s, or the model''s id when that is gone';

create or replace function ward_internal.audit_table(p_table text) returns text
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce((select face::text from ward_internal.models where p_table in (face::text, relation::text, id::text)), p_table)
$$;
comment on function ward_internal.audit_table(text) is 'what entries call a table: patients for clinic.patients';

create or replace function ward_internal.audit_reads_of(
  p_tenant uuid, p_table text, p_row text, p_from timestamptz, p_to timestamptz
)
returns table (
  at timestamptz, subject text, role text, purpose text, columns text[], row_id text, database_role text, address text,
  application text
)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select min(e.at), e.subject, e.role, e.purpose, array_agg(distinct c.name order by c.name), e.row_id, e.database_role,
    e.address, e.application
  from ward_internal.audit_entries(p_tenant, p_from, p_to) as e
  left join unnest(e.columns) as c (name) on true
  where e.kind = 'read' and e.table_name = ward_internal.audit_table(p_table) and (e.row_id = p_row or e.row_id is null)
  group by e.context, e.statement, e.subject, e.role, e.purpose, e.row_id, e.database_role, e.address, e.application
  order by 1, min(e.id)
$$;
comment on function ward_internal.audit_reads_of(uuid, text, text, timestamptz, timestamptz) is
  'who read a row, when, which columns and what for: a line a statement. row_id is null where the table''s level is statement: '
  'rows were read, and this one may be among them';

create or replace function ward_internal.audit_acts_of(p_tenant uuid, p_subject text, p_from timestamptz, p_to timestamptz)
returns table (
  at timestamptz, kind text, operation text, table_name text, rows bigint, row_ids text[], columns text[], role text,
  purpose text, address text, application text, detail jsonb
)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select min(e.at), e.kind, e.operation, e.table_name, count(distinct e.row_id),
    (array_agg(distinct e.row_id) filter (where e.row_id is not null))[1:20], array_agg(distinct c.name order by c.name)
      filter (where c.name is not null), e.role, e.purpose, e.address, e.application, e.detail
  from ward_internal.audit_entries(p_tenant, p_from, p_to) as e
  left join unnest(e.columns) as c (name) on true
  where e.subject = p_subject
  group by e.context, e.statement, e.kind, e.operation, e.table_name, e.role, e.purpose, e.address, e.application, e.detail
  order by 1, min(e.id)
$$;
comment on function ward_internal.audit_acts_of(uuid, text, timestamptz, timestamptz) is
  'what a subject did: a line a statement and table, with how many rows and the ids of the first 20';

create or replace function ward_internal.audit_refusals(p_tenant uuid, p_from timestamptz, p_to timestamptz)
returns table (
  at timestamptz, operation text, subject text, role text, database_role text, address text, application text, detail jsonb
)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select at, operation, subject, role, database_role, address, application, detail
  from ward_internal.audit_entries(p_tenant, p_from, p_to) where operation ~ '^(refus|tamper)' order by at, id
$$;
comment on function ward_internal.audit_refusals(uuid, timestamptz, timestamptz) is
  'who was refused and why (detail: the SQLSTATE), and values that failed their authentication tag. Of a refused login there '
  'is no subject: its token was not to be believed';

create or replace function ward_internal.audit_of_key(p_tenant uuid, p_version integer, p_from timestamptz, p_to timestamptz)
returns table (at timestamptz, until timestamptz, operation text, version text, who text, times bigint, detail jsonb)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select min(e.at), max(e.at), e.operation, e.detail ->> 'version', coalesce(e.subject, e.database_role), count(*),
    (array_agg(e.detail order by e.id))[1]
  from ward_internal.audit_entries(p_tenant, p_from, p_to) as e
  where e.operation in ('provisioned', 'requested', 'rotated', 'rewrapped', 'unopened', 'paused', 'suspended', 'resumed',
      'retired', 'destroyed', 'readmitted', 'shredding', 'shredded', 'key_released')
    and (p_version is null or p_version::text in (e.detail ->> 'version', e.detail ->> 'from', e.detail ->> 'to'))
  group by e.operation, e.detail ->> 'version', coalesce(e.subject, e.database_role),
    case e.operation when 'key_released' then date_trunc('day', e.at, 'UTC')::text else e.id::text end
  order by 1
$$;
comment on function ward_internal.audit_of_key(uuid, integer, timestamptz, timestamptz) is
  'what happened to the tenant''s key, or one version: its life step by step, releases a line a day and subject. While a tenant is '
  'suspended its key is released to nobody';

create or replace function ward_internal.audit_activity(p_tenant uuid, p_from timestamptz, p_to timestamptz)
returns table (hour timestamptz, subject text, role text, reads bigint, writes bigint, events bigint)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select date_trunc('hour', at, 'UTC'), coalesce(subject, database_role), role,
    count(distinct (table_name, row_id, statement)) filter (where kind = 'read'), count(*) filter (where kind = 'write'),
    count(*) filter (where kind = 'event')
  from ward_internal.audit_entries(p_tenant, p_from, p_to) group by 1, 2, 3 order by 1, 2
$$;
comment on function ward_internal.audit_activity(uuid, timestamptz, timestamptz) is
  'rows read and written and events, by hour and subject (or database role, where nobody was logged in)';

create or replace function ward_internal.audit_anomalies(
  p_tenant uuid, p_from timestamptz, p_to timestamptz, p_score numeric default 5
)
returns table (subject text, day date, rows bigint, usual numeric, spread numeric, days bigint, score numeric, explanation text)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  with per_day as materialized (
    select subject, (at at time zone 'UTC')::date as day, count(distinct (table_name, row_id)) as rows
    from ward_internal.audit_entries(p_tenant, p_from - interval '90 days', p_to)
    where kind = 'read' and subject is not null group by 1, 2
  ), compared as (
    select d.*, m.days, m.median, (
        select percentile_cont(0.5) within group (order by abs(o.rows - m.median)) from per_day as o
        where o.subject = d.subject and o.day <> d.day and o.day between d.day - 90 and d.day + 90) as deviation
    from per_day as d, lateral (
      select count(*) as days, percentile_cont(0.5) within group (order by o.rows) as median from per_day as o
      where o.subject = d.subject and o.day <> d.day and o.day between d.day - 90 and d.day + 90) as m
    where p_from is null or d.day >= (p_from at time zone 'UTC')::date
  ), scored as (
    -- 1.4826: a median absolute deviation as a standard deviation; who reads the same each day may read a few more
    select *, greatest(1.4826 * deviation, 0.1 * median, 1) as spread from compared where days >= 5
  )
  select subject, day, rows, round(median::numeric, 1), round(spread::numeric, 1), days,
    round(((rows - median) / spread)::numeric, 1),
    format('read %s rows on %s; on its %s other days around it the median is %s, and days differ from that by %s: this day is '
      '%s times that above', rows, day, days, round(median::numeric, 1), round(spread::numeric, 1),
      round(((rows - median) / spread)::numeric, 1))
  from scored
  where (rows - median) / spread >= p_score and rows >= 2 * median
  order by (rows - median) / spread desc, subject, day
$$;
comment on function ward_internal.audit_anomalies(uuid, timestamptz, timestamptz, numeric) is
  'days on which a subject read far more different rows than is usual for it: above the median of its other days (within 90 '
  'days, at least 5 of them) by p_score times their median absolute deviation, scaled to a standard deviation. Median and '
  'deviation hold though some of those days were unusual too. Nothing is said of who has too few days, nor of slow growth';

-- The same for a tenant's ADMIN.

create or replace function ward_internal.audit_reader() returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
begin
  if v_tenant is null then
    perform ward_internal.begin_write('');  -- says so: WK001
  elsif ward.role() is distinct from 'ADMIN' then
    perform ward_internal.refuse('only an ADMIN may read the audit log', 'use a token of that role');
  end if;
  return v_tenant;
end
$$;
comment on function ward_internal.audit_reader() is 'the tenant whose log the context may read; a refusal is journalled. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_entries(p_from timestamptz default null, p_to timestamptz default null)
returns table (
  id bigint, at timestamptz, kind text, operation text, subject text, role text, purpose text, database_role text,
  address text, application text, table_name text, row_id text, columns text[], old jsonb, new jsonb, detail jsonb,
  context bytea, statement timestamptz, transaction xid8
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_entries(ward_internal.audit_reader(), p_from, p_to);
end
$$;
revoke execute on function ward.audit_entries(timestamptz, timestamptz) from public;
comment on function ward.audit_entries(timestamptz, timestamptz) is
  'for a tenant''s ADMIN: the entries of its own log from p_from to before p_to, in no order; p_to, or both, may be left out. '
  'Sealed values are ciphertext: ward.unseal opens one, given the column''s id and the row''s. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_reads_of(
  p_table text, p_row text, p_from timestamptz default null, p_to timestamptz default null
)
returns table (
  at timestamptz, subject text, role text, purpose text, columns text[], row_id text, database_role text, address text,
  application text
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_reads_of(ward_internal.audit_reader(), p_table, p_row, p_from, p_to);
end
$$;
revoke execute on function ward.audit_reads_of(text, text, timestamptz, timestamptz) from public;
comment on function ward.audit_reads_of(text, text, timestamptz, timestamptz) is
  'for a tenant''s ADMIN: who read a row, when, which columns, what for (an accounting of disclosures, 45 CFR 164.528), a line '
  'a statement; row_id is null where only statements are journalled. p_row: 17, a uuid, a JSON array. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_acts_of(
  p_subject text, p_from timestamptz default null, p_to timestamptz default null
)
returns table (
  at timestamptz, kind text, operation text, table_name text, rows bigint, row_ids text[], columns text[], role text,
  purpose text, address text, application text, detail jsonb
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_acts_of(ward_internal.audit_reader(), p_subject, p_from, p_to);
end
$$;
revoke execute on function ward.audit_acts_of(text, timestamptz, timestamptz) from public;
comment on function ward.audit_acts_of(text, timestamptz, timestamptz) is
  'for a tenant''s ADMIN: what a subject did, a line a statement and table, with the ids of its first 20 rows. '
  'Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_refusals(p_from timestamptz default null, p_to timestamptz default null)
returns table (
  at timestamptz, operation text, subject text, role text, database_role text, address text, application text, detail jsonb
)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_refusals(ward_internal.audit_reader(), p_from, p_to);
end
$$;
revoke execute on function ward.audit_refusals(timestamptz, timestamptz) from public;
comment on function ward.audit_refusals(timestamptz, timestamptz) is
  'for a tenant''s ADMIN: who was refused and why, and values that were tampered with. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_of_key(
  p_version integer default null, p_from timestamptz default null, p_to timestamptz default null
)
returns table (at timestamptz, until timestamptz, operation text, version text, who text, times bigint, detail jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_of_key(ward_internal.audit_reader(), p_version, p_from, p_to);
end
$$;
revoke execute on function ward.audit_of_key(int4, timestamptz, timestamptz) from public;
comment on function ward.audit_of_key(integer, timestamptz, timestamptz) is
  'for a tenant''s ADMIN: what happened to its key, or to one version of it. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_activity(p_from timestamptz default null, p_to timestamptz default null)
returns table (hour timestamptz, subject text, role text, reads bigint, writes bigint, events bigint)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_activity(ward_internal.audit_reader(), p_from, p_to);
end
$$;
revoke execute on function ward.audit_activity(timestamptz, timestamptz) from public;
comment on function ward.audit_activity(timestamptz, timestamptz) is
  'for a tenant''s ADMIN: rows read and written and events, by hour and subject. Errors: WK001, WK212';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_anomalies(
  p_from timestamptz default null, p_to timestamptz default null, p_score numeric default 5
)
returns table (subject text, day date, rows bigint, usual numeric, spread numeric, days bigint, score numeric, explanation text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  return query select * from ward_internal.audit_anomalies(ward_internal.audit_reader(), p_from, p_to, p_score);
end
$$;
revoke execute on function ward.audit_anomalies(timestamptz, timestamptz, numeric) from public;
comment on function ward.audit_anomalies(timestamptz, timestamptz, numeric) is
  'for a tenant''s ADMIN: days on which a subject read far more rows than is usual for it, each explained; see '
  'ward_internal.audit_anomalies. Errors: WK001, WK212';
