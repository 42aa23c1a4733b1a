-- What stands on a model table, its shape, its leaves or faces and cannot do there what it says: a constraint, index or
-- default that would see ciphertext, a trigger that would, a partition that is nobody's. A command that makes one is
-- refused; the doctor lists those that are there.
--
-- The table has what is about plain columns, the shape what is about the plaintext of sealed ones, and a copy of the
-- rest.

create or replace function ward_internal.shape_definition(p_constraint oid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return regexp_replace(replace(replace(pg_get_constraintdef(p_constraint), '(tenant_id, ', '('), ', tenant_id)', ')'),
  ' NOT VALID$', '');
comment on function ward_internal.shape_definition(oid) is
  'a key, UNIQUE or CHECK of a model table, as its shape has it';

create or replace function ward_internal.missing_labels(p_type oid, p_labels text[]) returns text[]
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return array(select unnest(p_labels) except select enumlabel::text from pg_enum where enumtypid = p_type);

create or replace function ward_internal.model_faults(p_model uuid)
returns table (kind text, object text, detail text, fix text, way text, made_by xid)
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with relation as materialized (
    select relation::oid as oid, 'table' as part from ward_internal.models where id = p_model
    union all
    select shape, 'shape' from ward_internal.models where id = p_model
    union all
    select inhrelid, 'leaf' from ward_internal.models join pg_inherits on inhparent = relation where id = p_model
    union all
    select c.oid, 'face' from ward_internal.models as m
    cross join ward_internal.tenants as t
    join pg_namespace as n on n.nspname = t.schema_name
    join pg_class as c on c.relnamespace = n.oid and c.relname = m.face
    where m.id = p_model
  ), own as (
    select * from relation where part in ('table', 'leaf')
  ), sealed as materialized (
    select a.attrelid, a.attnum, a.attname from own
    join pg_attribute as a on a.attrelid = own.oid
    join ward_internal.sealed_columns as s on s.model_id = p_model and s.name = a.attname
  ), model as (
    select * from ward_internal.models where id = p_model
  )
  select 'key', m.relation::text, 'has no primary key that holds at every moment', null,
    'the key stays as it was declared, for faces find their rows by it; unprotect the empty table to declare another',
      null::xid
  from model as m
  where 2 <> (select count(*) from pg_index where indrelid in (m.relation, m.shape) and indisprimary and indimmediate)
    or 1 <> (select count(distinct ward_internal.shape_definition(oid)) from pg_constraint
      where conrelid in (m.relation, m.shape) and contype = 'p')
  union all
  select 'constraint', own.oid::regclass::text,
    case
      when c.contype = 'f' then format('has foreign key %I of its own: leaves need it in their wards', c.conname)
      when c.contype = 'x' then format('has exclusion constraint %I', c.conname)
      when own.part = 'leaf' then format('has constraint %I, which its model does not have', c.conname)
      when s.attname is not null then format('has constraint %I on sealed column %I: it sees ciphertext', c.conname,
        s.attname)
      else format('has constraint %I on tenant_id alone', c.conname)
    end,
    format('alter table %s drop constraint %I;', own.oid::regclass, c.conname),
    case
      when c.contype = 'f' then format(
        'alter table %s add foreign key (…) references … : a shape in ward_model, or a shared table', m.shape)
      when s.attname is not null and c.contype = 'c' then format('name the plaintext: alter table %s add check (…)',
        m.shape)
      when s.attname is not null then 'equal plaintexts have different ciphertexts; instead: select ward.add_unique(…)'
      when own.part = 'leaf' then format('alter the model table: alter table %s …', m.relation)
      else 'name columns of your own'
    end,
    c.xmin
  from model as m
  cross join own
  join pg_constraint as c on c.conrelid = own.oid and c.contype in ('c', 'u', 'x', 'p', 'f')
  left join lateral (select min(attname) as attname from sealed where attrelid = own.oid
    and attnum = any (c.conkey)) as s on true
  left join pg_attribute as t on t.attrelid = own.oid and t.attname = 'tenant_id'
  where case own.part
    when 'table' then c.contype in ('f', 'x') or s.attname is not null or c.contype = 'c' and t.attnum = any (c.conkey)
      or c.contype = 'u' and c.conkey = array[t.attnum]
    else c.conparentid = 0 and c.coninhcount = 0 and (c.contype <> 'f' or not exists (
      select from pg_constraint where conrelid = m.shape and contype = 'f' and conname = c.conname)) end
  union all
  select 'constraint', m.shape::text, format('has constraint %I, which %s does not have', c.conname, m.relation),
    format('alter table %s drop constraint %I;', m.shape, c.conname),
    format('that is the shape of %1$s, for what is about sealed columns: alter table %1$s …', m.relation), c.xmin
  from model as m
  join pg_constraint as c on c.conrelid = m.shape and c.contype in ('c', 'u', 'x')
  where not exists (
      select from pg_constraint as t where t.conrelid = m.relation and t.conname = c.conname and t.contype = c.contype
        and ward_internal.shape_definition(t.oid) = ward_internal.shape_definition(c.oid))
    and (c.contype <> 'c' or not exists (
      select from pg_attribute as a join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = a.attname
      where a.attrelid = m.shape and a.attnum = any (c.conkey)))
  union all
  select 'default', m.relation::text,
    case
      when s.attname is null then format('has a default of column %I, which a sequence of each ward is to number',
        a.attname)
      when a.attgenerated = '' then format('has a default of sealed column %I: faces have that of the shape', a.attname)
      else format('makes column %I from sealed column %I: it sees ciphertext', a.attname, s.attname)
    end,
    format('alter table %s %s column %I%s;', m.relation, case a.attgenerated when '' then 'alter' else 'drop' end,
      a.attname, case a.attgenerated when '' then ' drop default' else ' cascade' end),
    case
      when s.attname is null then 'declare identity columns before ward.protect: they count in each ward'
      when a.attgenerated = '' then format('alter table %s alter column %I set default …', m.shape, a.attname)
      else 'make it in a query'
    end,
    d.xmin
  from model as m
  join pg_attrdef as d on d.adrelid = m.relation
  join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
  join lateral (
    select sealed.attname from sealed where attrelid = m.relation and attnum = a.attnum
    union all
    select sealed.attname from pg_depend as p join sealed on sealed.attrelid = p.refobjid
      and sealed.attnum = p.refobjsubid
      where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
        and a.attgenerated <> ''
    union all
    select null from pg_depend as p join pg_class as q on q.oid = p.refobjid and q.relkind = 'S'
      where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid and p.refclassid = 'pg_class'::regclass
    union all
    select null from pg_attribute as c where c.attrelid = m.shape and c.attname = a.attname and not c.attisdropped
      and pg_get_serial_sequence(m.shape::text, c.attname) is not null
    limit 1
  ) as s on true
  union all
  select 'index', own.oid::regclass::text, format('has index %I on sealed column %I', i.relname, s.attname),
    format('drop index %s;', i.oid::regclass),
      'equal plaintexts have different ciphertexts: no index over sealed columns', i.xmin
  from own
  join pg_index as x on x.indrelid = own.oid
  join pg_class as i on i.oid = x.indexrelid and not i.relispartition
  join lateral (
    select sealed.attname from pg_depend as p join sealed on sealed.attrelid = p.refobjid
      and sealed.attnum = p.refobjsubid
    where p.classid = 'pg_class'::regclass and p.objid = i.oid and p.refclassid = 'pg_class'::regclass
      and p.refobjid = own.oid
    limit 1) as s on true
  where not exists (select from pg_constraint where conindid = i.oid and conrelid = own.oid)
  union all
  select 'index', r.oid::regclass::text, format('has index %I, which its model does not have', i.relname),
    format('drop index %s;', i.oid::regclass), format('on the model table: create index on %s …', m.relation), i.xmin
  from model as m
  cross join relation as r
  join pg_index as x on x.indrelid = r.oid
  join pg_class as i on i.oid = x.indexrelid and not i.relispartition
  where (r.part = 'leaf' and x.indisunique or r.part = 'shape' and not exists (
      select from pg_index as p join pg_class as c on c.oid = p.indexrelid where p.indrelid = m.relation
        and c.relname = i.relname))
    and not exists (select from pg_constraint where conindid = i.oid and conrelid = r.oid)
  union all
  select 'trigger', r.oid::regclass::text, format('has trigger %I, which sees ciphertext', t.tgname),
    format('drop trigger %I on %s;', t.tgname, r.oid::regclass),
    'use a default, a CHECK or a generated column, or do it where the rows are written', t.xmin
  from relation as r
  join pg_trigger as t on t.tgrelid = r.oid and not t.tgisinternal and t.tgparentid = 0
  join pg_proc as p on p.oid = t.tgfoid
  where p.pronamespace <> 'ward_internal'::regnamespace
    and p.pronamespace::regnamespace::text not in (select quote_ident(schema_name) from ward_internal.tenants)
  union all
  select 'policy', r.oid::regclass::text, format('has policy %I', p.polname),
    format('drop policy %I on %s;', p.polname, r.oid::regclass),
      'policies of model tables are wardkey''s: they keep tenants apart', p.xmin
  from relation as r
  join pg_policy as p on p.polrelid = r.oid and case
    when r.part <> 'face' and starts_with(p.polname, 'ward_rule_') then not exists (
      select from ward_internal.row_rules where model_id = p_model and 'ward_rule_' || name = p.polname)
    else p.polname not in ('ward_tenant', 'ward_fence') or r.part in ('shape', 'face') end
  union all
  select 'row rule', r.oid::regclass::text, format('lost row rule %s', w.name), null,
    format('drop the rule first: select ward.drop_row_rule(%L, %L)', m.relation, w.name), null
  from model as m
  join ward_internal.row_rules as w on w.model_id = m.id
  join relation as r on r.part <> 'face'
  where not exists (select from pg_policy where polrelid = r.oid and polname = 'ward_rule_' || w.name)
  union all
  select 'rule', r.oid::regclass::text, format('has rule %I', w.rulename),
    format('drop rule %I on %s;', w.rulename, r.oid::regclass), 'write what is to happen where the rows are written',
      w.xmin
  from relation as r
  join pg_rewrite as w on w.ev_class = r.oid and (r.part <> 'face' or w.rulename <> '_RETURN')
  union all
  select 'partition', c.oid::regclass::text, format('is a partition of %s and no tenant''s leaf', m.relation),
    format('alter table %s detach partition %s;', m.relation, c.oid::regclass), 'leaves are made by ward.create_tenant',
      c.xmin
  from model as m
  join relation as r on r.part = 'leaf'
  join pg_class as c on c.oid = r.oid
  where not exists (select from ward_internal.tenants as t
    where to_regclass(ward_internal.leaf_name(m.id, t.schema_name)) = c.oid)
  union all
  select 'partition', leaf.oid::regclass::text, format('is no partition of %s any more', m.relation),
    format('alter table %s attach partition %s for values in (%L);', m.relation, leaf.oid::regclass, t.id),
    'a ward goes by ward.drop_tenant', null
  from model as m
  cross join ward_internal.tenants as t
  join pg_namespace as n on n.nspname = ward_internal.leaf_schema(t.schema_name)
  join pg_class as leaf on leaf.relnamespace = n.oid and leaf.relname = m.face
  where not exists (select from pg_inherits where inhrelid = leaf.oid and inhparent = m.relation)
  union all
  select 'column', m.relation::text, format('and its shape differ in column %I', coalesce(s.attname, d.attname)),
    format('select ward_internal.follow_model(%L, false);', m.id),
    format('alter the model table: alter table %s …; a sealed column is added by ward.add_sealed_column', m.relation),
      null
  from model as m
  cross join lateral (
    select s.*, d.attname as declared, k.id is not null as is_sealed, d.atttypid as declared_type,
      d.attnotnull as declared_notnull
    from (select attname, atttypid, attnotnull from pg_attribute
      where attrelid = m.relation and attnum > 0 and not attisdropped and attname <> 'tenant_id'
        and not ward_internal.is_token_column(attname)) as s
    full join (select attname, atttypid, attnotnull from pg_attribute
      where attrelid = m.shape and attnum > 0 and not attisdropped) as d on d.attname = s.attname
    left join ward_internal.sealed_columns as k on k.model_id = m.id and k.name = s.attname
  ) as s
  cross join lateral (select s.declared as attname) as d
  where s.attname is null or s.declared is null or s.attnotnull <> s.declared_notnull
    or s.atttypid <> case when s.is_sealed then 'bytea'::regtype else s.declared_type end
  union all
  select 'labels', m.relation::text, format('has values of column %I that hold labels which type %s lost', s.name,
      format_type(a.atttypid, null)),
    null,
    'sealed values hold the label as text: add the old one again (alter type … add value), and move rows to the new '
    'one',
    null
  from model as m
  join ward_internal.sealed_columns as s on s.model_id = m.id
  join pg_attribute as a on a.attrelid = m.shape and a.attname = s.name
  where ward_internal.missing_labels(a.atttypid, s.labels) <> '{}'
$$;
comment on function ward_internal.model_faults(uuid) is
  'what on the relations of a model cannot do what it says: where, what, the statement that removes it, the way to '
  'what was meant, and the transaction that made it (NULL: some)';
