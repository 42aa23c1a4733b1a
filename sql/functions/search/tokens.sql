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
from wardkey_pg.entry import bind
return bind("@VERSION@", "find_query")(*args)
$$;
comment on function ward_internal.find_query(text, text[], text) is
  'find_query(searches as JSON, needles, former classes by search as JSON): a query for the keys of the rows that '
  'match and the tokens that are its $1; null when refused. Journals which columns are searched';

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
begin
  if exists (
    select from ward_internal.pending_searches where tenant_id = p_tenant and search_id in (
      select search from unnest(p_searches, p_needles) as given (search, needle) where needle is not null))
  then
    perform ward_internal.fail('search_not_built', 'rows from before this search was added have no tokens yet',
      'an operator builds it: wardkey keys reseal SLUG');
  end if;
  return (select coalesce(jsonb_object_agg(id, former_classes), '{}')::text from ward_internal.searches
    where id = any (p_searches) and former_classes <> '{}');
end
$$;
comment on function ward_internal.check_searches(uuid, uuid[], text[]) is
  'raises WK272 if one that is used is not built; returns the classes that values may still be under, by search';
