-- The conditions that SQL code raises, by name; class WK. The classes of wardkey_core/administration.py are the table.

create or replace function ward_internal.sqlstate(p_condition text) returns text
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return '@CONDITIONS@'::jsonb ->> p_condition;  -- build.py puts them in
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
