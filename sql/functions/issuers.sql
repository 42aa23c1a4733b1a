-- Issuers of tokens and settings of the server.

create or replace function ward.add_issuer(p_document jsonb) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_issuer(p_document::text);
  insert into ward_internal.issuers (issuer, document) values (p_document ->> 'issuer', p_document)
    on conflict (issuer) do update set
      document = excluded.document, generation = nextval('ward_internal.issuer_generation');
end
$$;
comment on function ward.add_issuer(jsonb) is
  'registers an issuer or replaces what is known of it: issuer, audience, claims, max_lifetime, max_skew, keys (JWKs). Acts '
  'from the next login on. The keeper has a list of its own: wardkey issuer add writes both';

create or replace function ward_internal.check_issuer(p_document text) returns void
language plpython3u volatile strict parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
bind("@VERSION@", "check_issuer")(p_document)
$$;

create or replace function ward.remove_issuer(p_issuer text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  delete from ward_internal.issuers where issuer = p_issuer;
  if not found then
    perform ward_internal.fail('unknown_object', 'no such issuer', 'list them: select * from ward.issuers');
  end if;
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
    perform ward_internal.fail('not_allowed', format('%s is a number of seconds', p_name), 'give a number from 0 to 86400');
  end if;
  insert into ward_internal.settings values (p_name, p_value)
    on conflict (name) do update set value = excluded.value;
exception when check_violation then
  perform ward_internal.fail('unknown_object', 'no such setting',
    'settings are keeper_socket (path), keeper_timeout (seconds) and key_ttl (seconds)');
end
$$;
comment on function ward.set(text, text) is
  'sets keeper_socket (path), keeper_timeout (seconds) or key_ttl (seconds a backend keeps a data key)';
