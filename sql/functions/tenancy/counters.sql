-- Sequences of faces. A tenant has no privilege on them: nextval without a token would use up a smallint identity, and
-- last_value tells how many rows there are. These stand before PostgreSQL's own in a tenant's search_path, under the
-- same names.

create or replace function ward_internal.check_counter(p_counter regclass) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform coalesce(ward_internal.begin_write(coalesce(ward.try_tenant_id()::text, ''), ''), ward.raise_refusal(true));
  -- a context is of the ward that is called as the session's user; null: lastval, which is of this session
  if not starts_with(p_counter::text, quote_ident(session_user) || '.') then
    raise insufficient_privilege using message = format('permission denied for sequence %s', p_counter),
      hint = 'a tenant may use the sequences of its own ward';
  end if;
end
$$;
comment on function ward_internal.check_counter(regclass) is
  'raises unless the context may write and the sequence is of its ward';

-- definer because tenants have no privilege on sequences
create or replace function ward.nextval(p_counter regclass) returns bigint
language plpgsql volatile strict parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.check_counter(p_counter);
  return nextval(p_counter);
end
$$;
revoke execute on function ward.nextval(regclass) from public;
comment on function ward.nextval(regclass) is
  'pg_catalog.nextval for sequences of faces. Errors: WK001, WK006, 42501 not the ward''s';

-- definer because tenants have no privilege on sequences
create or replace function ward.currval(p_counter regclass) returns bigint
language plpgsql volatile strict parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.check_counter(p_counter);
  return currval(p_counter);
end
$$;
revoke execute on function ward.currval(regclass) from public;
comment on function ward.currval(regclass) is 'pg_catalog.currval for sequences of faces';

-- definer because tenants have no privilege on sequences
create or replace function ward.lastval() returns bigint
language plpgsql volatile parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.check_counter(null);
  return lastval();
end
$$;
revoke execute on function ward.lastval() from public;
comment on function ward.lastval() is 'pg_catalog.lastval for sequences of faces';

-- definer because tenants have no privilege on sequences
create or replace function ward.setval(p_counter regclass, p_value bigint, p_is_called boolean default true)
  returns bigint
language plpgsql volatile strict parallel unsafe security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.check_counter(p_counter);
  return setval(p_counter, p_value, p_is_called);
end
$$;
revoke execute on function ward.setval(regclass, int8, bool) from public;
comment on function ward.setval(regclass, bigint, boolean) is
  'pg_catalog.setval for sequences of faces, after rows were loaded with their ids';

create or replace function ward.pg_get_serial_sequence(p_table text, p_column text) returns text
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_path text[] := parse_ident(p_table);
  v_face regclass := (
    select oid from pg_class where relkind = 'v' and relname = v_path[cardinality(v_path)]
      and relnamespace::regnamespace::name = case cardinality(v_path) when 1 then session_user else v_path[1] end);
begin
  if v_face is null or not exists (select from pg_attribute where attrelid = v_face and attname = p_column) then
    return pg_catalog.pg_get_serial_sequence(p_table, p_column);
  end if;
  return (  -- the one that the column's default names
    select format('%I.%I', s.relnamespace::regnamespace::name, s.relname)
    from pg_attribute as a
    join pg_attrdef as def on def.adrelid = v_face and def.adnum = a.attnum
    join pg_depend as d on d.classid = 'pg_attrdef'::regclass and d.objid = def.oid
      and d.refclassid = 'pg_class'::regclass
    join pg_class as s on s.oid = d.refobjid and s.relkind = 'S'
    where a.attrelid = v_face and a.attname = p_column);
end
$$;
revoke execute on function ward.pg_get_serial_sequence(text, text) from public;
comment on function ward.pg_get_serial_sequence(text, text) is
  'pg_catalog.pg_get_serial_sequence, which also knows the columns of faces';
