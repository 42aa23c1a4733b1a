-- ALTER TABLE on a model table reaches every face by itself; DROP TABLE takes it out of the registry.

create or replace function ward_internal.is_restoring() returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return current_setting('check_function_bodies') = 'off';
comment on function ward_internal.is_restoring() is
  'whether a dump is being loaded, which turns that off: a model comes piece by piece, and is whole at the end';

create or replace function ward_internal.check_key(p_model ward_internal.models) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if (select count(*) from pg_index where indrelid in (p_model.relation, p_model.shape) and indisprimary and indimmediate) <> 2
  then
    perform ward_internal.fail('change_refused', format('a face of %s finds its rows by the primary key', p_model.relation),
      'the key stays as it was declared; unprotect the empty table to declare another');
  end if;
end
$$;
comment on function ward_internal.check_key(ward_internal.models) is
  'raises unless table and shape have a primary key that holds at every moment';

create or replace function ward_internal.faces_are_behind(p_model uuid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with wanted as (
    select array_agg(format('%s %s %s', column_name, type_name,
        case when sequence is null and not generated then default_expression end) order by place) as columns,
      array_agg(column_name) filter (where sequence is not null) as numbered
    from ward_internal.model_columns(p_model)
  )
  select exists (
    select from ward_internal.tenants as t
    join ward_internal.models as m on m.id = p_model
    join pg_class as face on face.oid = to_regclass(format('%I.%I', t.schema_name, m.face))
    cross join wanted
    where wanted.columns is distinct from (
      select array_agg(format('%s %s %s', a.attname, format_type(a.atttypid, a.atttypmod),
          case when a.attname = any (wanted.numbered) then null else pg_get_expr(d.adbin, d.adrelid) end) order by a.attnum)
      from pg_attribute as a
      left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = face.oid and a.attnum > 0))
    and (select columns is not null from wanted)
$$;
comment on function ward_internal.faces_are_behind(uuid) is
  'whether a face that is there differs from its model in a column, type or default. Not for a model without its primary '
  'key: pg_restore is under way, which alters tables before all of it is there and brings the faces itself';

create or replace function ward_internal.follow_model(p_model uuid, p_renamed boolean) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models := (select m from ward_internal.models as m where id = p_model);
  v_column record;
  v_old name;
  v_schema name;
  v_changed boolean := false;
begin
  for v_column in
    select s.attname as stored, d.attname as declared, s.atttypid, s.atttypmod,
      d.atttypid as declared_type, d.atttypmod as declared_typmod, c.id as column_id,
      coalesce(c.id is not null and s.atttypid <> 'bytea'::regtype, false) as unsealed,
      pg_get_serial_sequence(v_model.relation::text, s.attname) is not null as has_sequence
    from (select * from pg_attribute where attrelid = v_model.relation and attnum > 0 and not attisdropped
        and attname <> 'tenant_id') as s
    full join (select * from pg_attribute where attrelid = v_model.shape and attnum > 0 and not attisdropped) as d
      using (attname)
    left join ward_internal.sealed_columns as c on c.model_id = p_model and c.name = d.attname
    order by s.attnum
  loop
    if v_column.unsealed then
      perform ward_internal.fail('type_cannot_be_sealed', format('column %I is sealed: its stored type is bytea', v_column.stored),
        'add a new sealed column with ward.add_sealed_column, and copy');
    elsif v_column.has_sequence then
      perform ward_internal.fail('unsupported', 'a sequence shared by all tenants would tell one about the others',
        'declare identity columns before ward.protect');
    elsif v_column.stored is not null and v_column.declared is null and p_renamed then
      select d.attname into strict v_old from pg_attribute as d
        where d.attrelid = v_model.shape and d.attnum > 0 and not d.attisdropped and not exists (
          select from pg_attribute as s where s.attrelid = v_model.relation and s.attname = d.attname);
      execute format('alter table %s rename column %I to %I', v_model.shape, v_old, v_column.stored);
      update ward_internal.sealed_columns set name = v_column.stored where model_id = p_model and name = v_old;
      for v_schema in select schema_name from ward_internal.tenants loop
        execute format('alter view if exists %I.%I rename column %I to %I', v_schema, v_model.face, v_old, v_column.stored);
      end loop;
      v_changed := true;
      exit;
    elsif v_column.declared is null then
      v_changed := true;
      execute format('alter table %s add column %I %s', v_model.shape, v_column.stored,
        format_type(v_column.atttypid, v_column.atttypmod));
    elsif v_column.stored is null then
      v_changed := true;
      execute format('alter table %s drop column %I', v_model.shape, v_column.declared);
      delete from ward_internal.sealed_columns where id = v_column.column_id;
    elsif v_column.column_id is null
      and (v_column.atttypid, v_column.atttypmod) <> (v_column.declared_type, v_column.declared_typmod)
    then
      v_changed := true;
      execute format('alter table %s alter column %I type %s using null', v_model.shape, v_column.declared,
        format_type(v_column.atttypid, v_column.atttypmod));
    end if;
  end loop;
  if v_changed or ward_internal.faces_are_behind(p_model) then
    perform ward_internal.rebuild_faces(p_model);
  end if;
end
$$;
comment on function ward_internal.follow_model(uuid, boolean) is
  'makes shape and faces of a model follow its columns; p_renamed: a column was renamed, not added and dropped';

-- definer because whoever alters any table of the database runs it, and may not read the registry
create or replace function ward_internal.on_alter_table() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_command record;
begin
  for v_command in
    select m.id, bool_or(c.object_type = 'table column') as renamed
    from pg_event_trigger_ddl_commands() as c
    join ward_internal.models as m on m.relation = c.objid
    where c.classid = 'pg_class'::regclass and m.relation <> m.shape
    group by m.id
  loop
    perform ward_internal.follow_model(v_command.id, v_command.renamed);
  end loop;
end
$$;
revoke execute on function ward_internal.on_alter_table() from public;

-- definer because whoever drops any table of the database runs it, and may not read the registry
create or replace function ward_internal.on_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models;
  v_schema name;
begin
  delete from ward_internal.shares where relation in (
    select objid from pg_event_trigger_dropped_objects() where classid = 'pg_class'::regclass and objsubid = 0);
  for v_model in
    select m.* from ward_internal.models as m
    join pg_event_trigger_dropped_objects() as d on d.objid in (m.relation, m.shape)
    where d.classid = 'pg_class'::regclass and d.objsubid = 0
  loop
    if exists (select from pg_class where oid = v_model.relation) then
      perform ward_internal.fail('unsupported', format('that is the shape of %s', v_model.relation),
        format('drop or unprotect the model table itself: select ward.unprotect(%L)', v_model.relation));
    end if;
    delete from ward_internal.sealed_columns where model_id = v_model.id;
    delete from ward_internal.models where id = v_model.id;
    if exists (select from pg_class where oid = v_model.shape) then
      execute format('drop table %s cascade', v_model.shape);
    end if;
    for v_schema in select schema_name from ward_internal.tenants loop
      execute format('drop function if exists %I.%I()', v_schema,
        ward_internal.writer_name(v_model.face, v_schema));
      execute format('drop function if exists %I.%I() cascade', v_schema, ward_internal.audit_writer(v_model.face, v_schema));
    end loop;
  end loop;
  if not ward_internal.is_restoring() then
    perform ward_internal.check_key(m)
      from ward_internal.models as m
      join pg_event_trigger_dropped_objects() as d on d.object_type = 'table constraint'
        and to_regclass(format('%I.%I', d.address_names[1], d.address_names[2])) in (m.relation, m.shape);
  end if;
end
$$;
revoke execute on function ward_internal.on_drop() from public;

create or replace function ward_internal.fresh_privileges()
returns table (schema_name name, object text, acl aclitem[], relation oid)
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select schema_name, object, acl, relation
  from (
    select n.nspname as schema_name, c.oid::regclass::text as object, c.relacl as acl, c.oid as relation, c.xmin as row_of
      from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.relacl is not null
    union all
    select n.nspname, format('%s (%I)', a.attrelid::regclass, a.attname), a.attacl, a.attrelid, a.xmin
      from pg_attribute as a join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
      where a.attacl is not null
    union all
    select n.nspname, p.oid::regprocedure::text, p.proacl, null, p.xmin
      from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace where p.proacl is not null
    union all
    select nspname, format('schema %I', nspname), nspacl, null, xmin from pg_namespace where nspacl is not null
    union all
    select n.nspname, format('what %I makes', pg_get_userbyid(d.defaclrole)), d.defaclacl, null, d.xmin
      from pg_default_acl as d left join pg_namespace as n on n.oid = d.defaclnamespace
  ) as p
  -- this transaction and its savepoints have the latest numbers
  where (row_of::text::bigint - (pg_current_xact_id()::text::bigint % 4294967296) + 4294967296) % 4294967296 < 2147483648
    and ward_internal.is_running(row_of)
$$;
comment on function ward_internal.fresh_privileges() is
  'the privileges, as they are now, on what this transaction made or changed; schema_name is null for default privileges everywhere';

-- definer because whoever grants anything in the database runs it, and may neither read the registry nor write the log
create or replace function ward_internal.on_grant() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
  v_change record;
  -- whoever else grants something to a tenant's role owns it: that is no business of the tenant's log
  v_is_superuser boolean := (select rolsuper from pg_roles where rolname = session_user);
begin
  get diagnostics v_stack = pg_context;
  -- What wardkey itself grants is no event: the call at the bottom of the stack, under this one, is of its own. Nobody's text
  -- can stand there: PostgreSQL ends with a quotation mark whatever it quotes of a statement.
  if v_stack ~ '\nPL/pgSQL function ward(_internal)?\.[a-z_]+\([^"\n]*\) line [0-9]+ at [^"\n]+$'
    or exists (select from ward_internal.tenants where login_role = session_user)  -- ward_internal.refuse_grant let it through
    or exists (select from pg_event_trigger_ddl_commands() where in_extension)
  then
    return;
  end if;
  for v_change in
    select coalesce(t.id, ward_internal.master_id()) as log,
      jsonb_agg(jsonb_build_object('object', p.object, 'privileges', p.acl::text[]) order by p.object) as objects
    from ward_internal.fresh_privileges() as p
    left join ward_internal.tenants as t on t.schema_name = p.schema_name
      or v_is_superuser and exists (select from aclexplode(p.acl) as a where pg_get_userbyid(a.grantee) = t.login_role)
    where t.id is not null or p.schema_name in ('ward', 'ward_internal', 'ward_model', 'ward_archive', 'pg_catalog')
      or p.schema_name is null or p.relation in (select m.relation from ward_internal.models as m)
      or exists (select from aclexplode(p.acl) as a
        where a.grantee = 0 or pg_get_userbyid(a.grantee) in ('ward_tenant', 'ward_owner'))
    group by 1
  loop
    perform ward_internal.log_event(v_change.log, case tg_tag when 'ALTER DEFAULT PRIVILEGES' then 'grant' else lower(tg_tag) end,
      jsonb_build_object('objects', v_change.objects));
  end loop;
end
$$;
revoke execute on function ward_internal.on_grant() from public;
comment on function ward_internal.on_grant() is
  'writes an event where somebody grants or revokes what is wardkey''s, a ward''s, or a tenant''s role''s, with the privileges as they '
  'are then. What wardkey grants itself is none where a function of it was called directly. Roles, their membership, databases and '
  'ALTER SYSTEM fire no event trigger';

-- invoker because it is to know who grants; a tenant's user may not call ward_internal.refuse
create or replace function ward_internal.refuse_grant() returns event_trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if pg_has_role(current_user, 'ward_tenant', 'member') and not (select rolsuper from pg_roles where rolname = current_user) then
    raise exception using errcode = 'WK212', message = 'a tenant''s role grants nothing',
      hint = 'it owns nothing; what it may do is the administrator''s to grant';
  end if;
end
$$;
revoke execute on function ward_internal.refuse_grant() from public;
comment on function ward_internal.refuse_grant() is
  'refuses a tenant''s role GRANT, REVOKE and ALTER DEFAULT PRIVILEGES: it has nothing to give, and would only write the log';
