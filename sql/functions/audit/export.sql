-- A tenant's log as the file that anyone can verify, made by the command's own code (wardkey_core.log.exporter).

create or replace function ward_internal.json_text(p_value jsonb) returns text
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return case when octet_length(p_value::text) < 16777216 then p_value::text
    else '{"wardkey": "too long to be read"}' end;
exception when program_limit_exceeded or out_of_memory or internal_error then
  return '{"wardkey": "too long to be read"}';
end
$$;
comment on function ward_internal.json_text(jsonb) is
  'the text of an image or a detail. Nothing that wardkey writes is as long as 16 MB: what somebody put in by hand may '
  'be, and then it is not what was sealed';

create or replace function ward_internal.audit_lines(
  p_tenant uuid, p_slug text, p_log text, p_from timestamptz, p_to timestamptz
)
returns setof text
language plpython3u stable parallel restricted security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "audit_lines")(p_tenant, p_slug, p_log, p_from, p_to) or [None]
$$;
comment on function ward_internal.audit_lines(uuid, text, text, timestamptz, timestamptz) is
  'the lines of an export of p_log, the tenant''s part of the log, and null at last where one was refused. STABLE, so '
  'that all its queries look at one moment. ward.audit_export sets what it needs set, once and not a line';

-- definer because no tenant may read the log's tables; the policy of the log shows the owner this tenant's part
create or replace function ward.audit_export(
  p_from timestamptz default null, p_to timestamptz default null, p_tenant text default null
) returns setof text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set temp_file_limit = -1
set work_mem = '512MB' set enable_nestloop = off set datestyle = 'ISO, YMD' set timezone = 'UTC' as $$
declare
  v_tenant uuid := ward_internal.audit_reader('export', null, p_from, p_to, p_tenant);
begin
  if (p_from < p_to) is false or (p_from between '0001-01-01' and '9999-12-31') is false
    or (p_to between '0001-01-01' and '9999-12-31') is false
  then
    perform ward_internal.fail('unsupported', 'that is no period', 'p_from is to be before p_to; null is no bound');
  end if;
  -- journalled, so that it stays when the transaction is rolled back
  if p_tenant is null then
    perform coalesce(ward_internal.report_event('log_exported',
      jsonb_build_object('from', p_from, 'to', p_to, 'format', 'jsonl')::text), ward.raise_refusal(true));
  end if;
  return query select coalesce(line, ward.raise_refusal(''::text))
    from ward_internal.audit_lines(v_tenant, (select slug from ward_internal.tenants where id = v_tenant),
      ward_internal.audit_leaf(v_tenant), p_from, p_to) as line;
end
$$;
revoke execute on function ward.audit_export(timestamptz, timestamptz, text) from public;
comment on function ward.audit_export(timestamptz, timestamptz, text) is
  'for a tenant''s ADMIN: its own log, a line a row, as a file that wardkey audit verify, or anybody, can check: psql '
  '-At, in UTF-8. Complete from p_from to before p_to; p_to, or both, may be left out. Sealed values are ciphertext. '
  'That a tenant exported it is an entry. A superuser names a log with p_tenant. Errors: WK001, WK203, WK212, WK209 no '
  'such period, or the log is damaged: wardkey audit verify names what is wrong';
