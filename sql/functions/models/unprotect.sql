-- The way back from protect and share, as long as nothing would be lost or left open by it.

create or replace function ward_internal.forget_model(p_model ward_internal.models) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_schema name;
  v_table text;
begin
  perform ward_internal.forget_model_searches(p_model.id);
  foreach v_table in array '{sealed_columns, row_rules, budgets, honey_rows}'::text[] loop
    execute format('delete from ward_internal.%I where model_id = $1', v_table) using p_model.id;
  end loop;
  delete from ward_internal.models where id = p_model.id;
  for v_schema in select schema_name from ward_internal.tenants loop
    execute format('drop function if exists %I.%I()', v_schema,
      ward_internal.writer_name(p_model.face, v_schema));
    perform ward_internal.drop_find(p_model.face, v_schema);
    execute format('drop function if exists %I.%I() cascade', v_schema,
      ward_internal.audit_writer(p_model.face, v_schema));
  end loop;
end
$$;
comment on function ward_internal.forget_model(ward_internal.models) is
  'takes a model out of the registry, and its functions out of every ward';

create or replace function ward.unprotect(p_table regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models;
  v_class pg_class;
  v_has_rows boolean;
  v_other regclass;
  v_schema name;
  v_policy name;
  v_sequence name;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share mode;
  lock table ward_internal.models in share row exclusive mode;
  select * into v_model from ward_internal.models where id = ward_internal.model_of(p_table);
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  execute format('select exists (select from %s)', p_table) into v_has_rows;
  if v_has_rows then
    perform ward_internal.fail('table_not_empty', format('tenants have rows in %s', p_table),
      'the table would come back without them: have them deleted through the faces first');
  end if;
  v_other := (
    select m.relation from pg_constraint as c join ward_internal.models as m on m.shape = c.conrelid
    where c.confrelid = v_model.shape and c.contype = 'f' and m.id <> v_model.id limit 1);
  if v_other is not null then
    perform ward_internal.fail('unsupported', format('%s references %s', v_other, p_table),
      format('unprotect that first: select ward.unprotect(%L)', v_other));
  end if;

  v_class := (select c from pg_class as c where oid = p_table);
  for v_schema in select schema_name from ward_internal.tenants loop
    execute format('drop view if exists %I.%I', v_schema, v_model.face);
    for v_sequence in
      select s.relname from ward_internal.model_columns(v_model.id) as c join pg_class as s on s.oid = c.sequence
    loop
      execute format('drop sequence if exists %I.%I', v_schema, v_sequence);
    end loop;
  end loop;
  for v_policy in select 'ward_rule_' || name from ward_internal.row_rules where model_id = v_model.id loop
    execute format('drop policy %I on %s', v_policy, v_model.shape);
  end loop;
  perform ward_internal.forget_model(v_model);
  execute format('drop table %s', p_table);
  execute format('alter table %s rename to %I', v_model.shape, v_class.relname);
  execute format('alter table %s set schema %s', v_model.shape, v_class.relnamespace::regnamespace);
  execute format('alter table %s owner to current_user', v_model.shape);
  perform ward_internal.log_event(ward_internal.master_id(), 'unprotected',
    jsonb_build_object('table', v_model.shape::text, 'model', v_model.id));
end
$$;
comment on function ward.unprotect(regclass) is
  'undoes ward.protect for a model table in which no tenant has rows: leaves and faces go, the table is an ordinary '
  'one again. Refuses while another model table references it. Errors: WK204 not protected, WK208 rows, WK209 '
  'referenced';

create or replace function ward.unshare(p_table regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_other regclass;
begin
  perform ward_internal.require_superuser();
  v_other := (
    select m.relation from pg_constraint as c join ward_internal.models as m on m.shape = c.conrelid
    where c.confrelid = p_table and c.contype = 'f' limit 1);
  if v_other is not null then
    perform ward_internal.fail('unsupported', format('%s references %s', v_other, p_table),
      'drop that foreign key, or unprotect that table first');
  end if;
  delete from ward_internal.shares where relation = p_table;
  if not found then
    perform ward_internal.fail('unknown_object', format('%s is not shared', coalesce(p_table::text, 'NULL')),
      'list them: wardkey table list');
  end if;
  execute format('revoke all on %s from ward_tenant, ward_owner', p_table);
  perform ward_internal.log_event(ward_internal.master_id(), 'unshared', jsonb_build_object('table', p_table::text));
end
$$;
comment on function ward.unshare(regclass) is
  'undoes ward.share: no tenant sees the table any more. Errors: WK204 not shared, WK209 referenced by a model table';
