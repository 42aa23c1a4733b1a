-- Changes to objects of wardkey, for test_doctor_notices_every_change.py: of each kind a query for the objects that can
-- be changed so, and the statement that does it. @ward and @leaves are the schemas of one tenant.

with ours as (
  select c.oid, c.oid::regclass::text as name, c.relname, c.relkind, c.relispartition, c.relrowsecurity,
    c.relforcerowsecurity,
    n.nspname in ('ward', 'ward_internal') and c.relname !~ '^audit_platform' as registry,
    n.nspname in ('ward_model', 'clinic') as model
  from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
  where n.nspname in ('ward', 'ward_internal', 'ward_archive', 'ward_model', '@ward', '@leaves')
    or c.oid in (select relation from ward_internal.models)
), tbl as (select * from ours where relkind in ('r', 'p')), plain as (select * from tbl where not model),
fn as (
  select p.oid, p.oid::regprocedure::text as name, p.prosrc, p.prosecdef, p.proconfig, n.nspname
  from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
  where n.nspname in ('ward', 'ward_internal', '@ward')
), trg as (
  select o.name, t.oid, quote_ident(t.tgname) as tgname, t.tgtype, t.tgenabled from ours as o
  join pg_trigger as t on t.tgrelid = o.oid and not t.tgisinternal
), pol as (
  select o.name, quote_ident(p.polname) as polname, p.polqual from ours as o join pg_policy as p on p.polrelid = o.oid
), col as (
  select o.*, quote_ident(a.attname) as column_name, a.attnum, a.attnotnull, a.atthasdef, a.atttypid, a.attgenerated,
    exists (select from pg_index as x
      where x.indrelid = o.oid and x.indisprimary and a.attnum = any (x.indkey)) as is_key
  from ours as o join pg_attribute as a on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
)

-- trigger added:
select name, format('create trigger wk after delete on %s execute function clinic.wk()', name) from plain;

-- trigger on a model table added:
select name, format('create trigger wk after delete on %s execute function clinic.wk()', name) from tbl where model and relkind = 'p';

-- trigger on a shape added:
select name, format('create trigger wk after delete on %s execute function clinic.wk()', name) from tbl where model and relkind = 'r';

-- trigger on a view added:
select name, format('create trigger wk instead of delete on %s for each row execute function clinic.wk()', name)
  from ours where relkind = 'v';

-- trigger dropped:
select name, format('drop trigger %s on %s', tgname, name) from trg;

-- trigger disabled:
select name, format('alter table %s disable trigger %s', name, tgname) from trg;

-- trigger no longer always:
select name, format('alter table %s enable trigger %s', name, tgname) from trg where tgenabled = 'A';

-- trigger conditional:
select name, format('drop trigger %s on %s; %s; alter table %2$s enable always trigger %1$s', tgname, name,
  replace(pg_get_triggerdef(oid), ' EXECUTE ', ' WHEN (false) EXECUTE ')) from trg where tgtype & 64 = 0;

-- trigger renamed:
select name, format('alter trigger %s on %s rename to wk', tgname, name) from trg;

-- rule added:
-- to no registry table: DDL that writes there fails then
select name, format('create rule wk as on update to %s do also nothing', name) from ours
where relkind in ('r', 'p', 'v') and not model and (relkind = 'v' or not registry);

-- rule on the registry added:
select name, format('create rule wk as on update to %s do also nothing', name) from ours
where name in ('ward_internal.tenants', 'ward_internal.tenant_keys');

-- rule on a model table added:
select name, format('create rule wk as on update to %s do also nothing', name) from ours where relkind in ('r', 'p',
  'v') and model and relkind = 'p';

-- rule on a shape added:
select name, format('create rule wk as on update to %s do also nothing', name) from ours where relkind in ('r', 'p',
  'v') and model and relkind = 'r';

-- policy added:
select name, format('create policy wk on %s using (true)', name) from plain;

-- policy on a model table added:
select name, format('create policy wk on %s using (true)', name) from tbl where model and relkind = 'p';

-- policy on a shape added:
select name, format('create policy wk on %s using (true)', name) from tbl where model and relkind = 'r';

-- policy dropped:
select name, format('drop policy %s on %s', polname, name) from pol;

-- policy opened:
select name, format('alter policy %s on %s using (true)', polname, name) from pol where polqual is not null;

-- policy for others:
select name, format('alter policy %s on %s to wk_other', polname, name) from pol;

-- row security toggled:
select name, format('alter table %s %s row level security', name, case when relrowsecurity then 'disable' else
  'enable' end) from tbl where relrowsecurity or not model;

-- force toggled:
select name, format('alter table %s %s force row level security', name, case when relforcerowsecurity then 'no' else
  '' end) from plain;

-- owner changed:
select name, format('alter table %s owner to wk_other', name) from ours where relkind in ('r', 'p', 'v') or relkind
  = 'S' and registry;

-- granted to public:
select name, format('grant select on %s to public', name) from ours where relkind in ('r', 'p', 'v', 'S');

-- granted on a column:
select name, format('grant update (%s) on %s to wk_other', column_name, name) from col where attnum = 1 and relkind
  in ('r', 'p', 'v');

-- grant revoked:
select c.oid::regclass::text, format('revoke %s on %s from %I', a.privilege_type, c.oid::regclass,
  pg_get_userbyid(a.grantee)) from ours as c join pg_class using (oid), aclexplode(relacl) as a where a.grantee <>
  relowner and c.relkind <> 'S';

-- column added:
select name, format('alter table %s add column wk int', name) from plain where registry;

-- default of the registry dropped:
select name, format('alter table %s alter column %s drop default', name, column_name) from col
where atthasdef and attgenerated = '' and registry and name <> 'ward_internal.tenants';

-- default of wards dropped:
select name, format('alter table %s alter column %s drop default', name, column_name) from col
where atthasdef and attgenerated = '' and not model and not registry;

-- default set:
-- not of the whole log: its partitions would have it by right
select name, format('alter table %s alter column %s set default ''x''', name, column_name) from col
where not atthasdef and atttypid = 'text'::regtype and not model and relkind in ('r', 'p', 'v')
  and name <> 'ward_internal.audit_log';

-- not null dropped:
select name, format('alter table %s alter column %s drop not null', name, column_name) from col where attnotnull and
  not is_key and registry and relkind in ('r', 'p');

-- constraint added:
select name, format('alter table %s add constraint wk_%s check (true) not valid', name, oid) from plain;

-- constraint dropped:
select o.name, format('alter table %s drop constraint %I cascade', o.name, c.conname) from plain as o join
  pg_constraint as c on c.conrelid = o.oid and c.contype in ('c', 'p', 'u') where registry;

-- index added:
-- not to partitioned logs: their partitions would have it by right
select distinct on (oid) name, format('create index on %s (%s)', name, column_name) from col
where relkind in ('r', 'p') and not model and not is_key and name !~ 'audit_log$';

-- index dropped:
select o.name, format('drop index %s', x.indexrelid::regclass) from plain as o join pg_index as x on x.indrelid =
  o.oid where registry and not exists (select from pg_constraint where conindid = x.indexrelid);

-- foreign key added:
select name, format('alter table %s add constraint wk foreign key (city) references clinic.icd10', name) from tbl
  where relname = 'patients' and relispartition;

-- options set:
select name, format('alter table %s set (fillfactor = 40)', name) from plain where relkind = 'r'
union all
select name, format('alter view %s set (security_invoker)', name) from ours where relkind = 'v'
union all
select name, format('alter sequence %s increment by 7', name) from ours where relkind = 'S' and not model;

-- replica identity:
select name, format('alter table %s replica identity full', name) from plain;

-- child added:
select name, format('create table clinic.wk_%s () inherits (%s)', oid, name) from plain where relkind = 'r' and not
  relispartition;

-- view replaced:
select name, format('create or replace view %s as select * from (%s) as q where true', name,
  rtrim(pg_get_viewdef(oid), ';')) from ours where relkind = 'v';

-- view dropped:
select name, format('alter extension wardkey drop view %s; drop view %s', name, name) from ours
  where relkind = 'v' and registry;

-- face dropped:
select name, format('drop view %s cascade', name) from ours where relkind = 'v' and not registry;

-- table dropped:
select name, format('drop table %s cascade', name) from plain where relkind = 'r' and relispartition and name ~
  '^sealed_';

-- function's body:
select name, format('%s', replace(pg_get_functiondef(oid), prosrc, prosrc || ' ')) from fn where nspname = '@ward';

-- function invoker:
select name, format('alter function %s security invoker', name) from fn where nspname = '@ward' and prosecdef;

-- function unpinned:
select name, format('alter function %s reset search_path', name) from fn where nspname = '@ward' and proconfig is not null;

-- function's owner:
select name, format('alter function %s owner to wk_other', name) from fn;

-- function open:
select name, format('grant execute on function %s to public', name) from fn;

-- function dropped:
select trg.name, format('drop function %s cascade', p.oid::regprocedure) from trg join pg_trigger as t using (oid)
join pg_proc as p on p.oid = t.tgfoid where p.pronamespace = '@ward'::regnamespace;

-- things planted:
select n || '.wk' || k, format(s, n) from unnest('{ward,ward_internal,ward_archive,@ward}'::text[]) as n, (values
  ('function', 'create function %s.wkfunction() returns int language sql return 1'), ('type', 'create type %s.wktype
  as enum (''a'')'), ('domain', 'create domain %s.wkdomain as int'), ('table', 'create table %s.wktable ()'),
  ('view', 'create view %s.wkview as select 1 as one'), ('sequence', 'create sequence %s.wksequence'), ('collation',
  'create collation %s.wkcollation (locale = ''C'')')) as t (k, s) where n <> 'ward_archive' or k in ('function',
  'type');

-- event trigger dropped:
select evtname::text, format('alter extension wardkey drop event trigger %I; drop event trigger %1$I', evtname)
from pg_event_trigger where evtname ~ '^ward';

-- event trigger disabled:
select evtname::text, format('alter event trigger %I disable', evtname) from pg_event_trigger where evtname ~ '^ward';

-- event trigger replaced:
select evtname::text, format('alter extension wardkey drop event trigger %I; drop event trigger %1$I;
  create event trigger %1$I on %2$s execute function clinic.wke(); alter event trigger %1$I enable always',
  evtname, evtevent)
from pg_event_trigger where evtname ~ '^ward';

-- event trigger added:
select 'wk_mine', 'create event trigger wk_mine on sql_drop execute function clinic.wke()';

-- schema's owner:
select nspname::text, format('alter schema %I owner to wk_other', nspname) from pg_namespace where nspname in
  ('ward', 'ward_internal', 'ward_model', 'ward_archive', '@ward', '@leaves');

-- schema open:
select nspname::text, format('grant usage, create on schema %I to public', nspname) from pg_namespace where nspname
  in ('ward', 'ward_internal', 'ward_model', 'ward_archive', '@ward', '@leaves');

-- role's powers:
select rolname::text, format('alter role %I createdb createrole bypassrls replication', rolname) from pg_roles where
  rolname in ('ward_owner', 'ward_tenant', '@ward');

-- role's members:
select rolname::text, format('grant %I to wk_other', rolname) from pg_roles where rolname in ('ward_owner',
  '@ward');

-- role's memberships:
select rolname::text, format('grant pg_monitor to %I', rolname) from pg_roles where rolname in ('ward_owner',
  'ward_tenant', '@ward');

-- role's settings:
select rolname::text, format('alter role %I set log_statement = ''all''', rolname) from pg_roles where rolname =
  '@ward';
