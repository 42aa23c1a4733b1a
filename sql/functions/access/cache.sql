-- What clients cache in Redis (src/wardkey/cache). The database hands a client what it needs for that, a ticket: the
-- keeper has no socket on other hosts. It notes what a client reads to fill its cache, and journals what a client read
-- out of it. The invalidator reads from the WAL which tables are written.
--
-- Lock order: tenants, then cache_state and cache_policies.

create or replace function ward_internal.request_cache_ticket(p_hits bigint) returns text
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "cache_ticket")(p_hits)
$$;
comment on function ward_internal.request_cache_ticket(bigint) is
  'a ticket as JSON: plpython/wardkey_pg/cached.py says what is in it';

create or replace function ward_internal.begin_fill() returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "begin_fill")()
$$;

create or replace function ward_internal.end_fill(p_trouble text) returns text
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "end_fill")(p_trouble)
$$;

create or replace function ward_internal.read_cached(p_token text, p_reads text) returns boolean
language plpython3u volatile parallel unsafe security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "read_cached")(p_token, p_reads)
$$;

-- definer because the registry is read, and the secret that marks are authenticated with
create or replace function ward.request_cache_ticket(p_hits bigint default 0) returns jsonb
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(ward_internal.request_cache_ticket(p_hits), ward.raise_refusal(''::text))::jsonb;
end
$$;
revoke execute on function ward.request_cache_ticket(int8) from public;
comment on function ward.request_cache_ticket(bigint) is
  'for wardkey.cache: where Redis is, with which user and password, the keys of what this context may cache, and how '
  'long. The cache key is the keeper''s, released on the token of the context. Without a cache, and under a '
  'break-glass grant: {"on": false}. p_hits: how often the client was served out of Redis since its last ticket, for '
  'metrics. Errors: WK001, and what a keeper may say';

-- definer because policies and models are read
create or replace function ward.begin_fill() returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.begin_fill(), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.begin_fill() from public;
comment on function ward.begin_fill() is
  'for wardkey.cache: what this transaction reads from now on is going to be cached. Error: WK001';

-- definer because policies and models are read
create or replace function ward.end_fill(p_trouble text default null) returns jsonb
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(ward_internal.end_fill(p_trouble), ward.raise_refusal(''::text))::jsonb;
end
$$;
revoke execute on function ward.end_fill(text) from public;
comment on function ward.end_fill(text) is
  'for wardkey.cache: which models the transaction has queried since ward.begin_fill(), what it opened, and whether it '
  'may be cached. p_trouble: away, altered or stale, what Redis did that makes this an event. Error: WK001';

-- definer because the registry of tenants, keys and issuers is read
create or replace function ward.read_cached(p_token text, p_reads text) returns void
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.read_cached(p_token, p_reads), ward.raise_refusal(true));
end
$$;
revoke execute on function ward.read_cached(text, text) from public;
comment on function ward.read_cached(text, text) is
  'for wardkey.cache: logs in as ward.login does, and journals reads of what ward.end_fill said that a fill has '
  'opened, in one statement, which is a transaction of its own where the client has begun none. What is journalled '
  'stays when it is rolled back. Errors: those of ward.login; WK212 the policy of the tenant does not allow it, or '
  'these are no reads';

create or replace function ward.set_cache(p_url text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  if p_url ~ '@' then
    perform ward_internal.fail('not_allowed', 'the URL has a user or password in it',
      'clients get their own: leave out what stands before @');
  end if;
  lock table ward_internal.tenants in share row exclusive mode;
  delete from ward_internal.cache_state;
  insert into ward_internal.cache_state (url) select p_url where p_url is not null;
  update ward_internal.tenants set key_epoch = key_epoch + 1;
  perform ward_internal.log_event(ward_internal.master_id(), 'cache set', jsonb_build_object('url', p_url));
end
$$;
comment on function ward.set_cache(text) is
  'from now on clients cache in the Redis at this URL, once an invalidator is at work; null: nowhere';

create or replace function ward.set_cache_policy(p_slug text, p_ttl integer default 300, p_phi boolean default false)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := (ward_internal.tenant_of(p_slug)).id;
begin
  if (p_ttl between 1 and 300) is not true then
    perform ward_internal.fail('not_allowed', 'a value is cached for 1 to 300 seconds',
      'give a ttl within these bounds');
  end if;
  insert into ward_internal.cache_policies (tenant_id, ttl, phi) values (v_tenant, p_ttl, coalesce(p_phi, false))
    on conflict (tenant_id) do update set ttl = excluded.ttl, phi = excluded.phi, decided_by = excluded.decided_by,
      decided_at = excluded.decided_at;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant;
  perform ward_internal.log_event(v_tenant, 'cache policy set',
    jsonb_build_object('ttl', p_ttl, 'phi', coalesce(p_phi, false)));
end
$$;
comment on function ward.set_cache_policy(text, integer, boolean) is
  'for how many seconds at most clients cache what they have read in a tenant, and whether also what was opened from '
  'sealed columns: then each hit is in the log as reads. Errors: WK203, WK212 no such ttl, WK216';

create or replace function ward.flush_cache(p_slug text default null) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid;
begin
  perform ward_internal.require_superuser();
  if p_slug is not null then
    v_tenant := (ward_internal.tenant_of(p_slug)).id;
  end if;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = coalesce(v_tenant, id);
  perform ward_internal.log_event(coalesce(v_tenant, ward_internal.master_id()), 'cache flushed', '{}');
end
$$;
comment on function ward.flush_cache(text) is
  'makes what clients have cached of a tenant, or of all, useless. Errors: WK203, WK216';

create or replace view ward.cache as
  select t.slug, coalesce(p.ttl, 300) as ttl, coalesce(p.phi, false) as phi, p.decided_by, p.decided_at
  from ward_internal.tenants as t left join ward_internal.cache_policies as p on p.tenant_id = t.id
  where t.status not in ('shredding', 'shredded');
comment on view ward.cache is 'what clients may cache, by tenant';

-- definer because a publication takes the owner of its tables
create or replace function ward_internal.begin_invalidation(p_generation uuid, p_secret bytea) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  drop publication if exists wardkey_cache;
  create publication wardkey_cache for table ward_internal.audit_log (tenant_id, model_id, kind)
    where (not journalled) with (publish = 'insert', publish_via_partition_root = true);
  update ward_internal.cache_state set generation = p_generation, secret = p_secret, at = clock_timestamp();
  return found;
end
$$;
revoke execute on function ward_internal.begin_invalidation(uuid, bytea) from public;
comment on function ward_internal.begin_invalidation(uuid, bytea) is
  'an invalidator begins: what was cached before is of no use. Returns whether there is a cache. Its slot has to be '
  'younger than this';
