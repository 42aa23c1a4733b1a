-- Issuers of tokens and settings of the server.

create or replace function ward.add_issuer(p_document jsonb) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  perform coalesce(ward_internal.check_issuer(p_document::text), ward.raise_refusal(true));
  insert into ward_internal.issuers (issuer, document) values (p_document ->> 'issuer', p_document)
    on conflict (issuer) do update set
      document = excluded.document, generation = nextval('ward_internal.issuer_generation');
  perform ward_internal.log_event(ward_internal.master_id(), 'issuer added', jsonb_build_object(
    'issuer', p_document -> 'issuer', 'audience', p_document -> 'audience',
    'keys', (select jsonb_agg(key -> 'kid') from jsonb_array_elements(p_document -> 'keys') as key)));
end
$$;
comment on function ward.add_issuer(jsonb) is
  'registers an issuer or replaces what is known of it: issuer, audience, keys (JWKs), and, as they need it, claims, '
  'roles, tenants, require, other_audiences, max_lifetime, max_skew. '
  'Acts from the next login on. The keeper has a list of its own: wardkey issuer add writes both';

create or replace function ward_internal.check_issuer(p_document text) returns boolean
language plpython3u volatile strict parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "check_issuer")(p_document)
$$;

create or replace function ward.remove_issuer(p_issuer text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  delete from ward_internal.issuers where issuer = p_issuer;
  if not found then
    perform ward_internal.fail('unknown_object', 'no such issuer', 'list them: select * from ward.issuers');
  end if;
  perform ward_internal.log_event(ward_internal.master_id(), 'issuer removed', jsonb_build_object('issuer', p_issuer));
end
$$;
comment on function ward.remove_issuer(text) is 'refuses the issuer''s tokens from the next login on';

create or replace view ward.issuers as
  select
    issuer,
    document ->> 'audience' as audience,
    (select array_agg(key ->> 'kid') from jsonb_array_elements(document -> 'keys') as key) as keys,
    coalesce((document ->> 'max_lifetime')::integer, 900) as max_lifetime,
    document
  from ward_internal.issuers;
comment on view ward.issuers is 'whose tokens are accepted; max_lifetime in seconds';

create or replace function ward.set(p_name text, p_value text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  if p_name in ('keeper_timeout', 'key_ttl') and (p_value ~ '^[0-9]{1,5}(\.[0-9]{1,6})?$') is not true then
    perform ward_internal.fail('not_allowed', format('%s is a number of seconds', p_name),
      'give a number from 0 to 86400');
  elsif p_name in ('cryptoperiod', 'kek_cryptoperiod', 'grace') and (p_value ~ '^[0-9]{1,3}$'
    and p_value::integer between case p_name when 'grace' then 0 else 1 end and 365) is not true
  then
    perform ward_internal.fail('not_allowed', format('%s is a number of days, at most 365', p_name),
      'NIST SP 800-57 wants a data key replaced after a year at the latest');
  elsif p_name = 'audit_retention' and (p_value ~ '^[0-9]{4,5}$' and p_value::integer >= 2192) is not true then
    perform ward_internal.fail('not_allowed', 'audit_retention is a number of days, at least 2192',
      'six years: 45 CFR 164.316(b)(2)(i)');
  elsif p_name = 'most_fields' and (p_value ~ '^[0-9]{1,10}$' and
      p_value::bigint between 1 and 4294967296) is not true then
    perform ward_internal.fail('not_allowed', 'most_fields is a number from 1 to 2^32',
      'random nonces are safe for so many values under one key (NIST SP 800-38D)');
  elsif p_name = 'catalog' and (p_value in ('closed', 'open')) is not true then
    perform ward_internal.fail('not_allowed', 'catalog is closed or open',
      'open: tenants see sizes and counts of all tables');
  elsif p_name = 'no_context' and (p_value in ('error', 'empty')) is not true then
    perform ward_internal.fail('not_allowed', 'no_context is error or empty',
      'empty: a face has no rows without a context');
  elsif p_name = 'require_baa' and (p_value in ('off', 'on')) is not true then
    perform ward_internal.fail('not_allowed', 'require_baa is off or on',
      'on: a tenant is let in with an agreement only');
  elsif p_name = 'region' then
    perform ward_internal.check_region(p_value);
  end if;
  insert into ward_internal.settings values (p_name, p_value)
    on conflict (name) do update set value = excluded.value;
  if p_name = 'catalog' then
    perform ward_internal.harden();
  end if;
  perform ward_internal.log_event(ward_internal.master_id(), 'set',
    jsonb_build_object('name', p_name, 'value', p_value));
exception when check_violation then
  perform ward_internal.fail('unknown_object', 'no such setting',
    'settings are keeper_socket, keeper_timeout, key_ttl, cryptoperiod, kek_cryptoperiod, most_fields, grace, '
    'audit_slot, audit_retention, no_context, catalog, require_baa and region');
end
$$;
comment on function ward.set(text, text) is
  'sets keeper_socket (path), keeper_timeout (seconds), key_ttl (seconds a backend keeps a data key); cryptoperiod and '
  'kek_cryptoperiod (days after which a key is to be replaced, 365), most_fields (values sealed under one key, 2^31), '
  'grace (days between retiring a key and destroying it, 30), audit_slot (the scribe''s; without it nobody logs in), '
  'audit_retention (days that entries of the audit log are kept, 2192), no_context (error, or empty: what a query on a '
  'face gives without a context), catalog (closed, or open: tenants see sizes and counts), require_baa (off, or on: no '
  'tenant is let in without a business associate agreement), region (of tenants that are made from now on and of the '
  'first master secret, default)';
