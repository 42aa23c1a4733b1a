-- Incidents: an operator says what was lost, the officer judges, somebody closes. Who saw what is counted by wardkey
-- incident scope, from the log; of entries nothing here asks but whether a lost credential is known at all.

create or replace function ward_internal.lock_incident(p_id uuid) returns ward_internal.incidents
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_incident ward_internal.incidents;
begin
  perform ward_internal.require_superuser();
  select * into v_incident from ward_internal.incidents where id = p_id for update;
  if not found then
    perform ward_internal.fail('unknown_object', 'no incident has that id', 'list them: select * from ward.incidents');
  elsif v_incident.closed_at is not null then
    perform ward_internal.fail('invalid_incident', 'the incident is closed', 'open another one that names it');
  end if;
  return v_incident;
end
$$;
comment on function ward_internal.lock_incident(uuid) is
  'an incident that is open, locked until the transaction ends. Errors: WK204, WK212, WK285 closed';

create or replace function ward_internal.is_login_known(p_tenant uuid, p_kind text, p_what text) returns boolean
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.audit_leaf(p_tenant);
  v_known boolean := false;
begin
  if to_regclass(v_leaf) is not null then
    execute format('select exists (select from %s where kind = ''e'' and operation = ''login'' and case $1
      when ''token'' then detail ->> ''token_sha256'' when ''subject'' then subject
      when ''password'' then database_role when ''host'' then address end = $2)', v_leaf)
    into v_known using p_kind, p_what;
  end if;
  return v_known;
end
$$;
comment on function ward_internal.is_login_known(uuid, text, text) is
  'whether the tenant''s log has a login with that token (its SHA-256), or of that subject, login role or address';

create or replace function ward_internal.check_loss(p_loss ward_internal.incident_losses) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_begins timestamptz;
begin
  if p_loss.kind = 'dump' then
    -- as far as the logs of the tenants that were there then reach back
    select max(begins) into v_begins from (
      select coalesce((select min(m.begins) from ward_internal.audit_months(t.id) as m), 'infinity') as begins
      from ward_internal.tenants as t
      where t.created_at <= p_loss.since and coalesce(t.id = p_loss.tenant_id, true)) as logs;
    v_begins := coalesce(v_begins, (select min(created_at) from ward_internal.tenants
      where coalesce(id = p_loss.tenant_id, true)));
    if (p_loss.since < v_begins) is not false then
      perform ward_internal.fail('invalid_incident', 'the dump was made before the log begins',
        format('what is known begins at %s: of what was there before only exports of the log tell', v_begins));
    end if;
  elsif p_loss.kind = 'key' then
    if not exists (select from ward_internal.tenant_keys
      where tenant_id = p_loss.tenant_id and version = p_loss.version) then
      perform ward_internal.fail('unknown_object', 'the tenant''s key has no such version',
        'list them: wardkey keys status');
    end if;
  elsif p_loss.what <> 'server' or p_loss.kind <> 'host' then
    if not exists (select from ward_internal.tenants as t where coalesce(t.id = p_loss.tenant_id, true)
      and ward_internal.is_login_known(t.id, p_loss.kind, p_loss.what)) then
      perform ward_internal.fail('not_in_the_log', format('no log has a login with that %s', p_loss.kind),
        'as far as the logs tell nothing was read with it; if its last seconds count, ask again when they are sealed');
    end if;
  end if;
end
$$;
comment on function ward_internal.check_loss(ward_internal.incident_losses) is
  'Errors: WK204 no such version, WK228 no login with it, WK285 a dump of before the log';

create or replace function ward.open_incident(
  p_title text, p_discovered timestamptz, p_losses jsonb, p_patients text default 'patients'
) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid;
  v_id uuid;
  v_loss ward_internal.incident_losses;
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_title);
  select id into v_model from ward_internal.models where p_patients in (face::text, relation::text)
    order by face::text = p_patients desc limit 1;
  if v_model is null then
    perform ward_internal.fail('unknown_object', 'no model table of that name has the patients',
      format('name it; model tables: %s', (select coalesce(string_agg(face, ', ' order by face), 'none')
        from ward_internal.models)));
  end if;
  begin
    insert into ward_internal.incidents (title, discovered_at, patients_model)
      values (p_title, p_discovered, v_model) returning id into v_id;
    insert into ward_internal.incident_losses (incident_id, number, kind, what, tenant_id, version, since, until)
      select v_id, l.number, l.loss ->> 'kind', l.loss ->> 'what',
        case when l.loss ? 'tenant' then ward_internal.audit_tenant(l.loss ->> 'tenant') end,
        (l.loss ->> 'version')::integer, (l.loss ->> 'since')::timestamptz, (l.loss ->> 'until')::timestamptz
      from jsonb_array_elements(p_losses) with ordinality as l (loss, number);
  exception when check_violation or not_null_violation then
    perform ward_internal.fail('invalid_incident', 'these are not the facts of an incident',
      'it was discovered in the past; a window ends after it begins; a token is named by its SHA-256');
  end;
  if not exists (select from ward_internal.incident_losses where incident_id = v_id) then
    perform ward_internal.fail('invalid_incident', 'an incident names what was lost', 'name a loss or more');
  end if;
  for v_loss in select * from ward_internal.incident_losses where incident_id = v_id order by number loop
    perform ward_internal.check_loss(v_loss);
  end loop;
  perform ward_internal.log_event(ward_internal.master_id(), 'incident opened', jsonb_build_object('incident', v_id,
    'title', p_title, 'losses', (select jsonb_agg(kind order by number) from ward_internal.incident_losses
      where incident_id = v_id)));
  return v_id;
end
$$;
comment on function ward.open_incident(text, timestamptz, jsonb, text) is
  'opens an incident and returns its id. p_losses: objects with kind (dump, token, password, key, subject, host), what '
  'it is known by (of a token its SHA-256, never the token), tenant (slug, or id of one that is gone; left out: any), '
  'version of a key, since, until. p_patients: the model table of which a row is a patient. An event of the '
  'platform''s log. Errors: WK203, WK204, WK212, WK228 no login with it, WK285 a dump of before the log, or no facts';

create or replace function ward.judge_incident(p_id uuid, p_factor integer, p_is_low boolean, p_reason text)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.lock_incident(p_id);
  perform ward_internal.check_reason(p_reason);
  if (p_factor between 1 and 4 and p_is_low is not null) is not true then
    perform ward_internal.fail('invalid_incident', 'that is no factor', 'factors are 1 to 4, low or not');
  end if;
  insert into ward_internal.incident_judgements (incident_id, factor, is_low, reason)
    values (p_id, p_factor, p_is_low, p_reason)
    on conflict (incident_id, factor) do update set is_low = excluded.is_low, reason = excluded.reason,
      judged_by = session_user, judged_at = clock_timestamp();
  perform ward_internal.log_event(ward_internal.master_id(), 'incident judged', jsonb_build_object('incident', p_id,
    'factor', p_factor, 'low', p_is_low, 'reason', p_reason));
end
$$;
comment on function ward.judge_incident(uuid, integer, boolean, text) is
  'the officer''s word on a factor of 45 CFR 164.402(2): whether it makes a compromise improbable, and why. It may '
  'change until the incident is closed; each is an event. Errors: WK204, WK212, WK285';

create or replace function ward.close_incident(p_id uuid, p_conclusion text, p_reason text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_scope ward_internal.incident_scopes;
begin
  perform ward_internal.lock_incident(p_id);
  perform ward_internal.check_reason(p_reason);
  select * into v_scope from ward_internal.incident_scopes where incident_id = p_id order by at desc limit 1;
  if not found then
    perform ward_internal.fail('invalid_incident', 'nobody has looked how far it reaches',
      format('first: wardkey incident scope %s', p_id));
  elsif p_conclusion = 'low-probability' and (select count(*) filter (where is_low) from
    ward_internal.incident_judgements where incident_id = p_id) < 4 then
    perform ward_internal.fail('invalid_incident', 'it is presumed to be a breach: not all four factors are judged low',
      format('judge them: wardkey incident assess %s', p_id));
  elsif p_conclusion = 'secured' and not v_scope.is_secured then
    perform ward_internal.fail('invalid_incident', 'the evidence does not show that all of it stayed sealed',
      format('see the verdicts: wardkey incident scope %s', p_id));
  elsif p_conclusion in ('breach', 'low-probability', 'secured') is not true then
    perform ward_internal.fail('invalid_incident', 'that is no conclusion',
      'conclusions are breach, low-probability and secured');
  end if;
  update ward_internal.incidents set conclusion = p_conclusion, reason = p_reason, closed_by = session_user,
    closed_at = clock_timestamp() where id = p_id;
  perform ward_internal.log_event(ward_internal.master_id(), 'incident closed', jsonb_build_object('incident', p_id,
    'conclusion', p_conclusion, 'reason', p_reason));
end
$$;
comment on function ward.close_incident(uuid, text, text) is
  'closes an incident for good: breach; low-probability, where all four factors are judged low (45 CFR 164.402(2)); '
  'secured, where the last scope shows that what went stayed sealed. Errors: WK204, WK212, WK285 the evidence or the '
  'judgements do not bear that out';

create or replace view ward.incidents as
  select i.id, i.title, coalesce(i.conclusion, 'open') as state, i.discovered_at, i.opened_at, i.opened_by,
    (select string_agg(l.kind, ', ' order by l.number) from ward_internal.incident_losses as l
      where l.incident_id = i.id) as losses,
    s.tenants, s.patients, s.at as counted_at, i.closed_at, i.closed_by, i.reason
  from ward_internal.incidents as i
  left join lateral (select tenants, patients, at from ward_internal.incident_scopes as s where s.incident_id = i.id
    order by s.at desc limit 1) as s on true;
comment on view ward.incidents is
  'incidents, for operators. tenants and patients: as last counted by wardkey incident scope; null: not yet';
