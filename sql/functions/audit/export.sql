-- A tenant's log as the file that anyone can verify, made in SQL: the lines of plpython/wardkey_core/log/exportfile.py, which says what
-- they are. An entry's bytes are made of its row alone, as src/wardkey/audit/source.py makes them: PostgreSQL escapes the strings
-- of JSON as the canonical form (RFC 8785) does. What is in the log is written, whole or not: who verifies names what is wrong.

create or replace function ward_internal.json_text(p_value jsonb) returns text
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return case when octet_length(p_value::text) < 16777216 then p_value::text else '{"wardkey": "too long to be read"}' end;
exception when program_limit_exceeded or out_of_memory or internal_error then
  return '{"wardkey": "too long to be read"}';
end
$$;
comment on function ward_internal.json_text(jsonb) is
  'the text of an image or a detail. Nothing that wardkey writes is as long as 16 MB: what somebody put in by hand may be, and then it '
  'is not what was sealed';

create or replace function ward_internal.audit_bytes(p_entry ward_internal.audit_log) returns text
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_columns text := replace(to_json(p_entry.columns)::text, ',', '","');
begin
  if strpos(p_entry.columns, '"') = 0 then
    null;
  elsif p_entry.columns ~ '^(?:"(?:[^"]|"")*",|[^",]*,)*(?:"(?:[^"]|"")*"|[^",]+)?$' then
    select string_agg(to_json(coalesce(replace(c[1], '""', '"'), c[2], ''))::text, ',' order by place) into v_columns
      from regexp_matches(p_entry.columns, '"((?:[^"]|"")*)"(?:,|$)|([^",]+)(?:,|$)|,', 'g') with ordinality as m (c, place);
  else
    v_columns := to_json(p_entry.columns)::text;  -- not a list: as it stands
  end if;
  return '{'
    || coalesce('"address":' || to_json(p_entry.address)::text || ',', '')
    || coalesce('"application":' || to_json(p_entry.application)::text || ',', '')
    || '"at":"' || to_char(p_entry.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '",'
    || coalesce('"columns":[' || v_columns || '],', '')
    || coalesce('"context":"' || encode(p_entry.context, 'hex') || '",', '')
    || coalesce('"database_role":' || to_json(p_entry.database_role)::text || ',', '')
    || coalesce('"detail":' || to_json(ward_internal.json_text(p_entry.detail))::text || ',', '')
    || '"format":1,"id":"' || p_entry.id || '","kind":'
    || case p_entry.kind when 'w' then '"write"' when 'r' then '"read"' when 'e' then '"event"'
      else to_json(p_entry.kind::text)::text end
    || coalesce(',"new":' || to_json(ward_internal.json_text(p_entry.new))::text, '')
    || coalesce(',"old":' || to_json(ward_internal.json_text(p_entry.old))::text, '')
    || ',"operation":' || to_json(p_entry.operation)::text
    || coalesce(',"purpose":' || to_json(p_entry.purpose)::text, '')
    || coalesce(',"role":' || to_json(p_entry.role)::text, '')
    || coalesce(',"row":' || to_json(p_entry.row_id)::text, '')
    || coalesce(',"statement":' || p_entry.statement, '')
    || coalesce(',"subject":' || to_json(p_entry.subject)::text, '')
    || coalesce(',"table":"' || p_entry.model_id || '"', '')
    || ',"tenant":"' || p_entry.tenant_id || '"'
    || coalesce(',"transaction":"' || p_entry.transaction::text || '"', '')
    || '}';
end
$$;
comment on function ward_internal.audit_bytes(ward_internal.audit_log) is
  'the canonical form of an entry; its bytes in UTF-8 are what the tree''s leaf is the hash of';

-- No nested loops: of a log that was never analyzed PostgreSQL expects few rows.
create or replace function ward_internal.audit_export(p_tenant uuid, p_from timestamptz, p_to timestamptz) returns setof text
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
declare
  v_form text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
  v_from text := to_char(p_from at time zone 'UTC', v_form);
  v_to text := to_char(p_to at time zone 'UTC', v_form);
  v_base ward_internal.audit_checkpoints;
  v_begins bigint := coalesce((select min(first_position) from ward_internal.audit_batches where tenant_id = p_tenant),
    (select max(size) from ward_internal.audit_checkpoints where tenant_id = p_tenant), 0);  -- above 0: pruned up to there
  v_first bigint := 0;
  v_last bigint;
  v_end bigint;
  v_leaf text := ward_internal.audit_leaf(p_tenant);
  v_piece record;
  v_before bigint;  -- the position of the entry before
  v_short bytea := '';  -- of the entries since the last line of leaves
  v_is_sealed boolean;
  v_strays text[] := '{}';
  v_line text;
  v_entries bigint := 0;
  v_checkpoints bigint := 0;
  v_unsealed bigint := 0;
begin
  -- from the last checkpoint made before the period, or the one the log begins at, to the first that is settled at its end; null: no such one, it is open
  select min(size) into v_last from ward_internal.audit_checkpoints
    where tenant_id = p_tenant and substring(checkpoint from '"settled":"([^"]*)"') >= v_to collate "C";
  select * into v_base from ward_internal.audit_checkpoints
    where tenant_id = p_tenant and size <= coalesce(v_last, size)
      and (substring(checkpoint from '"at":"([^"]*)"') < v_from collate "C" or 0 < size and size = v_begins)
    order by size desc limit 1;
  v_first := coalesce(v_base.size, 0);
  v_end := coalesce(v_last, (select max(size) from ward_internal.audit_checkpoints where tenant_id = p_tenant), 0);

  v_line := '{"wardkey audit export":{"first":' || v_first || ',"format":1,' || coalesce('"from":"' || v_from || '",', '')
    || '"keys":[' || coalesce((
      select string_agg('"' || encode(key, 'base64') || '"', ',' order by size)
      from (select key, min(size) as size from ward_internal.audit_checkpoints
        where tenant_id = p_tenant and size between v_first and v_end group by key) as k), '')
    || '],"left":[' || coalesce((
      select string_agg('"' || encode(substring(v_base.frontier from n for 32), 'hex') || '"', ',' order by n)
      from generate_series(1, length(v_base.frontier), 32) as n), '')
    || '],' || coalesce('"slug":' || (select to_json(slug)::text from ward_internal.tenants where id = p_tenant) || ',', '')
    || '"tenant":"' || p_tenant || '"' || coalesce(',"to":"' || v_to || '"', '') || '}}';
  return next v_line;

  -- One statement, so one moment; nothing was taken away since the checkpoints were looked at. Of rows with one id, which only
  -- tampering makes, the one that was sealed comes first. Lines are made behind the sort, which is of rows then.
  for v_piece in execute case when to_regclass(v_leaf) is null then 'select where false' else format($sql$
    with place as materialized (
      select first_position + generate_subscripts(ids, 1) - 1 as position, unnest(ids) as id,
        substring(leaf_hashes from 32 * generate_subscripts(ids, 1) - 31 for 32) as leaf
      from ward_internal.audit_batches
      where tenant_id = $1 and first_position + cardinality(ids) > $2 and ($4 or first_position < $3)
    )
    select position, kind_of_line, leaf, at, coalesce(line, case when id is not null then ward_internal.audit_bytes(
        row(tenant_id, id, at, transaction, statement, model_id, kind, journalled, context, operation, row_id, columns, old, new,
          detail, subject, role, purpose, database_role, address, application)::ward_internal.audit_log) end) as line
    from (
      select p.position, 'entry' as kind_of_line, case count(*) over (partition by p.position) when 1 then false
          else sha256('\x00' || convert_to(ward_internal.audit_bytes(e), 'UTF8')) is distinct from p.leaf end as is_stray,
        p.leaf, null as line, e.*
      from place as p left join %1$s as e on e.id = p.id
      where p.position >= $2 and ($4 or p.position < $3)
      union all
      select size, 'checkpoint', false, null, '{"checkpoint":' || checkpoint || ',"signature":"'
          || translate(encode(signature, 'base64'), E'\n', '') || '"}', (null::%1$s).*
      from ward_internal.audit_checkpoints where tenant_id = $1 and size between $2 and $3
      union all
      select null, 'entry', false, null, null, e.*
      from %1$s as e where $4 and not exists (
        select from (select unnest(ids) as id from ward_internal.audit_batches where tenant_id = $1) as b where b.id = e.id)
      order by position, kind_of_line, is_stray, id
      offset 0) as pieces$sql$, v_leaf) end
  using p_tenant, v_first, v_end, v_last is null
  loop
    v_is_sealed := v_piece.kind_of_line = 'entry' and v_piece.position < v_end;
    if v_short <> '' and (v_is_sealed is not true or length(v_short) = 8000) then
      v_line := '{"leaves":"' || translate(encode(v_short, 'base64'), E'\n', '') || '"}';
      return next v_line;
      v_short := '';
    end if;
    if v_piece.kind_of_line = 'checkpoint' then
      v_checkpoints := v_checkpoints + 1;
      v_line := v_piece.line;
      return next v_line;
    elsif v_piece.position = v_before then
      v_strays := v_strays || v_piece.line;
    elsif v_is_sealed then
      v_short := v_short || substring(v_piece.leaf for 8);
      v_before := v_piece.position;
      if v_piece.line is not null then
        v_entries := v_entries + 1;
        v_line := v_piece.line;
        return next v_line;
      end if;
    else
      v_before := v_piece.position;
      if v_piece.line is not null and (p_from is null or v_piece.at >= p_from) and (p_to is null or v_piece.at < p_to) then
        v_unsealed := v_unsealed + 1;
        v_line := '{"unsealed":' || v_piece.line || '}';
        return next v_line;
      end if;
    end if;
  end loop;
  if v_short <> '' then
    v_line := '{"leaves":"' || translate(encode(v_short, 'base64'), E'\n', '') || '"}';
    return next v_line;
  end if;
  return query select '{"unsealed":' || line || '}' from unnest(v_strays) as line;
  v_line := '{"end":{"checkpoints":' || v_checkpoints || ',"entries":' || v_entries || ',"right":[],"unsealed":'
    || v_unsealed + cardinality(v_strays) || '}}';
  return next v_line;
end
$$;
comment on function ward_internal.audit_export(uuid, timestamptz, timestamptz) is
  'the lines of an export: complete from p_from to before p_to, null is no bound; as wardkey audit export writes them. Of a log '
  'that does not hold together what is there: wardkey audit verify names what is wrong';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_export(p_from timestamptz default null, p_to timestamptz default null) returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.audit_reader('export', null, p_from, p_to);
begin
  if (p_from < p_to) is false or (p_from between '0001-01-01' and '9999-12-31') is false
    or (p_to between '0001-01-01' and '9999-12-31') is false
  then
    perform ward_internal.fail('unsupported', 'that is no period', 'p_from is to be before p_to; null is no bound');
  end if;
  -- journalled, so that it stays when the transaction is rolled back
  perform coalesce(ward_internal.report_event('log_exported',
    jsonb_build_object('from', p_from, 'to', p_to, 'format', 'jsonl')::text), ward.raise_refusal(true));
  return query select * from ward_internal.audit_export(v_tenant, p_from, p_to);
end
$$;
revoke execute on function ward.audit_export(timestamptz, timestamptz) from public;
comment on function ward.audit_export(timestamptz, timestamptz) is
  'for a tenant''s ADMIN: its own log, a line a row, as a file that wardkey audit verify, or anybody, can check: psql -At, in '
  'UTF-8. Complete from p_from to before p_to; p_to, or both, may be left out. Sealed values are ciphertext. That it was exported '
  'is an entry. Errors: WK001, WK212, WK209 no such period';
