-- Everything PostgreSQL knows of the relations @relations, a row per part: what it is, the statement that makes it, the one
-- that takes it away (null where there is none), and what it is called besides.
with relation as (
  select c.*, c.oid::regclass::text as name, c.relkind in ('r', 'p') as is_table
  from pg_class as c where c.oid = any (@relations)
), privilege as (
  select r.oid, r.name, case r.relkind when 'S' then 'sequence ' else '' end as kind, null::text as column_name, a.*
  from relation as r
  cross join aclexplode(coalesce(r.relacl, acldefault(case r.relkind when 'S' then 's'::"char" else 'r' end, r.relowner))) as a
  union all
  select r.oid, r.name, '', quote_ident(t.attname), a.*
  from relation as r join pg_attribute as t on t.attrelid = r.oid cross join aclexplode(t.attacl) as a
)
select oid::bigint, 'relation' as kind, '' as name,
  concat_ws(' ', relkind, translate(relpersistence::text, 't', 'p'),
    case when relrowsecurity then 'row security' end, case when relforcerowsecurity then 'forced' end) as definition,
  case when is_table then format('alter table %s %s row level security, %s force row level security', name,
    case when relrowsecurity then 'enable' else 'disable' end, case when relforcerowsecurity then '' else 'no' end) end as creation,
  null as removal, null as alias
from relation

union all
select oid, 'option', name, value, format('alter table %s set (%I = %L)', relation, name, value),
  format('alter table %s reset (%I)', relation, name), null
from (
  select oid, name as relation, split_part(o, '=', 1) as name, substr(o, strpos(o, '=') + 1) as value
  from relation cross join unnest(reloptions) as o
) as o

union all
select oid, 'replica identity', '', relreplident::text,
  format('alter table %s replica identity %s', name, case relreplident when 'f' then 'full' when 'n' then 'nothing' else 'default' end),
  null, null
from relation where is_table

union all
select oid, 'owner', '', pg_get_userbyid(relowner), format('alter %s %s owner to %I', case relkind when 'S' then 'sequence' else 'table' end, name, pg_get_userbyid(relowner)),
  null, null
from relation

union all
select p.oid, 'privilege',
  concat_ws(' ', privilege_type, 'on ' || column_name, case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end),
  case when is_grantable then 'with grant option' else '' end,
  format('grant %s%s on %s%s to %s', privilege_type, ' (' || column_name || ')', kind, name,
    case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end),
  format('revoke %s%s on %s%s from %s', privilege_type, ' (' || column_name || ')', kind, name,
    case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end), null
from privilege as p

union all
select r.oid, 'column', quote_ident(a.attname),
  concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end,
    'collate ' || nullif(a.attcollation, 0)::regcollation, nullif(a.attidentity, ''), nullif(a.attgenerated, ''),
    'default ' || pg_get_expr(d.adbin, d.adrelid)),
  case when a.attgenerated = '' then format('alter table %s alter column %I %s', r.name, a.attname,
    coalesce('set default ' || pg_get_expr(d.adbin, d.adrelid), 'drop default')
    || case when not r.is_table then '' when a.attnotnull then format(', alter column %I set not null', a.attname)
      else format(', alter column %I drop not null', a.attname) end) end,
  case when r.is_table then format('alter table %s drop column %I', r.name, a.attname) end, null
from relation as r
join pg_attribute as a on a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d on d.adrelid = r.oid and d.adnum = a.attnum
where r.relkind <> 'S'

union all
select r.oid, case c.contype when 'f' then 'foreign key' else 'constraint' end, quote_ident(c.conname),
  pg_get_constraintdef(c.oid),
  format('alter table %s add constraint %I %s', r.name, c.conname, pg_get_constraintdef(c.oid)),
  format('alter table %s drop constraint %I', r.name, c.conname), null
from relation as r join pg_constraint as c on c.conrelid = r.oid and c.contype in ('c', 'f', 't')

union all  -- known by what they are: in a ward PostgreSQL makes up some names
select r.oid, 'index',
  regexp_replace(pg_get_indexdef(x.indexrelid), ' INDEX .*? ON (ONLY )?', case when x.indisprimary then ' PRIMARY KEY ON ' else ' INDEX ON ' end),
  concat_ws(' ', case when not x.indisvalid then 'invalid' end, case when not x.indisready then 'not ready' end,
    case when not x.indimmediate then 'deferrable' end, case when c.oid is not null then 'constraint' end),
  case when c.oid is null then pg_get_indexdef(x.indexrelid)
    else format('alter table %s add constraint %I %s', r.name, c.conname, pg_get_constraintdef(c.oid)) end,
  case when c.oid is null then format('drop index %s', x.indexrelid::regclass)
    else format('alter table %s drop constraint %I', r.name, c.conname) end, null
from relation as r
join pg_index as x on x.indrelid = r.oid
left join pg_constraint as c on c.conindid = x.indexrelid and c.conrelid = r.oid and c.contype in ('p', 'u', 'x')

union all
select r.oid, 'trigger', quote_ident(t.tgname),
  replace(pg_get_triggerdef(t.oid), t.tgfoid::regproc::text, '…') || ' ' || t.tgenabled::text,
  null,
  format('drop trigger %I on %s', t.tgname, r.name), null
from relation as r join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal

union all
select r.oid, 'function of trigger', quote_ident(t.tgname),
  concat_ws(' ', replace(p.prosrc, p.proname || '.', '….'), l.lanname, case when p.prosecdef then 'definer' end, p.provolatile, p.proparallel,
    case when p.proisstrict then 'strict' end, case when p.proleakproof then 'leakproof' end, p.proconfig::text),
  null, null, p.oid::regprocedure::text
from relation as r
join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal
join pg_proc as p on p.oid = t.tgfoid
join pg_language as l on l.oid = p.prolang

union all
select r.oid, 'rule', quote_ident(w.rulename), pg_get_ruledef(w.oid) || ' ' || w.ev_enabled::text,
  case when w.rulename <> '_RETURN' then pg_get_ruledef(w.oid) end,
  case when w.rulename <> '_RETURN' then format('drop rule %I on %s', w.rulename, r.name) end, null
from relation as r join pg_rewrite as w on w.ev_class = r.oid

union all
select oid, 'policy', quote_ident(polname), tail,
  coalesce(restored, format('create policy %I on %s %s', polname, name, tail)),
  coalesce(restored, format('drop policy %I on %s', polname, name)), null
from (
  select r.oid, r.name, l.polname, case when starts_with(l.polname, 'ward_rule_')
      then format('select ward_internal.restore_row_rules(%L)', r.name) end as restored,
    concat_ws(' ', case when l.polpermissive then 'as permissive' else 'as restrictive' end,
      case l.polcmd when 'r' then 'for select' when 'a' then 'for insert' when 'w' then 'for update' when 'd' then 'for delete' else 'for all' end,
      'to ' || (select string_agg(case x when 0 then 'public' else quote_ident(pg_get_userbyid(x)) end, ', ') from unnest(l.polroles) as x),
      'using (' || pg_get_expr(l.polqual, r.oid) || ')', 'with check (' || pg_get_expr(l.polwithcheck, r.oid) || ')') as tail
  from relation as r
  join pg_policy as l on l.polrelid = r.oid
) as l

union all
select r.oid, 'child', i.inhrelid::regclass::text, '', null, format('alter table %s no inherit %s', i.inhrelid::regclass, r.name),
  null
from relation as r join pg_inherits as i on i.inhparent = r.oid where r.relkind = 'r'

union all
select r.oid, 'sequence', '',
  concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle),
  format('alter sequence %s as %s start %s increment %s minvalue %s maxvalue %s cache %s %s', r.name, s.seqtypid::regtype, s.seqstart,
    s.seqincrement, s.seqmin, s.seqmax, s.seqcache, case when s.seqcycle then 'cycle' else 'no cycle' end),
  null, null
from relation as r join pg_sequence as s on s.seqrelid = r.oid
