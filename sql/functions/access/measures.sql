-- Delegation with summaries only: a payer reads counts that systems published, never a row and never a query of its
-- own.
--
-- The DBA registers measures, queries that count by group over model tables, and payers, tenants that may read them.
-- The ADMIN of a system, which is a tenant too, delegates measures to a payer, and publishes a closed period: the
-- queries run in its own ward on its own token, and their counts are held. wardkey access measures release then shows,
-- once for a measure and period, what src/wardkey/access/disclosure.py lets through, and forgets the counts of all
-- other cells. ward.measures has it for the payer as long as the delegation is in force; each system's journal says who
-- looked.
--
-- Lock order: delegations of the system, publications.

create or replace function ward_internal.admin_of_context(p_to text) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
begin
  if v_tenant is null then
    perform coalesce(ward_internal.begin_write('', ''), ward.raise_refusal(true));  -- WK001
  elsif ward.role() is distinct from 'ADMIN' then
    perform ward_internal.refuse('only an ADMIN may ' || p_to, 'use a token of that role');
  end if;
  return v_tenant;
end
$$;
comment on function ward_internal.admin_of_context(text) is
  'the tenant of an ADMIN''s context. Errors: WK001, WK212, which is an entry';

create or replace function ward_internal.report_to(p_tenants uuid[], p_operation text, p_detail text) returns boolean
language plpython3u volatile strict parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "report_to")(p_tenants, p_operation, p_detail)
$$;
comment on function ward_internal.report_to(uuid[], text, text) is
  'journals an event into the logs of other tenants, once a transaction and tenant: what the context did with what is '
  'theirs. It stays after a rollback';

-- What the DBA does.

create or replace function ward_internal.measure_fault(p_tree text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with called as (
    select p.* from regexp_matches(p_tree,
      ':(?:funcid|opfuncid|hashfuncid|negfuncid|aggfnoid|winfnoid|tsmhandler) (\d+)', 'g') as part
    join pg_proc as p on p.oid = part[1]::oid
  ), faults as (
    select format('it calls %s, which is no function of PostgreSQL''s own', oid::regprocedure) as fault from called
      where pronamespace <> 'pg_catalog'::regnamespace
    union all
    select format('it calls %s: what that returns does not follow from what it is given', oid::regprocedure) from called
      where provolatile = 'v' or provolatile = 's'
        and not proargtypes::oid[] && '{date, timestamp, timestamptz, interval}'::regtype[]::oid[]
    union all
    select format('it reads %s, which is neither a model table nor shared', c.oid::regclass)
      from regexp_matches(p_tree, ':relid (\d+)', 'g') as part join pg_class as c on c.oid = part[1]::oid
      where c.relnamespace <> to_regnamespace('ward_probe') and c.oid not in (select relation from ward_internal.shares)
    union all
    select 'it asks for the time or the user of the session' where p_tree ~ '\{SQLVALUEFUNCTION '
    union all
    select 'it locks rows' where p_tree ~ '\{ROWMARKCLAUSE '
  )
  select min(fault) from faults
$$;
comment on function ward_internal.measure_fault(text) is
  'what the parse tree of a view in schema ward_probe does that a measure may not, null if nothing. Stable functions '
  'are those of dates and times: measures are counted in UTC';

create or replace function ward_internal.check_measure(p_query text) returns text
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_query text;
  v_fault text;
  v_columns text[];
  v_face record;
begin
  -- views that look as faces do, on the shapes, which have the declared types and no row; nothing of it stays
  begin
    if strpos(p_query, ';') > 0 then
      raise syntax_error using message = 'it has a semicolon';
    end if;
    create schema ward_probe;
    for v_face in select face, shape from ward_internal.models loop
      execute format('create view ward_probe.%I as select * from %s', v_face.face, v_face.shape);
    end loop;
    create view ward_probe.period as select null::date as begins, null::date as ends;
    perform set_config('search_path', 'pg_catalog, ward_probe', true);
    execute 'create view ward_probe."the measure" as select * from (' || p_query || E'\n) as counted';
    v_query := rtrim(pg_get_viewdef('ward_probe."the measure"'::regclass), ';');
    v_fault := ward_internal.measure_fault((
      select ev_action::text from pg_rewrite where ev_class = 'ward_probe."the measure"'::regclass));
    v_columns := array(
      select attname::text from pg_attribute
      where attrelid = 'ward_probe."the measure"'::regclass and attnum > 0 and case
        when attname in ('numerator', 'complement')
          then atttypid = any ('{smallint, integer, bigint, numeric}'::regtype[])
        else atttypid = any ('{text, varchar, boolean, smallint, integer, bigint, date}'::regtype[]) end);
    if not v_columns @> '{numerator, complement}' or cardinality(v_columns) < 3
      or cardinality(v_columns) <> (select relnatts from pg_class where oid = 'ward_probe."the measure"'::regclass)
    then
      v_fault := 'it has to have integers numerator and complement, and one or more columns to group by: texts, '
        'integers, dates or booleans';
    end if;
    raise triggered_action_exception;
  exception
    when triggered_action_exception then
      null;
    when others then
      v_fault := sqlerrm;
  end;
  perform set_config('search_path', 'pg_catalog, pg_temp', true);
  if v_fault is not null then
    perform ward_internal.fail('invalid_measure', format('that query is no measure: %s', v_fault),
      'one SELECT over model tables by their names in the ward: group columns, numerator, complement; relation period '
      'has begins and ends');
  end if;
  return v_query;
end
$$;
comment on function ward_internal.check_measure(text) is
  'the query as PostgreSQL reads it. Error: WK263 it is no measure';

create or replace function ward.register_measure(p_name text, p_query text, p_floor integer default null) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_query text;
begin
  perform ward_internal.require_superuser();
  if (p_floor >= 11) is not true then
    perform ward_internal.fail('no_group_floor', 'a measure has a floor for its groups, of 11 or more',
      'p_floor => 11: no group with less in numerator or complement is shown');
  elsif (p_name ~ '^[a-z][a-z0-9_]{0,62}$') is not true
    or exists (select from ward_internal.measures where name = p_name)
  then
    perform ward_internal.fail('invalid_measure', 'that is no name for a measure, or one had it already',
      'lower-case letters, digits and underscores; what a name means does not change: give another query another one');
  end if;
  v_query := ward_internal.check_measure(coalesce(p_query, ''));
  insert into ward_internal.measures (name, query, group_floor) values (p_name, v_query, p_floor);
  perform ward_internal.log_event(ward_internal.master_id(), 'measure registered',
    jsonb_build_object('measure', p_name, 'query', v_query, 'floor', p_floor));
end
$$;
comment on function ward.register_measure(text, text, integer) is
  'declares what systems may count for payers: one SELECT that returns counts numerator and complement by its other '
  'columns, over model tables, by the names they have in wards, and shared tables; relation period has begins and '
  'ends, the first day and the day after the last. It may call PostgreSQL''s own functions only, none that is '
  'volatile. Register the finest groups once: that two measures count the same people by other groups is nothing '
  'wardkey knows. Errors: WK212, WK263, WK264 no floor of 11 or more';

create or replace function ward.remove_measure(p_name text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  update ward_internal.measures set removed_at = clock_timestamp() where name = p_name and removed_at is null;
  if not found then
    perform ward_internal.fail('unknown_object', 'there is no such measure',
      'list them: select * from ward.measure_definitions');
  end if;
  delete from ward_internal.delegations where measure = p_name;
  perform ward_internal.log_event(ward_internal.master_id(), 'measure removed', jsonb_build_object('measure', p_name));
end
$$;
comment on function ward.remove_measure(text) is
  'ends a measure with all delegations of it: nobody publishes or reads it any more. Its name stays taken. Errors: '
  'WK204, WK212';

create or replace function ward.register_payer(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  insert into ward_internal.payers (tenant_id) values (v_tenant.id) on conflict do nothing;
  if found then
    perform ward_internal.log_event(v_tenant.id, 'payer registered');
  end if;
end
$$;
comment on function ward.register_payer(text) is
  'lets systems delegate measures to this tenant; by itself it gives the tenant nothing to read. Errors: WK203, WK216';

create or replace function ward.remove_payer(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_slug);
begin
  delete from ward_internal.payers where tenant_id = v_tenant.id;
  if found then
    delete from ward_internal.delegations where payer_id = v_tenant.id;
    perform ward_internal.log_event(v_tenant.id, 'payer removed');
  end if;
end
$$;
comment on function ward.remove_payer(text) is
  'ends all delegations to this tenant, and that there may be any. Errors: WK203, WK216';

-- What a system's ADMIN does.

-- definer because delegations are nobody's to write but through here
create or replace function ward.delegate(p_payer text, p_measures text[]) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_system uuid := ward_internal.admin_of_context('delegate');
  v_payer uuid := (select t.id from ward_internal.payers as p join ward_internal.tenants as t on t.id = p.tenant_id
    where t.slug = p_payer and t.status = 'active' and t.id <> v_system);
begin
  if v_payer is null then
    perform ward_internal.fail('not_delegated', 'no payer of that name is registered',
      'the platform''s administrator registers payers: wardkey access delegation register');
  elsif coalesce(cardinality(p_measures), 0) = 0
    or exists (select unnest(p_measures) except select name from ward_internal.measures where removed_at is null)
  then
    perform ward_internal.fail('unknown_object', 'there is no such measure',
      'list them: select * from ward.measure_definitions');
  end if;
  insert into ward_internal.delegations (payer_id, system_id, measure, delegated_by)
    select distinct v_payer, v_system, measure, ward.subject() from unnest(p_measures) as measure
    on conflict do nothing;
  perform ward_internal.log_event(v_system, 'delegated', jsonb_build_object('payer', p_payer, 'measures', p_measures));
end
$$;
revoke execute on function ward.delegate(text, text[]) from public;
comment on function ward.delegate(text, text[]) is
  'for a system''s ADMIN: lets a payer read these measures of this ward, in ward.measures: what was and what will be '
  'published and released. Ends by ward.revoke_delegation. Errors: WK001, WK204 no such measure, WK212, WK267 no such '
  'payer';

-- definer because delegations are nobody's to write but through here
create or replace function ward.revoke_delegation(p_payer text, p_measures text[] default null) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_system uuid := ward_internal.admin_of_context('revoke a delegation');
  v_measures text[];
begin
  with gone as (
    delete from ward_internal.delegations
    where system_id = v_system and payer_id = (select id from ward_internal.tenants where slug = p_payer)
      and (p_measures is null or measure = any (p_measures))
    returning measure
  )
  select array_agg(measure order by measure) into v_measures from gone;
  if v_measures is null then
    perform ward_internal.fail('not_delegated', 'nothing of that is delegated',
      'look at what is: select * from ward.delegated');
  end if;
  perform ward_internal.log_event(v_system, 'delegation revoked',
    jsonb_build_object('payer', p_payer, 'measures', v_measures));
end
$$;
revoke execute on function ward.revoke_delegation(text, text[]) from public;
comment on function ward.revoke_delegation(text, text[]) is
  'for a system''s ADMIN: from its next transaction on the payer reads nothing of these measures, all if none are '
  'named, of this ward, nor a total that this ward is part of. Errors: WK001, WK212, WK267 nothing of that is '
  'delegated';

create or replace function ward_internal.run_measure(p_query text, p_schema name, p_period daterange)
returns table (group_values jsonb, numerator numeric, complement numeric)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp
set timezone = 'UTC' set datestyle = 'ISO' as $$
begin
  perform set_config('search_path', format('pg_catalog, %I, pg_temp', p_schema), true);
  return query execute format('with period (begins, ends) as (select %L::date, %L::date) '
    'select to_jsonb(m) - ''{numerator, complement}''::text[], m.numerator::numeric, m.complement::numeric '
    'from (%s) as m',
    lower(p_period), upper(p_period), p_query);
end
$$;
comment on function ward_internal.run_measure(text, name, daterange) is
  'what a measure counts in a ward, on the token of the context';

-- definer because what was counted is nobody's to write or read before it is released; the queries see what the token's
-- context does
create or replace function ward.publish_measures(p_period daterange, p_measures text[] default null) returns text[]
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_system uuid := ward_internal.admin_of_context('publish measures');
  v_schema name := (select schema_name from ward_internal.tenants where id = v_system);
  v_measures text[];
  v_measure ward_internal.measures;
  v_id uuid;
  v_taken text;
  v_message text;
begin
  if exists (
    select from ward_internal.tenant_access as a join ward_internal.sealed_columns as s on s.class = a.class
    where a.tenant_id = v_system and a.role = 'ADMIN' and a.access <> 'clear')
  then
    perform ward_internal.refuse('the policy hides columns from ADMIN: masks would be counted',
      'select ward.restore_policy(''ADMIN''), or wardkey access policy set');
  end if;
  if isempty(p_period) is not false or lower_inf(p_period) or upper_inf(p_period) or upper(p_period) = 'infinity'
    or lower(p_period) = '-infinity' or upper(p_period) > cast(statement_timestamp() at time zone 'UTC' as date)
  then
    perform ward_internal.fail('period_not_closed', 'that is no period that has ended',
      'give the first day and the day after the last: ''[2026-07-01,2026-10-01)''; today is not part of it');
  end if;
  with published as (
    update ward_internal.delegations set publications = publications + 1
    where system_id = v_system and (p_measures is null or measure = any (p_measures)) returning measure
  )
  select array_agg(distinct measure order by measure) into v_measures from published;
  if v_measures is null or not v_measures @> coalesce(p_measures, '{}') then
    perform ward_internal.fail('not_delegated', 'not all of that is delegated to a payer',
      'ward.delegate comes first; look at what is delegated: select * from ward.delegated');
  end if;
  lock table ward_internal.publications in row exclusive mode;  -- so that what is released now is seen below
  select measure into v_taken from ward_internal.publications
    where measure = any (v_measures) and period && p_period
      and (system_id = v_system or period = p_period and released_at is not null)
    order by 1 limit 1;
  if found then
    perform ward_internal.fail('already_published',
      format('measure %s of that period, or of a part of it, is published already', v_taken),
      'a period is published once and released once; name the measures that are not: ward.publish_measures(period, '
      'measures)');
  end if;
  for v_measure in select * from ward_internal.measures where name = any (v_measures) order by name loop
    insert into ward_internal.publications (system_id, measure, period, published_by)
      values (v_system, v_measure.name, p_period, ward.subject()) returning id into v_id;
    begin
      insert into ward_internal.measure_cells (publication_id, group_values, numerator, complement)
        select v_id, m.group_values, m.numerator::bigint, m.complement::bigint
        from ward_internal.run_measure(v_measure.query, v_schema, p_period) as m;
      if exists (select from ward_internal.measure_cells as c where c.publication_id = v_id
        and (c.numerator >= 0 and c.complement >= 0) is not true)
      then
        raise data_exception using message = 'a count is negative or missing';
      end if;
    exception when data_exception or syntax_error_or_access_rule_violation or integrity_constraint_violation then
      get stacked diagnostics v_message = returned_sqlstate;
      perform ward_internal.fail('invalid_counts',
        format('measure %s does not count in this ward (%s)', v_measure.name, v_message),
        'it returns each group once, with counts that are not negative; the administrator registers another one');
    end;
    delete from ward_internal.measure_cells where publication_id = v_id and numerator + complement = 0;
  end loop;
  perform ward_internal.log_event(v_system, 'measures published',
    jsonb_build_object('measures', v_measures, 'from', lower(p_period), 'to', upper(p_period)));
  return v_measures;
end
$$;
revoke execute on function ward.publish_measures(daterange, text[]) from public;
comment on function ward.publish_measures(daterange, text[]) is
  'for a system''s ADMIN: counts the measures that this ward delegated, all if none are named, for a period that has '
  'ended, and returns which. A payer reads them when the platform has released them, each group that is not too small. '
  'Errors: WK001, WK212, WK265 not closed, WK266 published or released already, WK267 not delegated, WK269 a measure '
  'does not count here';

-- The release: wardkey access measures release. The rules are in wardkey/access/disclosure.py.

create or replace function ward_internal.release_measure(
  p_measure text, p_period daterange, p_shown jsonb, p_totals jsonb
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_system uuid;
begin
  perform ward_internal.require_superuser();
  update ward_internal.measure_cells as c set numerator = null, complement = null
    from ward_internal.publications as p
    where p.id = c.publication_id and p.measure = p_measure and p.period = p_period and not exists (
      select from jsonb_to_recordset(p_shown) as s (system_id uuid, group_values jsonb)
      where s.system_id = p.system_id and s.group_values = c.group_values);
  insert into ward_internal.measure_totals (payer_id, measure, period, group_values, system_ids, numerator, complement)
    select payer_id, p_measure, p_period, group_values, system_ids, numerator, complement
    from jsonb_to_recordset(p_totals)
      as t (payer_id uuid, group_values jsonb, system_ids uuid[], numerator bigint, complement bigint);
  for v_system in
    update ward_internal.publications set released_at = clock_timestamp()
    where measure = p_measure and period = p_period returning system_id
  loop
    if exists (select from ward_internal.tenants where id = v_system and status not in ('shredding', 'shredded')) then
      perform ward_internal.log_event(v_system, 'measure released',
        jsonb_build_object('measure', p_measure, 'from', lower(p_period), 'to', upper(p_period)));
    end if;
  end loop;
end
$$;
comment on function ward_internal.release_measure(text, daterange, jsonb, jsonb) is
  'shows these cells and totals of a period, forgets the counts of all other cells, and logs it in each system; '
  'decides nothing. The caller holds the lock on publications';

create or replace function ward_internal.forget_measures(p_tenant uuid) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  delete from ward_internal.payers where tenant_id = p_tenant;
  delete from ward_internal.delegations where p_tenant in (payer_id, system_id);
  update ward_internal.measure_cells set numerator = null, complement = null
    where publication_id in (select id from ward_internal.publications where system_id = p_tenant);
$$;
comment on function ward_internal.forget_measures(uuid) is
  'what was counted of a tenant that goes, and who might read it';

-- What is read.

-- definer because nobody may read counts but through here; the context says whose delegations there are
create or replace function ward.read_measures()
returns table (
  measure text, first_day date, last_day date, system text, systems integer, group_values jsonb, numerator bigint,
  complement bigint, rate numeric
)
language plpgsql volatile rows 1000 security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_payer uuid := ward.tenant_id();
begin
  if v_payer is null then
    perform coalesce(ward_internal.begin_write('', ''), ward.raise_refusal(true));  -- WK001
  end if;
  perform coalesce(ward_internal.report_to(array(
      select distinct d.system_id from ward_internal.delegations as d
      join ward_internal.publications as p
        on p.system_id = d.system_id and p.measure = d.measure and p.released_at is not null
      where d.payer_id = v_payer
    ), 'measures_read', jsonb_build_object('payer', (select slug from ward_internal.tenants where id = v_payer))::text),
    ward.raise_refusal(true));
  return query
    with readable as (
      select d.system_id, d.measure, t.slug from ward_internal.delegations as d
      join ward_internal.tenants as t on t.id = d.system_id and t.status = 'active'
      where d.payer_id = v_payer
    ), counts as (
      select p.measure, p.period, r.slug, 1 as systems, c.group_values, c.numerator, c.complement
      from readable as r
      join ward_internal.publications as p
        on p.system_id = r.system_id and p.measure = r.measure and p.released_at is not null
      join ward_internal.measure_cells as c on c.publication_id = p.id and c.numerator is not null
      union all
      select t.measure, t.period, null, cardinality(t.system_ids), t.group_values, t.numerator, t.complement
      from ward_internal.measure_totals as t
      where t.payer_id = v_payer
        and t.system_ids <@ array(select r.system_id from readable as r where r.measure = t.measure)
    )
    select c.measure, lower(c.period), upper(c.period) - 1, c.slug, c.systems, c.group_values, c.numerator,
      c.complement, round(c.numerator::numeric / (c.numerator + c.complement), 4)
    from counts as c;
end
$$;
revoke execute on function ward.read_measures() from public;
comment on function ward.read_measures() is 'what ward.measures shows';

create or replace view ward.measures as select * from ward.read_measures();
comment on view ward.measures is
  'for a payer: what systems delegated to it, published and the platform released, a row a system and group; system is '
  'null for the sum over so many systems, group_values {} for all groups. What is not there is nobody, or is too '
  'little to be shown, or would tell what is. Each system''s log says who looked. Errors: WK001';

create or replace view ward.measure_definitions as
  select name, query, group_floor, registered_at from ward_internal.measures where removed_at is null;
comment on view ward.measure_definitions is 'the measures that there are, for everybody: what they count is no secret';

-- a barrier: a condition of the client's is not to see others' rows first
create or replace view ward.delegated with (security_barrier) as
  select t.slug as payer, d.measure, d.delegated_by, d.delegated_at, d.publications
  from ward_internal.delegations as d join ward_internal.tenants as t on t.id = d.payer_id
  where d.system_id = (select ward.tenant_id());
comment on view ward.delegated is 'what the context''s tenant delegated, and to whom';

create or replace view ward.delegations as
  select payer.slug as payer, system.slug as system, d.measure, d.delegated_by, d.delegated_at, d.publications
  from ward_internal.payers as p
  join ward_internal.tenants as payer on payer.id = p.tenant_id
  left join ward_internal.delegations as d on d.payer_id = p.tenant_id
  left join ward_internal.tenants as system on system.id = d.system_id;
comment on view ward.delegations is
  'payers, and who delegated what to them; a row without a system: nobody did. For operators';

create or replace view ward.publications as
  select p.measure, lower(p.period) as first_day, upper(p.period) - 1 as last_day, t.slug as system, p.published_by,
    p.published_at, p.released_at, c.cells, c.shown
  from ward_internal.publications as p
  left join ward_internal.tenants as t on t.id = p.system_id
  cross join lateral (
    select count(*) as cells, case when p.released_at is not null then count(numerator) end as shown
    from ward_internal.measure_cells where publication_id = p.id) as c;
comment on view ward.publications is
  'what systems published, whether it was released, and how many of its cells are shown; for operators';
