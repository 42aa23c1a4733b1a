-- Tokens that read metrics over HTTP. They are made outside of the database, which has only their digests; the service
-- that compares them is wardkey/metrics.

create or replace function ward_internal.require_metrics_owner(p_slug text) returns uuid
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := case when p_slug is null then ward_internal.master_id() else (
    select id from ward_internal.tenants where slug = p_slug and status not in ('shredding', 'shredded')) end;
begin
  perform ward_internal.require_superuser();
  if v_tenant is null then
    perform ward_internal.fail('unknown_tenant', 'no such tenant', 'see select * from ward.tenants');
  end if;
  return v_tenant;
end
$$;
comment on function ward_internal.require_metrics_owner(text) is
  'the tenant''s id, the platform''s where slug is null; raises unless a superuser asks';

create or replace function ward.set_metrics_token(p_slug text, p_sha256 bytea) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.require_metrics_owner(p_slug);
begin
  insert into ward_internal.metrics_tokens (tenant_id, sha256) values (v_tenant, p_sha256)
    on conflict (tenant_id) do update set sha256 = excluded.sha256, made_by = excluded.made_by,
      made_at = excluded.made_at;
  perform ward_internal.log_event(v_tenant, 'metrics token made');
end
$$;
comment on function ward.set_metrics_token(text, bytea) is
  'from now on the token with this SHA-256 digest, and no earlier one, reads the metrics of the tenant; of the '
  'platform where slug is null. An event of its log. Errors: WK203 no such tenant';

create or replace function ward.drop_metrics_token(p_slug text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.require_metrics_owner(p_slug);
begin
  delete from ward_internal.metrics_tokens where tenant_id = v_tenant;
  if found then
    perform ward_internal.log_event(v_tenant, 'metrics token dropped');
  end if;
end
$$;
comment on function ward.drop_metrics_token(text) is
  'nobody reads the metrics of the tenant any more; of the platform where slug is null. An event. Errors: WK203';
