"""The questions of a scope to one tenant's log and leaves, in one transaction, over two temporary tables.

``incident_logins``: logins with a credential that was lost. ``incident_touched``: the rows that they read
and wrote. What a leaf or a log is called is put in by ``scope``; all else are parameters.
"""

from __future__ import annotations

__all__ = [
    "CHILDREN",
    "COLUMNS",
    "EVENTS",
    "GAPS",
    "LOGINS",
    "MADE",
    "MODELS",
    "PATIENTS",
    "PATIENT_OF",
    "PEOPLE",
    "STOCK",
    "TABLES",
    "TENANTS",
    "TOUCHED",
]

MADE = """
set local enable_nestloop = off;  -- of a log that was never analyzed few rows are expected
set local work_mem = '256MB';
create temp table incident_logins (context bytea, since timestamptz, until timestamptz, at timestamptz,
  subject text, role text, database_role text, address text, application text, issuer text, token_id text,
  losses integer[]) on commit drop;
create temp table incident_touched (context bytea, model_id uuid, kind "char", columns text, row_id text,
  first timestamptz, last timestamptz, times bigint) on commit drop"""

TENANTS = """
select t.id, t.slug, t.name, t.status, t.created_at, t.login_role, s.begun_at as shredded_at,
       ward_internal.audit_leaf(t.id) as log,
       to_regclass(ward_internal.audit_leaf(t.id)) is not null as has_log,
       (select b.covered_entity from ward_internal.baas as b where b.tenant_id = t.id
         order by b.begins desc limit 1) as covered_entity,
       (select b.business_associate from ward_internal.baas as b where b.tenant_id = t.id
         order by b.begins desc limit 1) as business_associate
  from ward_internal.tenants as t left join ward_internal.shreddings as s on s.tenant_id = t.id
 order by t.slug"""

MODELS = """
select m.id, m.face, m.audit,
       coalesce((select jsonb_object_agg(s.name, s.class) from ward_internal.sealed_columns as s
                  where s.model_id = m.id), '{}') as sealed,
       array(select a.attname::text from pg_attribute as a where a.attrelid = m.shape and a.attnum > 0
              and not a.attisdropped and a.attname not in (
                select s.name from ward_internal.sealed_columns as s where s.model_id = m.id)
              order by a.attnum) as clear
  from ward_internal.models as m order by m.face"""

CHILDREN = """
select m.id, a.attname::text as "column"
  from pg_constraint as c
  join ward_internal.models as m on m.shape = c.conrelid
  join ward_internal.models as p on p.shape = c.confrelid
  join pg_index as i on i.indrelid = c.confrelid and i.indisprimary and i.indnkeyatts = 1
   and i.indkey[0] = c.confkey[1]
  join pg_attribute as a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
 where c.contype = 'f' and cardinality(c.conkey) = 1 and p.id = %s and m.id <> p.id"""

LOGINS = """
insert into pg_temp.incident_logins
select e.context, min(l.since), max(l.until), min(e.at), e.subject, e.role, e.database_role, e.address,
       e.application, e.detail ->> 'issuer', e.detail ->> 'token_id', array_agg(distinct l.number)
  from {log} as e
  join jsonb_to_recordset(%(losses)s) as l (
         number integer, kind text, what text, since timestamptz, until timestamptz)
    on case l.kind when 'token' then e.detail ->> 'token_sha256' = l.what
         when 'subject' then e.subject = l.what when 'password' then e.database_role = l.what
         when 'host' then l.what in ('server', e.address) end
 where e.kind = 'e' and e.operation = 'login' and e.context is not null
   and e.at >= l.since - interval '2 days' and e.at < l.until
 group by e.context, e.subject, e.role, e.database_role, e.address, e.application, 10, 11"""

TOUCHED = """
insert into pg_temp.incident_touched
select e.context, e.model_id, e.kind, e.columns, e.row_id, min(e.at), max(e.at), count(*) from (
  select e.context, e.model_id, e.kind, e.columns, e.row_id, e.at from {log} as e
   where e.operation in ('read', 'insert', 'update', 'delete')
     and (e.kind = 'w' or e.detail -> 'rows' is null)
  union all
  select e.context, e.model_id, e.kind, e.columns, r.id, e.at
    from {log} as e, ward_internal.rows_of(e.row_id, e.detail) as r (id)
   where e.operation = 'read' and e.detail -> 'rows' is not null
     and e.context in (select context from pg_temp.incident_logins)) as e
  join pg_temp.incident_logins as g on g.context = e.context and e.at >= g.since and e.at < g.until
 group by e.context, e.model_id, e.kind, e.columns, e.row_id"""

TABLES = """
select model_id, count(distinct row_id) filter (where kind = 'r') as rows_read,
       count(distinct row_id) filter (where kind = 'w') as rows_written,
       coalesce(sum(times) filter (where row_id is null), 0)::bigint as statements_without_rows
  from pg_temp.incident_touched group by model_id"""

COLUMNS = """
select distinct model_id, columns from pg_temp.incident_touched where columns is not null"""

PEOPLE = """
select g.subject, g.role, g.database_role, g.address, g.application, g.issuer, m.face::text as table,
       count(distinct g.context) as logins, count(distinct t.row_id) filter (where t.kind = 'r') as rows_read,
       count(distinct t.row_id) filter (where t.kind = 'w') as rows_written,
       min(coalesce(t.first, greatest(g.at, g.since))) as first, max(coalesce(t.last, g.at)) as last
  from pg_temp.incident_logins as g left join pg_temp.incident_touched as t on t.context = g.context
  left join ward_internal.models as m on m.id = t.model_id
 group by 1, 2, 3, 4, 5, 6, 7 order by 11, 1, 7 limit 500"""

PATIENTS = """
with patient_of as ({patient_of})
select t.row_id as patient from pg_temp.incident_touched as t
 where t.model_id = %(patients)s and t.row_id is not null
union
select p.patient from pg_temp.incident_touched as t
  join patient_of as p on p.model_id = t.model_id and p.row_id = t.row_id
union all  -- rows of which nobody knows any more whose they are
select null from (select distinct t.model_id, t.row_id from pg_temp.incident_touched as t
  where t.model_id = any (%(children)s) and t.row_id is not null) as t
  left join patient_of as p using (model_id, row_id) where p.patient is null"""

PATIENT_OF = {
    "leaf": "select {model}::uuid as model_id, {row} as row_id,"
    " jsonb_build_array(l.{column}) ->> 0 as patient from {leaf}",
    "log": "select e.model_id, e.row_id, coalesce(e.new ->> {name}, e.old ->> {name}) as patient"
    " from {log} as e"
    " where e.kind = 'w' and e.operation in ('insert', 'delete') and e.model_id = {model}::uuid",
    "nothing": "select null::uuid as model_id, null::text as row_id, null::text as patient where false",
}

# A row that is there now was there before unless the log inserted it since; one that is gone was there if the
# log deleted it since. amid: it was there at some time between since and until. One whose key was changed
# counts twice.
STOCK = """
with told as (
  select row_id, (array_agg(operation order by at, id) filter (where at >= %(until)s))[1] as next,
         (array_agg(operation order by at desc, id desc) filter (where at < %(until)s))[1] as last,
         max(at) filter (where at < %(until)s) as last_at, bool_or(at >= %(since)s and at < %(until)s) as amid
    from {log} where kind = 'w' and model_id = %(model)s and row_id is not null group by row_id
), cut as (
  select max(at) as at from {log}
   where kind = 'w' and model_id = %(model)s and operation = 'truncate' and at < %(until)s
), stored as (select {row} as row_id from {leaf})
select coalesce(t.row_id, s.row_id)
  from told as t full join stored as s on s.row_id = t.row_id cross join cut as c
 where t.amid or case when t.next is not null then t.next <> 'insert'
   when t.last is not null then t.last <> 'delete' and (c.at is null or t.last_at > c.at)
   else s.row_id is not null end"""

GAPS = """
select detail ->> 'since' as since, to_json(at) #>> '{{}}' as until, detail ->> 'why' as why from {log}
 where kind = 'e' and operation = 'journal_gap' and at > %(since)s
   and (detail ->> 'since')::timestamptz < %(until)s
 order by at limit 20"""

EVENTS = """
select at, operation, coalesce(subject, database_role) as who,
       coalesce(detail ->> 'reason', detail ->> 'version', '') as about
  from {log} where kind = 'e' and at >= %(since)s and operation in (
    'provisioned', 'suspended', 'resumed', 'rotated', 'retired', 'destroyed', 'shredding', 'shredded',
    'tampered', 'log_exported', 'exported')
 order by at limit 500"""
