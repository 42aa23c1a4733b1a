-- AES-256-GCM under the tenant's key; the bytes are described in plpython/wardkey_core/envelope.py.
--
-- Faces call try_unseal, which is STABLE: VOLATILE would keep PostgreSQL from flattening faces and would open columns
-- nobody asked for. Its parameters have no names because PL/Python makes a variable of each named one, at every call.
-- What it refuses is null, and raised by the face.

create or replace function ward.try_unseal(bytea, bytea, bytea) returns bytea
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "unseal")
return SD["call"](*args)
$$;
revoke execute on function ward.try_unseal(bytea, bytea, bytea) from public;
comment on function ward.try_unseal(bytea, bytea, bytea) is
  'as ward.unseal_bytes, null for an error, for ward.raise_refusal to raise. Faces call it';

create or replace function ward.try_unseal_text(bytea, bytea, bytea) returns text
language plpython3u stable strict parallel restricted security invoker as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "unseal_text")(*args)
$$;
revoke execute on function ward.try_unseal_text(bytea, bytea, bytea) from public;
comment on function ward.try_unseal_text(bytea, bytea, bytea) is
  'as ward.unseal, null for an error, for ward.raise_refusal to raise: convert_from would tell the bytes of what is no '
  'text';

create or replace function ward.unseal(bytea, bytea, bytea) returns text
language plpgsql stable strict parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return coalesce(ward.try_unseal_text($1, $2, $3), ward.raise_if_refused(null::text));
end
$$;
revoke execute on function ward.unseal(bytea, bytea, bytea) from public;
comment on function ward.unseal(bytea, bytea, bytea) is
  'unseal(sealed, column id, row id): the plaintext in its canonical text form, of what the log or a dump has. '
  'Errors: WK001 no context, WK101 does not open, WK102–WK105 no key';

create or replace function ward.unseal_bytes(bytea, bytea, bytea) returns bytea
language plpgsql stable strict parallel restricted security invoker set search_path = pg_catalog, pg_temp as $$
begin
  return nullif(coalesce(ward.try_unseal($1, $2, $3), ward.raise_refusal(''::bytea)),
    '\xff20776172646b65792073686f7773206e756c6c'::bytea);  -- ward_internal.masked_null, not a tenant's to call
end
$$;
revoke execute on function ward.unseal_bytes(bytea, bytea, bytea) from public;
comment on function ward.unseal_bytes(bytea, bytea, bytea) is 'as ward.unseal, for columns of type bytea';

create or replace function ward_internal.seal(bytea[], bytea, bytea) returns bytea[]
language plpython3u volatile strict parallel unsafe security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "seal")
return SD["call"](*args)
$$;
comment on function ward_internal.seal(bytea[], bytea, bytea) is
  'seal(values, column ids one after the other, row id): the values under the active key of the context''s tenant, '
  'null for null; null when refused';

create or replace function ward_internal.check_rewrite(p_columns bytea, p_emptied bytea) returns boolean
language plpython3u volatile strict parallel unsafe security invoker
set search_path = pg_catalog, pg_temp as $$
from wardkey_pg.entry import bind
return bind("@VERSION@", "check_rewrite")(*args)
$$;
comment on function ward_internal.check_rewrite(bytea, bytea) is
  'null, for ward.raise_refusal, unless the role sees each of p_columns in the clear and may write each of p_emptied: '
  'ids one after the other';

create or replace function ward.parse_array(p_text text) returns text[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp set array_nulls = on as $$
begin
  return p_text::text[];
end
$$;
revoke execute on function ward.parse_array(text) from public;
comment on function ward.parse_array(text) is
  'reads the canonical text of an array: NULL is null in it, also where a session has set array_nulls to off. Faces '
  'call it';

-- Canonical text of the types whose text form depends on a setting. ward_internal.canonical_expression says when these
-- are used: for most types the cast to text is canonical.

create or replace function ward_internal.canonical(p_value timestamptz) returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp set datestyle = 'ISO, YMD' set timezone = 'UTC' as $$
begin
  return p_value::text;
end
$$;

create or replace function ward_internal.canonical(p_value interval) returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp set intervalstyle = 'iso_8601' as $$
begin
  return p_value::text;
end
$$;

create or replace function ward_internal.canonical(p_value real) returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp set extra_float_digits = 1 as $$
begin
  return p_value::text;
end
$$;

create or replace function ward_internal.canonical(p_value double precision) returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp set extra_float_digits = 1 as $$
begin
  return p_value::text;
end
$$;
