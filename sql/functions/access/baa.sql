-- Business associate agreements: no protected health information without one, 45 CFR 164.308(b) and 164.502(e). What
-- wardkey keeps is the record: parties, dates, subcontractors, and the SHA-256 by which the signed document is known
-- again. Days are UTC's.

create or replace function ward_internal.is_baa_in_force(p_tenant uuid) returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return exists (
  select from ward_internal.baas, cast(statement_timestamp() at time zone 'UTC' as date) as today
  where tenant_id = p_tenant and today between begins and least(ends, ended_on, 'infinity'));
comment on function ward_internal.is_baa_in_force(uuid) is 'whether an agreement with the tenant is in force today';

create or replace function ward_internal.is_baa_required() returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return exists (select from ward_internal.settings where name = 'require_baa' and value = 'on');

create or replace function ward_internal.require_baa(p_tenant ward_internal.tenants) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if ward_internal.is_baa_required() and not ward_internal.is_baa_in_force(p_tenant.id) then
    perform ward_internal.fail('no_baa', format('no business associate agreement with %s is in force', p_tenant.slug),
      'record the one that was signed: wardkey baa add');
  end if;
end
$$;
comment on function ward_internal.require_baa(ward_internal.tenants) is
  'Errors: WK230 there is none, and require_baa is on';

create or replace function ward.add_baa(
  p_tenant text, p_covered_entity text, p_business_associate text, p_document text, p_sha256 bytea, p_begins date,
  p_ends date default null, p_subcontractors text[] default '{}', p_notice_days integer default 30
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants := ward_internal.tenant_of(p_tenant);
  v_text text;
  v_id uuid;
begin
  foreach v_text in array array[p_covered_entity, p_business_associate, p_document] || p_subcontractors loop
    perform ward_internal.check_reason(v_text);
  end loop;
  begin
    insert into ward_internal.baas (tenant_id, slug, covered_entity, business_associate, document, document_sha256,
        begins, ends, subcontractors, notice_days)
      values (v_tenant.id, p_tenant, p_covered_entity, p_business_associate, p_document, p_sha256, p_begins,
        p_ends, p_subcontractors, p_notice_days)
      returning id into v_id;
  exception
    when unique_violation then
      perform ward_internal.fail('invalid_baa', 'this document is recorded already',
        'look at it: select * from ward.baas');
    when check_violation or not_null_violation then
      perform ward_internal.fail('invalid_baa', 'these are not the facts of an agreement',
        'it ends after it begins, its document has a SHA-256 of 32 bytes, its notice is of 0 to 3650 days');
  end;
  perform ward_internal.log_event(v_tenant.id, 'baa recorded', jsonb_build_object('baa', v_id,
    'covered_entity', p_covered_entity, 'business_associate', p_business_associate, 'begins', p_begins, 'ends', p_ends,
    'document_sha256', encode(p_sha256, 'hex')));
  return v_id;
end
$$;
comment on function ward.add_baa(text, text, text, text, bytea, date, date, text[], integer) is
  'records a business associate agreement with a tenant and returns its id. p_document: its name; p_sha256: of its '
  'bytes; p_ends: its last day, null if it has none; p_subcontractors: who gets the data too; p_notice_days: before '
  'its end. It changes no status: ward.resume_tenant does. Errors: WK203, WK212, WK231 dates, digest or notice, or the '
  'document is recorded already';

create or replace function ward.end_baa(p_id uuid, p_on date, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_baa ward_internal.baas;
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_reason);
  select * into v_baa from ward_internal.baas where id = p_id for update;
  if not found then
    perform ward_internal.fail('unknown_object', 'no business associate agreement has that id',
      'list them: select * from ward.baas');
  elsif (p_on between v_baa.begins and least(v_baa.ends, v_baa.ended_on, 'infinity')) is not true then
    perform ward_internal.fail('invalid_baa', 'that is no day of the agreement', format('it is in force from %s to %s',
      v_baa.begins, coalesce(least(v_baa.ends, v_baa.ended_on)::text, 'its end')));
  end if;
  update ward_internal.baas set ended_on = p_on, ended_reason = p_reason where id = p_id;
  perform ward_internal.log_event(v_baa.tenant_id, 'baa ended',
    jsonb_build_object('baa', p_id, 'on', p_on, 'reason', p_reason));
end
$$;
comment on function ward.end_baa(uuid, date, text) is
  'says that an agreement ends on that day, which is its last, and why. The tenant stays as it is: care does not stop '
  'at midnight; the doctor warns before and fails afterwards. Errors: WK204, WK212, WK231 no day of the agreement';

create or replace view ward.baas as
  select b.id, b.slug,
    case when today < b.begins then 'to come' when today > last_day then 'ended' else 'in force' end as state,
    b.covered_entity, b.business_associate, b.begins, last_day as ends, last_day - today as days_left, b.notice_days,
    b.subcontractors, b.document, encode(b.document_sha256, 'hex') as document_sha256, b.ended_reason, b.recorded_by,
    b.recorded_at, b.tenant_id
  from ward_internal.baas as b, least(b.ends, b.ended_on) as last_day,
    cast(statement_timestamp() at time zone 'UTC' as date) as today;
comment on view ward.baas is
  'business associate agreements, those of tenants that are gone too; for operators. ends: the last day, null if there '
  'is none';
