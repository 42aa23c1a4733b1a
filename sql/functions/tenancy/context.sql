-- Who is asking. The state lives in the memory of wardkey_pg (plpython/wardkey_pg/context.py), where SQL cannot write:
-- no setting, no table, no temporary object is trusted. Functions of ward are for tenants; those of ward_internal are
-- reached through the gates here, which run as their owner because the registry is nobody else's to read.
--
-- No function in PL/Python raises one of our errors: PostgreSQL would add its traceback to the CONTEXT. It returns
-- null, and what calls it raises what was refused: coalesce(f(…), ward.raise_refusal(true)).
--
-- The functions that log in are not STRICT: NULL is a failed login, and ends the context there was.

create or replace function ward_internal.login(p_token text) returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "login")(p_token)
$$;

create or replace function ward_internal.login_session(p_token text) returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "login_session")(p_token)
$$;

create or replace function ward.take_refusal() returns text[]
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "take_refusal")()
$$;
revoke execute on function ward.take_refusal() from public;
comment on function ward.take_refusal() is 'SQLSTATE, message and hint for ward.raise_refusal; called by itself';

create or replace function ward.raise_refusal(p_value anyelement) returns anyelement
language plpgsql stable strict parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_refusal text[] := coalesce(ward.take_refusal(),
    '{WK000,wardkey: nothing was refused,this is a defect of wardkey: please report it}');
begin
  raise exception using errcode = v_refusal[1], message = v_refusal[2], hint = v_refusal[3];
end
$$;
revoke execute on function ward.raise_refusal(anyelement) from public;
comment on function ward.raise_refusal(anyelement) is
  'raises what a function refused and returned null for; null for null, of which strict functions make null';

create or replace function ward.raise_if_refused(p_null anyelement) returns anyelement
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_refusal text[] := ward.take_refusal();
begin
  if v_refusal is not null then
    raise exception using errcode = v_refusal[1], message = v_refusal[2], hint = v_refusal[3];
  end if;
  return p_null;
end
$$;
revoke execute on function ward.raise_if_refused(anyelement) from public;
comment on function ward.raise_if_refused(anyelement) is
  'the same after a function whose null may be its answer: then it returns its argument';

create or replace function ward_internal.renew_session() returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "renew_session")()
$$;

create or replace function ward_internal.renew_keys() returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "renew_keys")()
$$;

create or replace function ward_internal.look_up_now() returns boolean
language plpython3u stable parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "look_up_now")()
$$;
comment on function ward_internal.look_up_now() is
  'runs the query that wardkey_pg asks for with a snapshot of now: under REPEATABLE READ the transaction''s own does '
  'not show a revocation. STABLE, because other functions query with a snapshot of the transaction''s';

create or replace function ward_internal.try_tell_backends() returns boolean
language plpython3u volatile parallel unsafe security invoker set search_path = pg_catalog, pg_temp as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "tell_backends")()
$$;

-- definer because ward_owner, as whom ward.narrow_policy and others raise an epoch, may call little
create or replace function ward_internal.tell_backends() returns trigger
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.try_tell_backends(), ward.raise_refusal(true));
  return null;
end
$$;
revoke execute on function ward_internal.tell_backends() from public;
comment on function ward_internal.tell_backends() is
  'has every backend look tenant and issuer up again at its next login: within a second of a look-up it does so only '
  'when PostgreSQL told it of some change in the catalog, and this makes one';

create or replace trigger tell_backends after insert or update or delete or truncate on ward_internal.tenants
  for each statement execute function ward_internal.tell_backends();
alter table ward_internal.tenants enable always trigger tell_backends;
create or replace trigger tell_backends after insert or update or delete or truncate on ward_internal.issuers
  for each statement execute function ward_internal.tell_backends();
alter table ward_internal.issuers enable always trigger tell_backends;

create or replace function ward_internal.begin_write(p_tenant text, p_deleted text) returns boolean
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "begin_write")
return SD["call"](*args)
$$;
comment on function ward_internal.begin_write(text, text) is
  'null unless the context is of this tenant and its role may write: see ward.raise_refusal; else whether the '
  'client''s statement is an INSERT … ON CONFLICT DO NOTHING. p_deleted: the model of a row that is to be '
  'deleted, else empty';

create or replace function ward_internal.report_event(p_operation text, p_detail text) returns boolean
language plpython3u volatile strict parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "report_event")(p_operation, p_detail)
$$;
comment on function ward_internal.report_event(text, text) is
  'journals an event of the context, or of the session''s user: it stays after a rollback. The detail, a JSON '
  'object, may hold what that of ward_internal.log_event may';

create or replace function ward_internal.refuse(p_message text, p_hint text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.report_event('refusal',
    jsonb_build_object('sqlstate', ward_internal.sqlstate('not_allowed'), 'reason', p_message)::text),
    ward.raise_refusal(true));
  perform ward_internal.fail('not_allowed', p_message, p_hint);
end
$$;
comment on function ward_internal.refuse(text, text) is
  'refuses a tenant''s user something that its role may not do, and journals that; never returns';

-- definer because the registry of tenants, keys and issuers is read
create or replace function ward.login(p_token text) returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.login(p_token), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.login(text) from public;
comment on function ward.login(text) is
  'makes a JWT''s claims the context of this transaction: signature, issuer, audience, times, tenant and status are '
  'checked. Ends with the transaction. Pass the token as a parameter, not as a literal. '
  'Errors: WK002 invalid, WK003 expired, WK004 another tenant''s, WK005 tenant not active';

-- definer because the registry of tenants, keys and issuers is read
create or replace function ward.login_session(p_token text) returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.login_session(p_token), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.login_session(text) from public;
comment on function ward.login_session(text) is
  'as ward.login, until the token expires, ward.logout(), or DISCARD ALL and RESET ALL: for psql, never behind a '
  'pooler that shares connections by transaction. Turns parallel plans off in the session';

-- definer because the registry of tenants, keys and issuers is read
create or replace function ward.renew_session() returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.renew_session(), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.renew_session() from public;
comment on function ward.renew_session() is
  'takes the context of ward.login_session over into this transaction, if the tenant is still active; called by itself';

-- definer because the registry of tenants, keys and issuers is read
create or replace function ward.renew_keys() returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.renew_keys(), ward.raise_refusal(true));  -- volatile: looks with a snapshot of its own
end
$$;
revoke execute on function ward.renew_keys() from public;
comment on function ward.renew_keys() is
  'has the context look tenant, issuer and keys up again, each second and when keys were rotated after it began; '
  'called by itself. Errors: WK002, WK004, WK005, which end the context';

create or replace function ward.try_logout() returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "logout")()
$$;
revoke execute on function ward.try_logout() from public;
comment on function ward.try_logout() is 'called by ward.logout';

create or replace function ward.logout() returns void
language plpgsql volatile parallel unsafe security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward.try_logout(), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.logout() from public;
comment on function ward.logout() is 'ends the context';

-- The policies of every leaf ask this once a statement.
create or replace function ward.try_tenant_id() returns uuid
language plpython3u stable parallel restricted security invoker as $$
try:
    return SD["call"]()
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "tenant_id")
return SD["call"]()
$$;
revoke execute on function ward.try_tenant_id() from public;
comment on function ward.try_tenant_id() is
  'as ward.tenant_id, null also for an error, for ward.raise_if_refused to raise. Policies call it';

create or replace function ward.tenant_id() returns uuid
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(ward.try_tenant_id(), ward.raise_if_refused(null::uuid));
end
$$;
revoke execute on function ward.tenant_id() from public;
comment on function ward.tenant_id() is 'tenant of the current context, NULL without one. Error: WK003 expired';

-- definer because the settings are read
create or replace function ward.is_context_required() returns boolean
language plpgsql stable parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return not exists (select from ward_internal.settings where name = 'no_context' and value = 'empty');
end
$$;
revoke execute on function ward.is_context_required() from public;
comment on function ward.is_context_required() is 'whether a query on a face fails without a context; called by itself';

-- Every face asks this once a statement, whether it has rows or not.
create or replace function ward.require_context(p_model uuid) returns boolean
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "require_context")
return SD["call"](*args)
$$;
revoke execute on function ward.require_context(uuid) from public;
comment on function ward.require_context(uuid) is
  'true in a context, and journals that the transaction queries the face of this model; without one null, for '
  'ward.raise_refusal to raise WK001, or false where ward.set(''no_context'', ''empty'') says so. Null also past the '
  'token''s expiry: WK003';

create or replace function ward.raise_no_context() returns uuid
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward.raise_if_refused(null::uuid);
  -- of no model
  perform coalesce(ward.require_context('00000000-0000-0000-0000-000000000000'), ward.raise_refusal(true));
  return null;
end
$$;
revoke execute on function ward.raise_no_context() from public;
comment on function ward.raise_no_context() is
  'raises WK001 where a face without a context does, else null. Policies of leaves call it when there is no tenant: in '
  'an outer join PostgreSQL 16 and later ask the face for its context only for a row that joins';

create or replace function ward.try_claims() returns text[]
language plpython3u stable parallel restricted security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "claims")()
$$;
revoke execute on function ward.try_claims() from public;
comment on function ward.try_claims() is
  'subject and role of the context, empty without one; called by ward.subject and ward.role';

create or replace function ward.subject() returns text
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return (coalesce(ward.try_claims(), ward.raise_refusal('{}'::text[])))[1];
end
$$;
revoke execute on function ward.subject() from public;
comment on function ward.subject() is 'who the token speaks for (claim sub), NULL without a context';

create or replace function ward.role() returns text
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return (coalesce(ward.try_claims(), ward.raise_refusal('{}'::text[])))[2];
end
$$;
revoke execute on function ward.role() from public;
comment on function ward.role() is
  'role of the token: SUPER_ADMIN, ADMIN, EVALUATOR, ANALYST or VIEWER; NULL without a context. See ward.policy';

create or replace function ward.try_claim(p_name text) returns text
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "claim")
return SD["call"](*args)
$$;
revoke execute on function ward.try_claim(text) from public;
comment on function ward.try_claim(text) is 'as ward.claim, null also for an error, for ward.raise_if_refused to raise';

create or replace function ward.claim(p_name text) returns text
language plpgsql stable parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(ward.try_claim(p_name), ward.raise_if_refused(null::text));
end
$$;
revoke execute on function ward.claim(text) from public;
comment on function ward.claim(text) is
  'a claim of the context''s token; NULL if the token has none of that name, or one that is not a printable string '
  'of at most 1,024 characters, and for iss, aud, exp, nbf, iat and jti. For row rules: see ward.add_row_rule. '
  'Error: WK001';
