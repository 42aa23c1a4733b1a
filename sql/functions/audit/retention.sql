-- How long an audit log is kept. Six years by policy (45 CFR 164.316(b)(2)(i)), longer if audit_retention says so, and
-- while a legal hold is on it. Then the oldest months are pruned, by wardkey audit prune.
--
-- Pruned is what a signed checkpoint covers: it stays, with the frontier of its tree, and the log goes on from there.
-- Entries of the months that go are all below it; where one is not, or was never sealed, its month stays. That it was
-- done is an entry of the log, and a verifier asks for it: a log without its beginning and without that entry was cut.

create or replace function ward_internal.audit_tenant(p_tenant text) returns uuid
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_id uuid := coalesce((select id from ward_internal.tenants where slug = p_tenant),
    case p_tenant when 'platform' then ward_internal.master_id() end);
begin
  if v_id is null and p_tenant ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
    and to_regclass(ward_internal.audit_leaf(p_tenant::uuid)) is not null
  then
    return p_tenant;
  elsif v_id is null then
    perform ward_internal.fail('unknown_tenant', 'no tenant has that slug, and no audit log that id',
      'list them: select slug from ward.tenants; of one that was dropped, give the id');
  end if;
  return v_id;
end
$$;
comment on function ward_internal.audit_tenant(text) is
  'whose log: a slug, platform, or the id of a tenant that is gone. Errors: WK203';

create or replace function ward_internal.audit_retention() returns interval
language sql stable security invoker set search_path = pg_catalog, pg_temp
return make_interval(days => coalesce(
  (select value::integer from ward_internal.settings where name = 'audit_retention'), 2192));
comment on function ward_internal.audit_retention() is 'how long entries are kept: 2192 days are six years';

create or replace function ward.hold_audit(p_tenant text, p_matter text, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.audit_tenant(p_tenant);
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_matter);
  perform ward_internal.check_reason(p_reason);
  insert into ward_internal.audit_holds (tenant_id, matter, reason, placed_by)
    values (v_tenant, p_matter, p_reason, session_user) on conflict (tenant_id, matter) do nothing;
  if found then
    perform ward_internal.log_event(v_tenant, 'log held', jsonb_build_object('matter', p_matter, 'reason', p_reason));
  end if;
end
$$;
comment on function ward.hold_audit(text, text, text) is
  'puts a legal hold on a tenant''s log, named by its matter; a log may have several. Until each is released nothing '
  'of the log is pruned, and the tenant is not shredded or dropped nor a key of it destroyed: that would shut sealed '
  'values in it. p_tenant: a slug, platform, the id of one that is gone. Repeatable. Errors: WK203, WK212';

create or replace function ward.release_audit(p_tenant text, p_matter text, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.audit_tenant(p_tenant);
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_reason);
  delete from ward_internal.audit_holds where tenant_id = v_tenant and matter = p_matter;
  if not found then
    perform ward_internal.fail('unknown_object', 'no hold of that matter is on the log',
      'list them: select * from ward.audit_holds');
  end if;
  perform ward_internal.log_event(v_tenant, 'log released', jsonb_build_object('matter', p_matter, 'reason', p_reason));
end
$$;
comment on function ward.release_audit(text, text, text) is
  'takes one legal hold off a tenant''s log. Errors: WK203, WK204 no such hold, WK212';

create or replace function ward_internal.require_no_hold(p_tenant uuid) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_matters text := (select string_agg(matter, ', ' order by matter) from ward_internal.audit_holds
    where tenant_id = p_tenant);
begin
  if v_matters is not null then
    perform ward_internal.fail('on_hold', format('the tenant''s audit log is under legal hold: %s', v_matters),
      'when the matter is over: wardkey audit release');
  end if;
end
$$;
comment on function ward_internal.require_no_hold(uuid) is 'Errors: WK217 the log is under legal hold';

create or replace view ward.audit_holds as
  select coalesce(t.slug, case h.tenant_id when '00000000-0000-0000-0000-000000000000' then 'platform' end) as slug,
    h.matter, h.reason, h.placed_by, h.placed_at, h.tenant_id
  from ward_internal.audit_holds as h
  left join ward_internal.tenants as t on t.id = h.tenant_id;
comment on view ward.audit_holds is 'legal holds on audit logs; for operators. Slug is null where the tenant is gone';

create or replace function ward_internal.audit_months(p_tenant uuid)
returns table (part regclass, begins timestamptz, ends timestamptz)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select c.oid::regclass, (b.bound)[1]::timestamptz, (b.bound)[2]::timestamptz
  from pg_inherits as i
  join pg_class as c on c.oid = i.inhrelid
  cross join lateral regexp_match(pg_get_expr(c.relpartbound, c.oid),
    $re$FROM \('([^']+)'\) TO \('([^']+)'\)$re$) as b (bound)
  where i.inhparent = to_regclass(ward_internal.audit_leaf(p_tenant))
  order by 2
$$;
comment on function ward_internal.audit_months(uuid) is 'the partitions of a tenant''s log, oldest first';

create or replace function ward_internal.plan_audit_pruning(p_tenant uuid) returns jsonb
language sql volatile security invoker set search_path = pg_catalog, pg_temp
-- nothing is known of how many ids an array holds: a nested loop would look at every entry for each of them
set enable_nestloop = off as $$
  with asked as materialized (
    select clock_timestamp() - ward_internal.audit_retention() as until
  ), sealed as (
    select id, first_position + place - 1 as position
    from ward_internal.audit_batches cross join unnest(ids) with ordinality as u (id, place)
    where tenant_id = p_tenant and first_position < (
      select max(c.size) from ward_internal.audit_checkpoints as c, asked
      where c.tenant_id = p_tenant and (c.checkpoint::jsonb ->> 'at')::timestamptz <= until)
  ), months as (
    select to_char(m.begins at time zone 'UTC', 'YYYY-MM') as month, m.ends, count(s.id) as sealed,
      count(e.id) - count(s.id) as others, max(s.position) as last
    from ward_internal.audit_months(p_tenant) as m
    left join (
      select tableoid, id from ward_internal.audit_log
      where tenant_id = p_tenant and at < (select until from asked)) as e on e.tableoid = m.part::oid
    left join sealed as s on s.id = e.id
    where m.ends <= (select until from asked)
    group by m.begins, m.ends
  ), judged as (
    select *, bool_and(others = 0) over (order by ends) as goes from months
  ), going as (
    select coalesce(array_agg(month order by ends), '{}') as months, max(ends) as ends, max(last) as last,
      coalesce(sum(sealed), 0) as entries
    from judged where goes
  )
  select jsonb_build_object('tenant', p_tenant, 'older_than', until, 'months', months, 'ends', ends, 'entries', entries,
    'size', base -> 'size', 'number', base -> 'number', 'root', base -> 'root', 'at', base -> 'at',
    'why', (select format('%s entries of %s are below no checkpoint that is old enough', others, month)
      from judged where not goes order by ends limit 1),
    'held', (select coalesce(jsonb_agg(matter order by matter), '[]')
      from ward_internal.audit_holds where tenant_id = p_tenant))
  from asked, going left join lateral (
    select c.checkpoint::jsonb as base from ward_internal.audit_checkpoints as c
    where c.tenant_id = p_tenant and c.size > last order by c.size limit 1) as b on true
$$;
comment on function ward_internal.plan_audit_pruning(uuid) is
  'what of a log is older than its retention: months that may go whole, how many entries they have, and the checkpoint '
  '(size, number, root, at) from which the log would go on; why the month after them may not, though it is old enough; '
  'legal holds';

create or replace function ward.prune_audit(p_tenant text) returns jsonb
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp set lock_timeout = '5s' as $$
declare
  v_tenant uuid := ward_internal.audit_tenant(p_tenant);
  v_leaf text := ward_internal.audit_leaf(v_tenant);
  v_plan jsonb;
  v_size bigint;
  v_ends timestamptz;
  v_part regclass;
begin
  perform ward_internal.require_superuser();
  perform ward_internal.require_no_hold(v_tenant);
  if to_regclass(v_leaf) is not null then
    -- one at a time; nobody else is kept waiting
    execute format('lock table only %s in share update exclusive mode', v_leaf);
  end if;
  v_plan := ward_internal.plan_audit_pruning(v_tenant);
  v_size := v_plan ->> 'size';
  v_ends := v_plan ->> 'ends';
  if v_ends is null then
    return v_plan;
  end if;
  -- entries below the checkpoint of months that stay: written in the seconds before it was made
  execute format('delete from %s where at >= $3 and id in (
    select unnest(ids) from ward_internal.audit_batches where tenant_id = $1 and first_position < $2)', v_leaf)
  using v_tenant, v_size, v_ends;
  for v_part in select part from ward_internal.audit_months(v_tenant) where ends <= v_ends loop
    execute format('drop table %s', v_part);
  end loop;
  delete from ward_internal.audit_batches where tenant_id = v_tenant and first_position < v_size;
  delete from ward_internal.audit_checkpoints where tenant_id = v_tenant and size < v_size;
  if v_size is not null then
    perform ward_internal.log_event(v_tenant, 'log pruned', v_plan - '{tenant,why,held,ends}'::text[]);
  end if;
  return v_plan;
end
$$;
comment on function ward.prune_audit(text) is
  'drops the months of a log that are older than its retention and below a signed checkpoint, which stays; returns '
  'what went, as ward_internal.plan_audit_pruning has it. Nobody can verify those entries again: export them before, '
  'if they are to be kept. Waits 5 s for readers of the log. Repeatable. Errors: WK203, WK212, WK217 legal hold, 55P03 '
  'the log is in use';
