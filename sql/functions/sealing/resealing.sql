-- Resealing moves rows to the active key, a range of blocks at a time, in the caller's transaction: each batch is all
-- or nothing, and calling it again finds done what is done. It takes no lock that a reader or writer waits for longer
-- than a batch: rows that somebody else has locked are left for another pass.
--
-- It is no change of the data: no trigger and no foreign key looks at it (session_replication_role), and the keeper,
-- which does the work, lets no plaintext out.

create or replace function ward_internal.check_triggers(p_leaf regclass) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_trigger name := (
    select tgname from pg_trigger as t join pg_proc as f on f.oid = t.tgfoid
    where t.tgrelid = p_leaf and not t.tgisinternal and t.tgenabled in ('A', 'R') and t.tgtype & 16 <> 0
      and t.tgname <> 'ward_audit' and f.pronamespace <> 'ward_internal'::regnamespace limit 1);
begin
  if v_trigger is not null then
    perform ward_internal.fail('unsupported',
      format('trigger %I of %s would take resealing for a change', v_trigger, p_leaf),
      format('alter table … enable trigger %I: neither ALWAYS nor REPLICA, on the model table', v_trigger));
  end if;
end
$$;
comment on function ward_internal.check_triggers(regclass) is
  'raises if a trigger would fire at resealing all the same';

-- wardkey: ignore WL119 because resealing is no change of the data, and is an event of the log
create or replace function ward_internal.reseal_batch(
  p_tenant uuid, p_leaf text, p_row text, p_key text, p_columns text[], p_ids text[], p_searches text, p_from bigint,
  p_to bigint
) returns jsonb
language plpython3u volatile strict parallel unsafe security invoker
set search_path = pg_catalog, pg_temp set session_replication_role = replica as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "reseal")(*args)
$$;
comment on function ward_internal.reseal_batch(uuid, text, text, text, text[], text[], text, bigint, bigint) is
  'moves what stands in the blocks p_from to before p_to; leaf, row id, key and columns are SQL about row l; searches: '
  'JSON, by column id';

create or replace function ward_internal.reseal(p_slug text, p_model uuid, p_from_block bigint, p_blocks integer)
returns table (rows bigint, fields bigint, failed bigint, skipped bigint, next_block bigint)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  v_tenant ward_internal.tenants;
  v_rotation ward_internal.rotations;
  v_leaf text;
  v_done jsonb;
  v_detail jsonb;
  v_left bigint;
begin
  perform ward_internal.require_superuser();
  select * into v_tenant from ward_internal.tenants where slug = p_slug;
  if v_tenant.id is null or v_tenant.status in ('shredding', 'shredded') then
    v_tenant := ward_internal.tenant_of(p_slug);  -- says what is wrong
  end if;
  select * into v_rotation from ward_internal.rotations
    where tenant_id = v_tenant.id and finished_at is null order by started_at desc limit 1;
  if v_rotation.paused then
    perform ward_internal.fail('rotation_paused', 'the rotation is paused', format('wardkey keys resume %s', p_slug));
  end if;
  perform ward_internal.fence_keys(v_tenant.id);
  v_leaf := ward_internal.leaf_name(p_model, v_tenant.schema_name);
  if v_leaf is null then
    if p_model is not null then
      perform ward_internal.fail('unknown_object', 'no such model table', 'list them: select * from ward.models');
    end if;
    return query select 0::bigint, 0::bigint, 0::bigint, 0::bigint, null::bigint;
    return;
  end if;
  perform ward_internal.check_triggers(v_leaf::regclass);
  select coalesce(ward_internal.reseal_batch(v_tenant.id, v_leaf, ward_internal.row_expression(p_model, 'l'),
      format('jsonb_build_object(%s)', (
        select string_agg(format('%1$L, l.%1$I', column_name), ', ' order by key_place)
        from ward_internal.model_columns(p_model) where key_place is not null)),
      array_agg(quote_ident(column_name) order by place), array_agg(column_id::text order by place),
      (select coalesce(jsonb_object_agg(column_id, facts), '{}')::text from (
        select column_id, jsonb_agg(ward_internal.search_facts(s) order by kind) as facts
        from ward_internal.searches as s
        where model_id = p_model and (kind not like 'unique%'
          or stored = ward_internal.unique_tokens(column_id, v_tenant.id)) group by 1) as f),
      p_from_block, p_from_block + p_blocks), ward.raise_refusal('{}'::jsonb))
    into v_done
    from ward_internal.model_columns(p_model) where column_id is not null
    having count(*) > 0;
  v_done := coalesce(v_done, '{"rows": 0, "fields": 0, "failed": 0, "skipped": 0}');
  v_left := ward_internal.drop_former_tokens(p_model, v_tenant, p_from_block, p_from_block + p_blocks);
  update ward_internal.rotations as r
    set rows = r.rows + (v_done ->> 'rows')::bigint, fields = r.fields + (v_done ->> 'fields')::bigint,
      failed = r.failed + (v_done ->> 'failed')::bigint
    where r.id = v_rotation.id;
  if (v_done ->> 'failed')::bigint > 0 then
    v_detail := jsonb_build_object('table', (select face from ward_internal.models where id = p_model),
      'values', v_done -> 'failed', 'named', v_done -> 'named');
    if v_rotation.id is null or not v_rotation.unopened @> jsonb_build_array(v_detail) then
      perform ward_internal.log_event(v_tenant.id, 'unopened', v_detail);
      update ward_internal.rotations as r set unopened = r.unopened || v_detail where r.id = v_rotation.id;
    end if;
  end if;
  return query select (v_done ->> 'rows')::bigint, (v_done ->> 'fields')::bigint, (v_done ->> 'failed')::bigint,
    (v_done ->> 'skipped')::bigint + v_left,
    case when p_from_block + p_blocks < pg_relation_size(v_leaf::regclass) / current_setting('block_size')::integer
      then p_from_block + p_blocks end;
end
$$;
comment on function ward_internal.reseal(text, uuid, bigint, integer) is
  'one batch: the values in p_blocks blocks of a tenant''s leaf from p_from_block on, moved to the active key. Returns '
  'rows and values moved, values that do not open (left alone, named in ward.events), rows that others had locked, and '
  'the next block, NULL at the end. Without a model it only notes which transactions run (see keys/rotation.sql). '
  'Errors: WK215 paused';
