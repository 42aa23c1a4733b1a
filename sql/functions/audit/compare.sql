-- Stored rows against what the log says of them: the last value of each column since the row was inserted, or since its
-- key was changed. A value that was put back behind the log's back, even one that was there before and opens, is not
-- the last one.
--
-- It is one query a leaf, which sorts on disk what does not fit in work_mem. Entries of a row are in the order of their
-- times: a row that is changed is locked, so no two of them are at once.

create or replace function ward_internal.compare_rows(p_tenant uuid, p_model uuid)
returns table (
  row_id text, problem text, columns text[], entry bigint, at timestamptz, row_count bigint, value_count bigint,
  resealed bigint, unknown bigint
)
language plpgsql volatile security invoker
set search_path = pg_catalog, pg_temp set bytea_output = hex set extra_float_digits = 1 set intervalstyle = postgres
set timezone = 'UTC' set lc_monetary = 'C' set datestyle = 'ISO, YMD' set quote_all_identifiers = off as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, (select schema_name from ward_internal.tenants where id = p_tenant));
  v_key text[] := array(
    select name from ward_internal.entry_columns(p_model, 'l') where key_place is not null order by key_place);
  -- of each column: name, whether it is sealed, image, the digest that an entry may have instead, version of its key
  v_columns text := (
    select string_agg(format('(%L, %s, case when %s <= 50000 then coalesce(to_jsonb(%s), ''null'') end, '
        'case when %3$s > 1000 then %5$s end, %6$s)', name, is_sealed::text, coalesce(length, '0'), image, digest,
      case when is_sealed then format('substr(%s, 2, 4)', value) else 'null' end), E',\n        ' order by number)
    from ward_internal.entry_columns(p_model, 'l'));
  -- the id that the row of an entry has after an update of its key
  v_moved text := (
    select case count(*)
      when 1 then format('rtrim(e.new ->> %L, %L)', min(name),
        min(case type_id when 'bpchar'::regtype then ' ' else '' end))
      else format('jsonb_build_array(%s)::text', string_agg(format('coalesce(%s, e.row_id::jsonb -> %s)',
        case type_id when 'bpchar'::regtype then format('to_jsonb(rtrim(e.new ->> %L, '' ''))', name)
          else format('e.new -> %L', name) end, key_place), ', ' order by key_place)) end
    from ward_internal.entry_columns(p_model, 'l') where key_place is not null);
begin
  return query execute format($sql$
    with truncated as (
      select max(at) as at from %1$s where model_id = $1 and operation = 'truncate'
    ), entries as (
      select e.id, e.at, e.row_id, e.operation, e.new, e.detail -> 'digests' as digests,
        e.operation = 'update' and e.new ?| $3 as moves
      from %1$s as e, truncated as t
      where e.model_id = $1 and e.kind = 'w' and e.row_id is not null and (t.at is null or e.at > t.at)
    ), steps as (
      select e.row_id, e.id, e.at, e.new, e.digests, e.operation = 'insert' as begins, e.operation = 'delete' as ends
        from entries as e where not moves
      union all
      select e.row_id, e.id, e.at, null, null, false, true from entries as e where moves
      union all
      select %4$s, e.id, e.at, e.new, e.digests, true, false from entries as e where moves
    ), placed as (  -- steps after this one, and whether one of them begins or ends the row
      select *, row_number() over (partition by row_id order by at desc, id desc) as number,
        bool_or(begins or ends) over (partition by row_id order by at desc, id desc
          rows between unbounded preceding and 1 preceding) as is_over
      from steps
    ), told as (
      select distinct on (p.row_id, v.key) p.row_id, v.key as name, v.value, p.id, p.at,
        coalesce(p.digests ? v.key, false) and jsonb_typeof(v.value) = 'object' as digest
      from placed as p cross join jsonb_each(p.new) as v
      where p.is_over is not true and not p.ends
      order by p.row_id, v.key, p.number
    ), stored as (
      select %5$s as row_id, c.* from %2$s as l
      cross join lateral (values %3$s) as c (name, sealed, value, digest, version)
    ), compared as (  -- value by value
      select coalesce(s.row_id, t.row_id) as row_id, s.row_id is not null as is_stored, s.name, t.id, case
          when s.row_id is null then null
          when t.name is null then 'unknown'
          when t.value::text = s.value::text or t.digest and t.value::text = s.digest::text then 'good'
          when s.sealed and s.version is not null and case
            when t.digest then exists (select from ward_internal.tenant_keys as k where k.tenant_id = $2
              and k.version = ('x' || encode(s.version, 'hex'))::bit(32)::bigint and k.created_at > t.at)
            when t.value #>> '{}' like '\\x01%%' then ('x' || encode(s.version, 'hex'))::bit(32)::bigint
              > ('x' || substr(t.value #>> '{}', 5, 8))::bit(32)::bigint end then 'resealed'
          else 'differs' end as verdict
      from stored as s full join told as t on t.row_id = s.row_id and t.name = s.name
    ), judged as (
      select row_id, bool_or(is_stored) as is_stored,
        array_agg(name order by name) filter (where verdict = 'differs') as differing,
        max(id) filter (where verdict = 'differs') as entry, count(*) filter (where verdict = 'good') as good,
        count(*) filter (where verdict = 'resealed') as resealed, count(*) filter (where verdict = 'unknown') as unknown
      from compared group by row_id
    ), verdicts as (
      select j.*, l.id as last_id, l.at as last_at, case
          when j.is_stored and l.row_id is null then 'not in the log'
          when j.is_stored and l.ends then 'the log says it went'
          when not j.is_stored and not l.ends then 'missing'
          when j.differing is not null then 'differs' end as problem
      from judged as j left join placed as l on l.row_id = j.row_id and l.number = 1
    )
    (select row_id, problem, case problem when 'differs' then differing end, coalesce(entry, last_id), last_at,
      null::bigint, null::bigint, null::bigint, null::bigint from verdicts where problem is not null)
    union all
    select null, null, null, null, null, count(*) filter (where is_stored), coalesce(sum(good), 0)::bigint,
      coalesce(sum(resealed), 0)::bigint, coalesce(sum(unknown), 0)::bigint from verdicts
    $sql$, ward_internal.audit_leaf(p_tenant), v_leaf, v_columns, v_moved, ward_internal.entry_row(p_model, 'l'))
  using p_model, p_tenant, v_key;
end
$$;
comment on function ward_internal.compare_rows(uuid, uuid) is
  'the tenant''s rows of a model that are not as the log left them: differs (columns), missing, not in the log, the '
  'log says it went; with the last entry of the row, or of what differs. At the end a row of counts: rows stored, '
  'values as in the log, values resealed since, values the log does not tell of. What was resealed cannot be compared: '
  'resealing is no entry. One snapshot';
