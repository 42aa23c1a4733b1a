-- Regions: where a tenant's keys are kept. What holds is the additional data of each wrap and the regions that the
-- keeper serves. Nothing here changes a region: where the row is changed by hand, its keys do not open, and the doctor
-- says why.

create or replace function ward_internal.check_region(p_region text) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if (p_region ~ '^[a-z0-9]+(-[a-z0-9]+)*$' and length(p_region) <= 63) is not true then
    perform ward_internal.fail('invalid_region', 'not a valid region',
      'use lower-case letters and digits, in words with hyphens between them: eu-de');
  end if;
end
$$;

create or replace function ward_internal.region_of(p_tenant uuid default null) returns text
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce(
    (select region from ward_internal.tenants where id = p_tenant),
    (select region from ward_internal.tenant_keys
      where tenant_id = p_tenant and tenant_id = ward_internal.master_id() order by version desc limit 1),
    (select value from ward_internal.settings where name = 'region'), 'default')
$$;
comment on function ward_internal.region_of(uuid) is
  'of a tenant, or of the master secret and so of all tenants of mode derived; null: of those to be made, as of the '
  'first master secret';
