-- Every tenant has a leaf and a face of every model table, as wardkey makes them.

-- models-there (fail): every registered model has its table and its shape
select format('model %I', m.face), 'its table or shape is gone',
  format('delete from ward_internal.models where id = %L;', m.id)
from ward_internal.models as m
where not exists (select from pg_class where oid = m.relation) or not exists (select from pg_class where oid = m.shape)
order by 1;

-- shapes-follow (fail): table and shape of a model have the same columns, the sealed ones stored as bytea
select model, format('column %I differs from its shape', coalesce(s.attname, d.attname)),
  format('select ward_internal.follow_model(%L, false);', coalesce(s.id, d.id))
from (
  select m.id, a.attname, a.atttypid, c.id is not null as sealed
  from ward_internal.models as m
  join pg_attribute as a on a.attrelid = m.relation and a.attnum > 0 and not a.attisdropped and a.attname <> 'tenant_id'
  left join ward_internal.sealed_columns as c on c.model_id = m.id and c.name = a.attname
) as s
full join (
  select m.id, a.attname, a.atttypid
  from ward_internal.models as m
  join pg_attribute as a on a.attrelid = m.shape and a.attnum > 0 and not a.attisdropped
) as d on d.id = s.id and d.attname = s.attname
cross join lateral (select relation::text from ward_internal.models where id in (s.id, d.id)) as m (model)
where s.id is null or d.id is null
  or s.atttypid <> case when s.sealed then 'bytea'::regtype else d.atttypid end
order by 1, 2;

-- leaves-there (fail): every tenant has a leaf of every model table
select w.slug, format('has no leaf of %s', w.relation), format('select ward.repair_tenant(%L);', w.slug)
from ward as w
where not exists (select from leaf where leaf.model_id = w.model_id and leaf.tenant_id = w.tenant_id)
order by 1, 2;

-- leaves-only (fail): every partition of a model table lies in a tenant's ward and holds that tenant only
select oid::regclass::text,
  case when tenant_id is null then 'is in no tenant''s ward' else format('takes %s', bound) end,
  format('alter table %s detach partition %s;', parent, oid::regclass)
from leaf
where tenant_id is null or bound is distinct from format('FOR VALUES IN (%L)', tenant_id)
order by 1;

-- faces-there (fail): every tenant has a face of every model table
select format('%I.%I', w.schema_name, w.face), 'is missing', format('select ward.repair_tenant(%L);', w.slug)
from ward as w
where w.oid is null and exists (select from leaf where leaf.model_id = w.model_id and leaf.tenant_id = w.tenant_id)
order by 1;

-- triggers-there (fail): every face has its INSTEAD OF trigger
select w.oid::regclass::text, 'cannot be written: its trigger is missing',
  case when w.writer is null
    then format('drop view %s; select ward.repair_tenant(%L);', w.oid::regclass, w.slug)
    else format('create trigger %I instead of insert or update or delete on %s for each row execute function %s;',
      w.face || '_write', w.oid::regclass, w.writer) end
from ward as w
where w.oid is not null and not exists (
  -- 93: for each row, instead of, insert, update, delete
  select from pg_trigger as t where t.tgrelid = w.oid and t.tgtype = 93 and t.tgenabled in ('O', 'A') and t.tgfoid = w.writer)
order by 1;

-- triggers-unchanged (fail): every face's trigger does what wardkey makes it do
select w.writer::text, 'is not the function that wardkey makes', format('select ward.repair_tenant(%L);', w.slug)
from ward as w
join tenant as t on t.id = w.tenant_id
join pg_proc as p on p.oid = w.writer
where p.prosrc <> ward_internal.face_trigger_body(w.model_id, t) order by 1;

-- models-followed (fail): ALTER and DROP TABLE on a model table reach faces and registry, GRANT the log: event triggers always enabled
select w.name, case when e.oid is null then 'is missing' else 'is not always enabled' end,
  case when e.oid is null then format('create event trigger %s %s; ', w.name, w.definition) else '' end
  || format('alter event trigger %s enable always;', w.name)
from (values
  ('ward_follow_models', 'on ddl_command_end when tag in (''ALTER TABLE'') execute function ward_internal.on_alter_table()'),
  ('ward_forget_models', 'on sql_drop execute function ward_internal.on_drop()'),
  ('ward_follow_grants', 'on ddl_command_end when tag in (''GRANT'', ''REVOKE'', ''ALTER DEFAULT PRIVILEGES'') '
    'execute function ward_internal.on_grant()'),
  ('ward_refuse_grants', 'on ddl_command_start when tag in (''GRANT'', ''REVOKE'', ''ALTER DEFAULT PRIVILEGES'') '
    'execute function ward_internal.refuse_grant()')
) as w (name, definition)
left join pg_event_trigger as e on e.evtname = w.name
where e.evtenabled is distinct from 'A'
order by 1;

-- writes-audited (fail): every change of a row of a leaf is logged, whatever session_replication_role says
select w.leaf, coalesce(format('its trigger %I is not ALWAYS', t.tgname), format('lacks trigger %I', e.name)),
  format('select ward.repair_tenant(%L);', w.slug)
from (select oid::regclass::text as leaf, oid, slug from leaf where slug is not null) as w
cross join (values ('ward_audit'), ('ward_audit_truncate')) as e (name)
left join pg_trigger as t on t.tgrelid = w.oid and t.tgname = e.name
where t.tgenabled is distinct from 'A' order by 1, 2;
