-- Tokens of sealed values, and the way from a needle to rows: what runs in a backend for writers and for find
-- functions. wardkey_core/search.py says what a token is.

create or replace function ward_internal.make_tokens(bytea[], text) returns text[]
language plpython3u volatile strict parallel unsafe security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "make_tokens")
return SD["call"](*args)
$$;
comment on function ward_internal.make_tokens(bytea[], text) is
  'make_tokens(values, searches as JSON): the tokens of each value under the active key, null for null; null when '
  'refused';

create or replace function ward_internal.find_query(text, text[], text) returns text[]
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "find_query")
return SD["call"](*args)
$$;
comment on function ward_internal.find_query(text, text[], text) is
  'find_query(searches as JSON, needles, former classes by search as JSON): a query for the keys of the rows that '
  'match, the tokens that are its $1, and the place of the one search that needs no query; null when refused. Journals '
  'which columns are searched';

create or replace function ward_internal.is_found(text, text, text, text) returns boolean
language plpython3u stable strict parallel restricted cost 10000 security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "is_found")
return SD["call"](*args)
$$;
comment on function ward_internal.is_found(text, text, text, text) is
  'is_found(value, kind, normaliser, needle): whether an opened value matches';

create or replace function ward_internal.check_searches(p_tenant uuid, p_searches uuid[], p_needles text[]) returns text
language plpgsql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_is_pending boolean;
  v_former jsonb;
begin
  select bool_or(p.search_id is not null),
      jsonb_object_agg(s.id, s.former_classes) filter (where s.former_classes <> '{}')
    into v_is_pending, v_former
    from ward_internal.searches as s
    left join ward_internal.pending_searches as p on p.tenant_id = p_tenant and p.search_id = s.id
    where s.id = any (p_searches) and p_needles[array_position(p_searches, s.id)] is not null;
  if v_is_pending then
    perform ward_internal.fail('search_not_built', 'rows from before this search was added have no tokens yet',
      'an operator builds it: wardkey keys reseal SLUG');
  end if;
  return coalesce(v_former, '{}');
end
$$;
comment on function ward_internal.check_searches(uuid, uuid[], text[]) is
  'raises WK272 if one that is used is not built; returns the classes that values may still be under, by search';
