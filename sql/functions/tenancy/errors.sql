-- The conditions SQL code raises, by name; class WK, the same table as wardkey_core/administration.py.

create or replace function ward_internal.sqlstate(p_condition text) returns text
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return case p_condition
  when 'table_in_use' then 'WK114'
  when 'invalid_slug' then 'WK201'
  when 'duplicate_tenant' then 'WK202'
  when 'unknown_tenant' then 'WK203'
  when 'unknown_object' then 'WK204'
  when 'no_primary_key' then 'WK205'
  when 'type_cannot_be_sealed' then 'WK206'
  when 'sealed_index' then 'WK207'
  when 'table_not_empty' then 'WK208'
  when 'unsupported' then 'WK209'
  when 'ward_not_empty' then 'WK210'
  when 'not_confirmed' then 'WK211'
  when 'not_allowed' then 'WK212'
  when 'rotation_running' then 'WK213'
  when 'key_in_use' then 'WK214'
  when 'rotation_paused' then 'WK215'
  when 'tenant_shredded' then 'WK216'
  when 'on_hold' then 'WK217'
  when 'entry_too_long' then 'WK402'
  when 'change_refused' then 'WK218'
  when 'not_in_the_log' then 'WK228'
  when 'restore_refused' then 'WK229'
  when 'no_baa' then 'WK230'
  when 'invalid_baa' then 'WK231'
  when 'mask_does_not_fit' then 'WK233'
  when 'invalid_policy' then 'WK234'
  when 'policy_widened' then 'WK235'
  when 'invalid_budget' then 'WK254'
  when 'invalid_honey_row' then 'WK256'
  when 'invalid_region' then 'WK241'
  when 'rule_names_sealed_column' then 'WK258'
  when 'rule_calls_function' then 'WK259'
  when 'invalid_row_rule' then 'WK260'
  when 'rule_for_unknown_role' then 'WK261'
  when 'claim_does_not_fit' then 'WK262'
  when 'invalid_measure' then 'WK263'
  when 'no_group_floor' then 'WK264'
  when 'period_not_closed' then 'WK265'
  when 'already_published' then 'WK266'
  when 'not_delegated' then 'WK267'
  when 'would_reveal' then 'WK268'
  when 'invalid_counts' then 'WK269'
  when 'invalid_search' then 'WK271'
  when 'search_not_built' then 'WK272'
  when 'invalid_grant' then 'WK246'
  when 'invalid_incident' then 'WK285'
end;
comment on function ward_internal.sqlstate(text) is 'SQLSTATE of a condition raised in SQL';

create or replace function ward_internal.fail(p_condition text, p_message text, p_hint text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  raise exception using
    errcode = ward_internal.sqlstate(p_condition),
    message = p_message,
    hint = p_hint;
end
$$;
comment on function ward_internal.fail(text, text, text) is 'raises one of wardkey''s conditions; never returns';

create or replace function ward_internal.require_superuser() returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if not (select rolsuper from pg_roles where rolname = current_user) then
    perform ward_internal.fail('not_allowed', 'only a superuser may do this',
      'connect as the database''s administrator; wardkey psql without --tenant does');
  end if;
end
$$;
comment on function ward_internal.require_superuser() is
  'administration makes roles and schemas; it is done by superusers, who see only ciphertext';
