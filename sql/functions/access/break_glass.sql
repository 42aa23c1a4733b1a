-- Break-glass: somebody whose role sees less, or a SUPER_ADMIN, sees more for at most an hour, on the word of an ADMIN
-- of the tenant. Both show their tokens to the keeper, which decides, keeps its own ledger and gives the keys; what is
-- kept here is for people. Each step is journalled, so that it stays where the transaction is rolled back. A grant that
-- starts or ends raises the tenant's epoch: every backend reads its rights again at the next transaction.
--
-- Lock order: break_glass, tenants.

create or replace function ward_internal.ask_grant(
  p_action text, p_id uuid default null, p_classes text[] default null, p_minutes integer default null,
  p_reason text default null, p_emergency boolean default false
) returns jsonb
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "ask_grant")(*args)
$$;
comment on function ward_internal.ask_grant(text, uuid, text[], integer, text, boolean) is
  'asks the keeper for a step of break-glass with the token of the context: state, started_at and until as it has '
  'them, issuer, subject and role of the token. Errors: WK001, WK245';

create or replace function ward_internal.report_grant(p_kind text, p_grant ward_internal.break_glass, p_detail jsonb)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.report_event('break_glass_' || p_kind, (jsonb_build_object('grant', p_grant.id,
    'of', p_grant.subject, 'role', p_grant.role, 'classes', p_grant.classes, 'minutes', p_grant.minutes,
    'reason', p_grant.reason, 'emergency', nullif(p_grant.emergency, false)) || p_detail)::text),
    ward.raise_refusal(true));
end
$$;
comment on function ward_internal.report_grant(text, ward_internal.break_glass, jsonb) is
  'journals a step. DICOM codes: 110127 emergency override started, 110138 stopped; 110113 is in the login of its use';

create or replace function ward_internal.begin_grant(p_grant ward_internal.break_glass, p_answer jsonb, p_approver text)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  update ward_internal.break_glass set state = 'started', approver = p_approver,
    started_at = to_timestamp((p_answer ->> 'started_at')::double precision),
    until = to_timestamp((p_answer ->> 'until')::double precision)
    where id = p_grant.id;
  perform ward_internal.report_grant('started', p_grant, jsonb_strip_nulls(jsonb_build_object('dicom', '110127',
    'purpose', 'ETREAT', 'approver', p_approver, 'alarm', case when p_approver is null then true end,
    'until', to_timestamp((p_answer ->> 'until')::double precision))));
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = p_grant.tenant_id;
end
$$;

create or replace view ward.break_glass_grants as
  select b.id, t.slug, b.subject, b.role,
    case when b.state = 'started' and b.until <= statement_timestamp()
      or b.state = 'requested' and b.requested_at <= statement_timestamp() - interval '15 minutes'
    then 'expired' else b.state end as state,
    b.classes, b.minutes, b.reason, b.emergency, b.requested_at, b.approver, b.started_at, b.until, b.closed_by,
    b.closed_at,
    case when b.emergency and b.reviewed_at is null then b.started_at + interval '72 hours' end as review_due,
    b.reviewer, b.reviewed_at, b.finding, b.tenant_id
  from ward_internal.break_glass as b left join ward_internal.tenants as t on t.id = b.tenant_id;
comment on view ward.break_glass_grants is
  'break-glass requests and grants as the database was told of them, of tenants that are gone too; for operators';

create or replace function ward_internal.grant_of_tenant(p_id uuid) returns ward_internal.break_glass
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
  v_grant ward_internal.break_glass;
begin
  if v_tenant is null then
    perform ward.raise_no_context();
  end if;
  select * into v_grant from ward_internal.break_glass where id = p_id and tenant_id = v_tenant for update;
  if not found then
    perform ward_internal.fail('invalid_grant', 'the tenant has no break-glass request of that id',
      'list them: select * from ward.break_glass_requests()');
  end if;
  return v_grant;
end
$$;
comment on function ward_internal.grant_of_tenant(uuid) is
  'a request of the tenant that is asking, locked until the transaction ends. Errors: WK001, WK246';

-- definer because requests are no tenant's to write
create or replace function ward.break_glass(
  p_reason text, p_classes text[] default null, p_minutes integer default 60, p_emergency boolean default false
) returns uuid
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
  v_known text[] := array(select name from ward_internal.known_classes order by name);
  v_classes text[] := case when p_classes is null then v_known
    else array(select distinct unnest(p_classes) order by 1) end;
  v_id uuid := gen_random_uuid();
  v_grant ward_internal.break_glass;
  v_answer jsonb;
begin
  if v_tenant is null then
    perform ward.raise_no_context();
  end if;
  perform ward_internal.check_reason(p_reason);
  if v_classes = '{}' or not v_classes <@ v_known then
    perform ward_internal.fail('invalid_grant', 'no such class of columns',
      format('classes are %s', array_to_string(v_known, ', ')));
  elsif (p_minutes between 1 and 60) is not true or p_emergency is null then
    perform ward_internal.fail('invalid_grant', 'a grant lasts for 1 to 60 minutes', 'ask again when it is over');
  end if;
  v_answer := coalesce(ward_internal.ask_grant('request', v_id, v_classes, p_minutes, p_reason,
    p_emergency), ward.raise_refusal('{}'::jsonb));
  insert into ward_internal.break_glass (id, tenant_id, issuer, subject, role, classes, minutes, reason, emergency)
    values (v_id, v_tenant, v_answer ->> 'issuer', v_answer ->> 'subject', v_answer ->> 'role', v_classes,
      p_minutes, p_reason, p_emergency)
    returning * into v_grant;
  perform ward_internal.report_grant('requested', v_grant, '{}');
  if v_answer ->> 'state' = 'started' then
    perform ward_internal.begin_grant(v_grant, v_answer, null);
  end if;
  return v_id;
end
$$;
revoke execute on function ward.break_glass(text, text[], int4, bool) from public;
comment on function ward.break_glass(text, text[], integer, boolean) is
  'asks to see these classes of columns (all if null) in the clear for so many minutes, and returns the id that an '
  'ADMIN approves within 15 minutes. p_emergency: at once and without an approver, where the tenant allows that; '
  'reviewed afterwards. Writing stays as the role has it. The grant holds from the next transaction on. Errors: WK001, '
  'WK212 no reason, WK245 refused by the keeper, WK246 no such class or time';

-- definer because requests are no tenant's to write
create or replace function ward.approve_break_glass(p_id uuid) returns timestamptz
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_grant ward_internal.break_glass := ward_internal.grant_of_tenant(p_id);
  v_answer jsonb := coalesce(ward_internal.ask_grant('approve', p_id, null, null, v_grant.reason),
    ward.raise_refusal('{}'::jsonb));
begin
  if v_grant.state <> 'started' then
    perform ward_internal.begin_grant(v_grant, v_answer, v_answer ->> 'subject');
  end if;
  return to_timestamp((v_answer ->> 'until')::double precision);
end
$$;
revoke execute on function ward.approve_break_glass(uuid) from public;
comment on function ward.approve_break_glass(uuid) is
  'grants a request and returns until when: for an ADMIN of the tenant who did not make it. Errors: WK001, WK245 '
  'refused by the keeper (expired, decided, one''s own, another role), WK246 no such request';

-- definer because requests are no tenant's to write
create or replace function ward.deny_break_glass(p_id uuid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_grant ward_internal.break_glass := ward_internal.grant_of_tenant(p_id);
  v_answer jsonb := coalesce(ward_internal.ask_grant('deny', p_id), ward.raise_refusal('{}'::jsonb));
begin
  if v_grant.state = 'requested' then
    update ward_internal.break_glass set state = v_answer ->> 'state', closed_by = v_answer ->> 'subject',
      closed_at = clock_timestamp() where id = p_id;
    perform ward_internal.report_grant('denied', v_grant, '{}');
  end if;
end
$$;
revoke execute on function ward.deny_break_glass(uuid) from public;
comment on function ward.deny_break_glass(uuid) is
  'refuses a request for good: for an ADMIN of the tenant. Errors: WK001, WK245 refused by the keeper, WK246';

-- definer because requests are no tenant's to write
create or replace function ward.end_break_glass(p_id uuid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_grant ward_internal.break_glass := ward_internal.grant_of_tenant(p_id);
  v_answer jsonb := coalesce(ward_internal.ask_grant('end', p_id), ward.raise_refusal('{}'::jsonb));
begin
  if v_grant.state in ('requested', 'started') then
    update ward_internal.break_glass set state = v_answer ->> 'state', closed_by = v_answer ->> 'subject',
      closed_at = clock_timestamp() where id = p_id;
    perform ward_internal.report_grant('ended', v_grant, jsonb_build_object('dicom', '110138', 'purpose', 'ETREAT'));
    update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_grant.tenant_id;
  end if;
end
$$;
revoke execute on function ward.end_break_glass(uuid) from public;
comment on function ward.end_break_glass(uuid) is
  'ends a grant, or takes a request back: for its subject and any ADMIN of the tenant. The keeper gives no key from '
  'now on, backends lose those they hold at the next transaction. Errors: WK001, WK245 refused by the keeper, WK246';

-- definer because requests are no tenant's to write
create or replace function ward.review_break_glass(p_id uuid, p_finding text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_grant ward_internal.break_glass := ward_internal.grant_of_tenant(p_id);
begin
  if ward.role() <> 'ADMIN' or v_grant.subject = ward.subject() then
    perform ward_internal.refuse('only an ADMIN reviews break-glass, and not his own', 'have another ADMIN do it');
  end if;
  perform ward_internal.check_reason(p_finding);
  if v_grant.started_at is null then
    perform ward_internal.fail('invalid_grant', 'the request was never granted', 'there is nothing to review');
  end if;
  update ward_internal.break_glass set reviewer = ward.subject(), reviewed_at = clock_timestamp(), finding = p_finding
    where id = p_id;
  perform ward_internal.report_grant('reviewed', v_grant, jsonb_build_object('finding', p_finding));
end
$$;
revoke execute on function ward.review_break_glass(uuid, text) from public;
comment on function ward.review_break_glass(uuid, text) is
  'records what an ADMIN found who looked at what was seen under a grant: select * from ward.audit_acts(subject). '
  'Due within 72 hours where nobody had approved. Errors: WK001, WK212 another role or one''s own, WK246';

-- definer because the keeper is asked with the token of the context
create or replace function ward.allow_break_glass(p_unapproved boolean) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.ask_grant(case when p_unapproved then 'allow' else 'forbid' end),
    ward.raise_refusal('{}'::jsonb));
  perform coalesce(ward_internal.report_event('break_glass_policy',
    jsonb_build_object('unapproved', coalesce(p_unapproved, false))::text), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.allow_break_glass(bool) from public;
comment on function ward.allow_break_glass(boolean) is
  'whether an emergency of the tenant may do without an approver: for its ADMIN, false until then; the keeper '
  'remembers it. Errors: WK001, WK245 another role';

-- definer because requests are the tenant''s to read, not to write
create or replace function ward.break_glass_requests() returns table (
  id uuid, subject text, role text, state text, classes text[], minutes integer, reason text, emergency boolean,
  requested_at timestamptz, approver text, started_at timestamptz, until timestamptz, closed_by text,
  closed_at timestamptz, reviewer text, reviewed_at timestamptz, finding text
)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward.tenant_id();
begin
  if v_tenant is null then
    perform ward.raise_no_context();
  end if;
  return query select b.id, b.subject, b.role, b.state, b.classes, b.minutes, b.reason, b.emergency, b.requested_at,
      b.approver, b.started_at, b.until, b.closed_by, b.closed_at, b.reviewer, b.reviewed_at, b.finding
    from ward.break_glass_grants as b
    where b.tenant_id = v_tenant and (ward.role() = 'ADMIN' or b.subject = ward.subject())
    order by b.requested_at desc;
end
$$;
revoke execute on function ward.break_glass_requests() from public;
comment on function ward.break_glass_requests() is
  'for an ADMIN: the tenant''s break-glass requests, the last first; for others: their own. Errors: WK001';
