-- Views have no constraints in PostgreSQL's catalogs: what tools ask there tells them columns, types and defaults of a
-- face, but no keys. This tells the rest.

-- definer because the registry of models is read
create or replace function ward.face_constraints()
returns table (
  face name, constraint_name name, constraint_type text, columns name[], referenced_table text,
    referenced_columns name[],
  check_clause text
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select m.face, c.conname,
    case c.contype when 'p' then 'PRIMARY KEY' when 'u' then 'UNIQUE' when 'f' then 'FOREIGN KEY' else 'CHECK' end,
    array(select attname from unnest(c.conkey) with ordinality as k (num, place)
      join pg_attribute on attrelid = c.conrelid and attnum = num order by place),
    case c.contype when 'f' then coalesce((select quote_ident(t.face) from ward_internal.models as t
      where t.shape = c.confrelid), c.confrelid::regclass::text) end,
    case c.contype when 'f' then array(select attname from unnest(c.confkey) with ordinality as k (num, place)
      join pg_attribute on attrelid = c.confrelid and attnum = num order by place) end,
    case c.contype when 'c' then pg_get_expr(c.conbin, c.conrelid) end
  from ward_internal.models as m join pg_constraint as c on c.conrelid = m.shape
  where c.contype in ('p', 'u', 'f', 'c')
  union all
  select m.face, null, 'NOT NULL', array[a.attname], null, null, null
  from ward_internal.models as m join pg_attribute as a on a.attrelid = m.shape
  where a.attnum > 0 and not a.attisdropped and a.attnotnull
  order by 1, 3, 2, 4
$$;
revoke execute on function ward.face_constraints() from public;
comment on function ward.face_constraints() is
  'keys, foreign keys, CHECK and NOT NULL of the faces, which are the same in every ward; for tools that make models '
  'of an application out of a database';
