-- DDL on a model table reaches every ward by itself, or is refused; DROP TABLE takes the table out of the registry.
--
-- An event trigger sees which object was changed, not how: shape, faces and foreign keys are made to agree with what is
-- there now, and if what the command made cannot do what it says (ward_internal.model_faults), all of it is undone.
-- What wardkey's own functions do, and what a dump brings piece by piece, is left alone.

create or replace function ward_internal.is_restoring() returns boolean
language sql stable security invoker set search_path = pg_catalog, pg_temp
return current_setting('check_function_bodies') = 'off';
comment on function ward_internal.is_restoring() is
  'whether a dump is being loaded, which turns that off: a model comes piece by piece, and is whole at the end';

create or replace function ward_internal.is_own_change(p_stack text) returns boolean
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return regexp_replace(p_stack, '^[^\n]*', '') ~ '\nPL/pgSQL function ward(_internal)?\.';
comment on function ward_internal.is_own_change(text) is
  'whether the stack under an event trigger''s function has one of wardkey''s';

create or replace function ward_internal.refuse_faults(p_model uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_fault record;
begin
  select * into v_fault from ward_internal.model_faults(p_model) where made_by is null
    or ward_internal.is_running(made_by) limit 1;
  if found then
    perform ward_internal.fail(case when v_fault.kind = 'index' and v_fault.detail ~ ' on sealed column '
      then 'sealed_index' else 'change_refused' end, format('%s %s', v_fault.object, v_fault.detail), v_fault.way);
  end if;
end
$$;
comment on function ward_internal.refuse_faults(uuid) is
  'raises if this transaction made a fault; older ones do not hinder their mending';

-- definer because any role that alters something in the database runs it, and may not read the registry
create or replace function ward_internal.on_change_begin() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
begin
  get diagnostics v_stack = pg_context;
  if not ward_internal.is_own_change(v_stack) and not ward_internal.is_restoring()
    and not exists (select from ward_internal.tenants where login_role = session_user)  -- who will be refused
  then
    delete from ward_internal.dependents where transaction = pg_current_xact_id();
    perform ward_internal.save_dependents();
  end if;
end
$$;
revoke execute on function ward_internal.on_change_begin() from public;

create or replace function ward_internal.is_displaced_face(p_view oid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return exists (
    select from pg_class as v
    join pg_trigger as g on g.tgrelid = v.oid
    join ward_internal.tenants as t on true
    join ward_internal.models as m
      on g.tgfoid = to_regprocedure(format('%I.%I()', t.schema_name, ward_internal.writer_name(m.face, t.schema_name)))
    where v.oid = p_view and v.relkind = 'v' and (v.relnamespace::regnamespace::text, v.relname)
      is distinct from (quote_ident(t.schema_name), m.face));
comment on function ward_internal.is_displaced_face(oid) is
  'whether a face has another name or schema than wardkey gave it';

-- definer because any role that alters something in the database runs it, and may not read the registry
create or replace function ward_internal.on_change() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
  v_model record;
begin
  get diagnostics v_stack = pg_context;
  if ward_internal.is_own_change(v_stack) or ward_internal.is_restoring()
    or exists (select from pg_event_trigger_ddl_commands() where in_extension)
  then
    return;
  end if;
  if not exists (select from pg_event_trigger_ddl_commands() where schema_name is distinct from 'pg_temp') then
    delete from ward_internal.dependents where transaction = pg_current_xact_id();
    return;
  end if;
  if exists (select from pg_event_trigger_ddl_commands() as c where c.classid = 'pg_class'::regclass
      and ward_internal.is_displaced_face(c.objid)) then
    perform ward_internal.fail('change_refused', 'a face has the name of its model table, in the schema of its ward',
      'rename the model table: its faces follow');
  elsif tg_tag = 'ALTER VIEW' then
    return;
  end if;
  for v_model in
    with changed as (
      select coalesce(x.indrelid, n.conrelid, t.tgrelid, p.polrelid, w.ev_class, c.objid) as relation,
        c.object_type = 'table column' as renamed
      from pg_event_trigger_ddl_commands() as c
      left join pg_index as x on c.classid = 'pg_class'::regclass and x.indexrelid = c.objid
      left join pg_constraint as n on c.classid = 'pg_constraint'::regclass and n.oid = c.objid
      left join pg_trigger as t on c.classid = 'pg_trigger'::regclass and t.oid = c.objid
      left join pg_policy as p on c.classid = 'pg_policy'::regclass and p.oid = c.objid
      left join pg_rewrite as w on c.classid = 'pg_rewrite'::regclass and w.oid = c.objid
      where c.classid in ('pg_class'::regclass, 'pg_constraint'::regclass, 'pg_trigger'::regclass,
        'pg_policy'::regclass, 'pg_rewrite'::regclass)
    )
    select m.id, m.face, bool_or(c.renamed and c.relation = m.relation) as renamed,
      bool_or(c.relation = m.shape) as by_shape
    from changed as c
    join ward_internal.models as m on c.relation in (m.relation, m.shape)
      or exists (select from pg_inherits where inhrelid = c.relation and inhparent = m.relation)
      or exists (select from pg_class as f
        join ward_internal.ward_schemas() as s on s.schema_name::text = f.relnamespace::regnamespace::text
        where f.oid = c.relation and f.relname = m.face)
    where m.relation <> m.shape
    group by m.id
  loop
    if v_model.by_shape then
      perform ward_internal.follow_shape(v_model.id);
    else
      perform ward_internal.follow_model(v_model.id, v_model.renamed);
    end if;
    perform ward_internal.refuse_faults(v_model.id);
  end loop;
  delete from ward_internal.dependents where transaction = pg_current_xact_id();
end
$$;
revoke execute on function ward_internal.on_change() from public;
comment on function ward_internal.on_change() is
  'carries what was done to a model table to shape and faces, or refuses it';

-- definer because any role that alters something in the database runs it, and may not read the registry
create or replace function ward_internal.on_name_change() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
  v_model uuid;
begin
  get diagnostics v_stack = pg_context;
  if ward_internal.is_own_change(v_stack) or ward_internal.is_restoring()
    -- repair_tenant comes after an update of wardkey
    or exists (select from pg_event_trigger_ddl_commands() where in_extension)
  then
    return;
  end if;
  if tg_tag = 'ALTER SCHEMA' and exists (
    select from pg_event_trigger_ddl_commands() as c
    join pg_class as part on part.relnamespace = c.objid  -- a leaf, or a tenant's log
    join pg_inherits as i on i.inhrelid = part.oid
    where c.classid = 'pg_namespace'::regclass and (i.inhparent in (select m.relation from ward_internal.models as m)
        or i.inhparent = 'ward_internal.audit_log'::regclass and part.relname = 'audit_log')
      and not exists (
        select from ward_internal.ward_schemas() as s
        where s.schema_name::text = part.relnamespace::regnamespace::text))
  then
    perform ward_internal.fail('change_refused', 'a ward''s schemas have the name of its tenant',
      'make a tenant of another slug');
  end if;
  for v_model in select id from ward_internal.models where relation <> shape loop
    if tg_tag = 'ALTER TYPE' then
      update ward_internal.sealed_columns as s
        set labels = array(select enumlabel from pg_enum where enumtypid = a.atttypid order by enumsortorder)
        from ward_internal.models as m join pg_attribute as a on a.attrelid = m.shape
        where s.model_id = m.id and m.id = v_model and a.attname = s.name and exists (
            select from pg_event_trigger_ddl_commands() as c
            where c.classid = 'pg_type'::regclass and c.objid = a.atttypid)
          and ward_internal.missing_labels(a.atttypid, s.labels) = '{}';
    end if;
    if tg_tag = 'ALTER TYPE' and exists (
      select from ward_internal.model_faults(v_model) where kind = 'labels') and exists (
      select from ward_internal.models as m join pg_attribute as a on a.attrelid = m.shape
      join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = a.attname
      join pg_event_trigger_ddl_commands() as c on c.classid = 'pg_type'::regclass and c.objid = a.atttypid
      where m.id = v_model)
    then
      perform ward_internal.fail('change_refused',
        'sealed values hold that label as text, which renaming does not reach',
        'alter type … add value, and move the rows to the new label through each face');
    end if;
    perform ward_internal.follow_row_rules(v_model);
    if ward_internal.writers_are_behind(v_model) then
      perform ward_internal.rebuild_faces(v_model);
    end if;
  end loop;
end
$$;
revoke execute on function ward_internal.on_name_change() from public;
comment on function ward_internal.on_name_change() is
  'remakes faces that name what has another name now; refuses to rename a label that sealed values hold, or a '
  'ward''s schema';

-- definer because any role that drops something in the database runs it, and may not read the registry
create or replace function ward_internal.on_drop() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
  v_model ward_internal.models;
  v_column name;
  v_sequence text;
begin
  delete from ward_internal.shares where relation in (
    select objid from pg_event_trigger_dropped_objects() where classid = 'pg_class'::regclass and objsubid = 0);
  for v_sequence in  -- of a shape's column: each ward has its own
    select format('%I.%I', t.schema_name, d.object_name)
    from pg_event_trigger_dropped_objects() as d cross join ward_internal.tenants as t
    where d.object_type = 'sequence' and d.schema_name = 'ward_model'
  loop
    execute format('drop sequence if exists %s cascade', v_sequence);
  end loop;
  for v_model in
    select m.* from ward_internal.models as m
    join pg_event_trigger_dropped_objects() as d on d.objid in (m.relation, m.shape)
    where d.classid = 'pg_class'::regclass and d.objsubid = 0
  loop
    if exists (select from pg_class where oid = v_model.relation) then
      perform ward_internal.fail('unsupported', format('that is the shape of %s', v_model.relation),
        format('drop or unprotect the model table itself: select ward.unprotect(%L)', v_model.relation));
    end if;
    perform ward_internal.forget_model(v_model);
    if exists (select from pg_class where oid = v_model.shape) then
      execute format('drop table %s cascade', v_model.shape);
    end if;
  end loop;

  get diagnostics v_stack = pg_context;
  if ward_internal.is_own_change(v_stack) or ward_internal.is_restoring() then
    return;
  end if;
  for v_model in
    select m.* from ward_internal.models as m
    join pg_class as t on t.oid = m.relation join pg_namespace as n on n.oid = t.relnamespace
    join pg_class as s on s.oid = m.shape
    where exists (
      select from pg_event_trigger_dropped_objects() as d
      where d.objid in (m.relation, m.shape)
        or d.object_type in ('table constraint', 'default value', 'trigger', 'policy', 'rule') and (
          d.address_names[1:2] in (array[n.nspname, t.relname]::text[], array['ward_model', s.relname]::text[])
          or d.address_names[2] = m.face
            and d.address_names[1] in (select ward_internal.leaf_schema(schema_name) from ward_internal.tenants))
        or d.object_type = 'index' and d.schema_name in (n.nspname, 'ward_model')
        or d.object_type = 'view' and d.object_name = m.face and d.schema_name in (
            select schema_name from ward_internal.tenants) and tg_tag <> 'DROP VIEW')
  loop
    if exists (select from pg_event_trigger_dropped_objects() where objid = v_model.shape and objsubid > 0
        and original) then
      perform ward_internal.fail('change_refused', format('that is the shape of %s', v_model.relation),
        format('drop the column of the model table: alter table %s drop column … cascade', v_model.relation));
    end if;
    -- with its type: the table has it as bytea, which nothing took away
    for v_column in
      select a.attname from pg_event_trigger_dropped_objects() as d
      join pg_attribute as a on a.attrelid = v_model.relation and a.attname = d.address_names[3] and not a.attisdropped
      where d.objid = v_model.shape and d.classid = 'pg_class'::regclass and d.objsubid > 0 and not d.original
    loop
      execute format('alter table %s drop column %I cascade', v_model.relation, v_column);
    end loop;
    perform ward_internal.follow_model(v_model.id, false);
    perform ward_internal.refuse_faults(v_model.id);
  end loop;
  perform ward_internal.restore_dependents();
end
$$;
revoke execute on function ward_internal.on_drop() from public;
comment on function ward_internal.on_drop() is
  'takes dropped models out of the registry; where only a part of one was dropped, makes the rest of it, and what '
  'stood on its faces, as it should be without that part';

create or replace function ward_internal.fresh_privileges()
returns table (schema_name name, object text, acl aclitem[], relation oid)
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  return query  -- plpgsql keeps the plan
  select schema_name, object, acl, relation
  from (
    select n.nspname as schema_name, c.oid::regclass::text as object, c.relacl as acl, c.oid as relation,
        c.xmin as row_of
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
  where (row_of::text::bigint - (pg_current_xact_id()::text::bigint % 4294967296) + 4294967296) % 4294967296
      < 2147483648
    and ward_internal.is_running(row_of);
end
$$;
comment on function ward_internal.fresh_privileges() is
  'the privileges, as they are now, on what this transaction made or changed; schema_name is null for default '
  'privileges everywhere';

-- definer because it runs as the user who grants anything in the database, and may neither read the registry nor write
-- the log
create or replace function ward_internal.on_grant() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_stack text;
  v_change record;
  -- another role that grants something to a tenant's role owns it: that does not belong in the tenant's log
  v_is_superuser boolean := (select rolsuper from pg_roles where rolname = session_user);
begin
  get diagnostics v_stack = pg_context;
  -- What wardkey itself grants is no event: the call at the bottom of the stack, under this one, is of its own.
  -- Nobody's text can stand there: PostgreSQL ends with a quotation mark whatever it quotes of a statement.
  if v_stack ~ '\nPL/pgSQL function ward(_internal)?\.[a-z_]+\([^"\n]*\) line [0-9]+ at [^"\n]+$'
    -- ward_internal.refuse_grant let it through
    or exists (select from ward_internal.tenants where login_role = session_user)
    or exists (select from pg_event_trigger_ddl_commands() where in_extension)
  then
    return;
  end if;
  for v_change in
    select coalesce(t.id, ward_internal.master_id()) as log,
      jsonb_agg(jsonb_build_object('object', p.object, 'privileges', p.acl::text[]) order by p.object) as objects
    from ward_internal.fresh_privileges() as p
    left join ward_internal.ward_schemas() as s on s.schema_name = p.schema_name
    left join ward_internal.tenants as t on t.id = s.tenant_id
      or v_is_superuser and exists (select from aclexplode(p.acl) as a where pg_get_userbyid(a.grantee) = t.login_role)
    where t.id is not null or p.schema_name in ('ward', 'ward_internal', 'ward_model', 'ward_archive', 'pg_catalog')
      or p.schema_name is null or p.relation in (select m.relation from ward_internal.models as m)
      or exists (select from aclexplode(p.acl) as a
        where a.grantee = 0 or pg_get_userbyid(a.grantee) in ('ward_tenant', 'ward_owner'))
    group by 1
  loop
    perform ward_internal.log_event(v_change.log,
      case tg_tag when 'ALTER DEFAULT PRIVILEGES' then 'grant' else lower(tg_tag) end,
      jsonb_build_object('objects', v_change.objects));
  end loop;
end
$$;
revoke execute on function ward_internal.on_grant() from public;
comment on function ward_internal.on_grant() is
  'writes an event where somebody grants or revokes what is wardkey''s, a ward''s, or a tenant''s role''s, with the '
  'privileges as they are then. What wardkey grants itself is none where a function of it was called directly. Roles, '
  'their membership, databases and ALTER SYSTEM fire no event trigger';

-- invoker because it is to know who grants; a tenant's user may not call ward_internal.refuse
create or replace function ward_internal.refuse_grant() returns event_trigger
language plpgsql security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if pg_has_role(current_user, 'ward_tenant', 'member')
    and not (select rolsuper from pg_roles where rolname = current_user) then
    raise exception using errcode = 'WK212', message = 'a tenant''s role grants nothing',
      hint = 'it owns nothing; what it may do is the administrator''s to grant';
  end if;
end
$$;
revoke execute on function ward_internal.refuse_grant() from public;
comment on function ward_internal.refuse_grant() is
  'refuses a tenant''s role GRANT, REVOKE and ALTER DEFAULT PRIVILEGES: it has nothing to give, and would only write '
  'the log';
