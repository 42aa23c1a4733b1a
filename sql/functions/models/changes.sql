-- Shape, leaves and faces follow their model table: its columns with type, NOT NULL, default and name, its keys, UNIQUE
-- and CHECK constraints and indexes. What is about the plaintext of sealed columns (CHECK, DEFAULT), and foreign keys,
-- stands on the shape, and reaches leaves and faces from there.

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
          case when a.attname = any (wanted.numbered) then null else pg_get_expr(d.adbin, d.adrelid) end)
            order by a.attnum)
      from pg_attribute as a
      left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where a.attrelid = face.oid and a.attnum > 0))
    and (select columns is not null from wanted)
$$;
comment on function ward_internal.faces_are_behind(uuid) is
  'whether a face that is there differs from its model in a column, type or default. Not for a model without its '
  'primary key: pg_restore is under way, which alters tables before all of it is there and brings the faces itself';

create or replace function ward_internal.writers_are_behind(p_model uuid) returns boolean
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce((
    select p.prosrc <> ward_internal.face_trigger_body(m.id, t)
    from ward_internal.models as m
    cross join ward_internal.tenants as t
    join pg_proc as p on p.oid = to_regprocedure(format('%I.%I()', t.schema_name,
      ward_internal.writer_name(m.face, t.schema_name)))
    where m.id = p_model and to_regclass(ward_internal.leaf_name(m.id, t.schema_name)) is not null
    limit 1), false)
$$;
comment on function ward_internal.writers_are_behind(uuid) is
  'whether the trigger function of a face is not what would be made now; of one, for those of all wards are made '
  'together';

create or replace function ward_internal.follow_columns(p_model ward_internal.models, p_renamed boolean) returns boolean
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column record;
  v_old name;
  v_schema name;
  v_changed boolean := false;
begin
  for v_column in
    select s.attname as stored, d.attname as declared, s.atttypid, s.atttypmod,
      d.atttypid as declared_type, d.atttypmod as declared_typmod, c.id as column_id,
      coalesce(c.id is not null and s.atttypid <> 'bytea'::regtype, false) as unsealed,
      pg_get_serial_sequence(p_model.relation::text, s.attname) is not null as has_sequence,
      case when s.attcollation <> t.typcollation then ' collate ' || s.attcollation::regcollation
        else '' end as collation
    from (select * from pg_attribute where attrelid = p_model.relation and attnum > 0 and not attisdropped
        and attname <> 'tenant_id' and not ward_internal.is_token_column(attname)) as s
    full join (select * from pg_attribute where attrelid = p_model.shape and attnum > 0 and not attisdropped) as d
      using (attname)
    left join ward_internal.sealed_columns as c on c.model_id = p_model.id and c.name = attname
    left join pg_type as t on t.oid = s.atttypid
    order by s.attnum
  loop
    if v_column.unsealed then
      perform ward_internal.fail('type_cannot_be_sealed', format('column %I is sealed: its stored type is bytea',
        v_column.stored), 'add a new sealed column with ward.add_sealed_column, and copy');
    elsif v_column.has_sequence then
      perform ward_internal.fail('unsupported', 'a sequence shared by all tenants would tell one about the others',
        'declare identity columns before ward.protect');
    elsif v_column.stored is not null and v_column.declared is null and p_renamed then
      select d.attname into strict v_old from pg_attribute as d
        where d.attrelid = p_model.shape and d.attnum > 0 and not d.attisdropped and not exists (
          select from pg_attribute as s where s.attrelid = p_model.relation and s.attname = d.attname);
      execute format('alter table %s rename column %I to %I', p_model.shape, v_old, v_column.stored);
      update ward_internal.sealed_columns set name = v_column.stored where model_id = p_model.id and name = v_old;
      for v_schema in select schema_name from ward_internal.tenants loop
        execute format('alter view if exists %I.%I rename column %I to %I', v_schema, p_model.face, v_old,
          v_column.stored);
      end loop;
      return true;
    elsif v_column.declared is null then
      v_changed := true;
      execute format('alter table %s add column %I %s%s%s', p_model.shape, v_column.stored,
        format_type(v_column.atttypid, v_column.atttypmod), v_column.collation, (
          select format(' generated always as (%s) %s', pg_get_expr(d.adbin, d.adrelid),
            case a.attgenerated when 's' then 'stored' else 'virtual' end)
          from pg_attrdef as d join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
          where d.adrelid = p_model.relation and a.attname = v_column.stored and a.attgenerated <> ''));
    elsif v_column.stored is null then
      v_changed := true;
      execute format('alter table %s drop column %I cascade', p_model.shape, v_column.declared);
    elsif v_column.column_id is null
      and (v_column.atttypid, v_column.atttypmod) <> (v_column.declared_type, v_column.declared_typmod)
    then
      v_changed := true;
      execute format('alter table %s alter column %I type %s using null', p_model.shape, v_column.declared,
        format_type(v_column.atttypid, v_column.atttypmod));
    end if;
  end loop;
  delete from ward_internal.sealed_columns as c where model_id = p_model.id and not exists (
    select from pg_attribute where attrelid = p_model.relation and attname = c.name and not attisdropped);
  perform ward_internal.forget_searches(p_model.id);
  perform ward_internal.forget_uniques(p_model.id);
  return v_changed;
end
$$;
comment on function ward_internal.follow_columns(ward_internal.models, boolean) is
  'makes the columns of a shape those of its table; p_renamed: a column was renamed, not added and dropped';

create or replace function ward_internal.follow_attributes(p_model ward_internal.models) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_action text;
begin
  for v_action in
    select format('alter column %I %s not null', s.attname, case when s.attnotnull then 'set' else 'drop' end)
    from pg_attribute as s join pg_attribute as d on d.attrelid = p_model.shape and d.attname = s.attname
    where s.attrelid = p_model.relation and s.attnum > 0 and not s.attisdropped and s.attnotnull <> d.attnotnull
    union all
    select case
      when d.attgenerated = '' then format('alter column %I %s', s.attname,
        coalesce('set default ' || new.text, 'drop default'))
      when s.attgenerated = '' then format('alter column %I drop expression', s.attname)
      else format('alter column %I set expression as (%s)', s.attname, new.text)
    end
    from pg_attribute as s
    join pg_attribute as d on d.attrelid = p_model.shape and d.attname = s.attname and not d.attisdropped
    cross join lateral (select (select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = s.attrelid
      and adnum = s.attnum)
      as text) as new
    where s.attrelid = p_model.relation and s.attnum > 0 and not s.attisdropped
      and not exists (select from ward_internal.sealed_columns where model_id = p_model.id and name = s.attname)
      and case when not d.attisdropped then pg_get_serial_sequence(p_model.shape::text, d.attname) end is null
      and (s.attgenerated <> d.attgenerated or new.text is distinct from (
        select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = d.attrelid and adnum = d.attnum))
  loop
    execute format('alter table %s %s', p_model.shape, v_action);
  end loop;
end
$$;
comment on function ward_internal.follow_attributes(ward_internal.models) is
  'gives the columns of a shape NOT NULL and, where they are not sealed, the defaults of its table';

create or replace function ward_internal.follow_constraints(p_model ward_internal.models) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_constraint record;
  v_old name;
begin
  for v_constraint in  -- a foreign key moves to the shape: from there it comes into each ward
    select conname, pg_get_constraintdef(oid) as definition from pg_constraint as c
    where conrelid = p_model.relation and contype = 'f' and conparentid = 0 and (
      confrelid in (select shape from ward_internal.models) or confrelid in (select relation from ward_internal.shares))
  loop
    execute format('alter table %s add constraint %I %s', p_model.shape, v_constraint.conname, v_constraint.definition);
    execute format('alter table %s drop constraint %I', p_model.relation, v_constraint.conname);
  end loop;
  for v_constraint in
    select conname, contype, pg_get_constraintdef(oid) like '% NOT VALID' as unproven,
      ward_internal.shape_definition(oid) as definition
    from pg_constraint as c
    where conrelid = p_model.relation and contype in ('p', 'u', 'c') and not exists (
        select from pg_constraint as d where d.conrelid = p_model.shape and d.conname = c.conname
          and d.contype = c.contype
          and ward_internal.shape_definition(d.oid) = ward_internal.shape_definition(c.oid))
      and not exists (
        select from pg_attribute as a where a.attrelid = c.conrelid and a.attnum = any (c.conkey) and (
          a.attname in (select name from ward_internal.sealed_columns where model_id = p_model.id)
          or a.attname = 'tenant_id' and (c.contype = 'c' or cardinality(c.conkey) = 1)))
    order by conname
  loop
    v_old := (
      select d.conname from pg_constraint as d where d.conrelid = p_model.shape and d.contype = v_constraint.contype
        and ward_internal.shape_definition(d.oid) = v_constraint.definition and not exists (
          select from pg_constraint where conrelid = p_model.relation and conname = d.conname)
      limit 1);
    if v_old is not null then
      execute format('alter table %s rename constraint %I to %I', p_model.shape, v_old, v_constraint.conname);
    elsif v_constraint.contype <> 'p' then
      execute format('alter table %s drop constraint if exists %I', p_model.shape, v_constraint.conname);
      execute format('alter table %s add constraint %I %s%s', p_model.shape, v_constraint.conname,
        v_constraint.definition, case when v_constraint.unproven then ' not valid' else '' end);
    end if;
  end loop;
  for v_constraint in
    select conname from pg_constraint as d
    where conrelid = p_model.shape and contype in ('u', 'c') and not exists (
        select from pg_constraint as c where c.conrelid = p_model.relation and c.conname = d.conname
          and c.contype = d.contype)
      and not exists (
        select from pg_attribute as a join ward_internal.sealed_columns as s on s.model_id = p_model.id
          and s.name = a.attname
        where a.attrelid = d.conrelid and a.attnum = any (d.conkey))
  loop
    execute format('alter table %s drop constraint %I', p_model.shape, v_constraint.conname);
  end loop;
end
$$;
comment on function ward_internal.follow_constraints(ward_internal.models) is
  'gives a shape the constraints of its table that are not about sealed columns, and takes foreign keys over from it';

create or replace function ward_internal.follow_indexes(p_model ward_internal.models) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_index record;
begin
  for v_index in
    select c.oid::regclass as name from pg_index as i join pg_class as c on c.oid = i.indexrelid
    where i.indrelid = p_model.shape and not exists (select from pg_constraint where conindid = c.oid) and not exists (
      select from pg_index as p join pg_class as t on t.oid = p.indexrelid where p.indrelid = p_model.relation
        and t.relname = c.relname)
  loop
    execute format('drop index %s', v_index.name);
  end loop;
  for v_index in
    select c.relname as name, i.indisunique as is_unique,
      substr(pg_get_indexdef(c.oid), length(format('CREATE %sINDEX %I ON ONLY %s',
      case when i.indisunique then 'UNIQUE ' else '' end, c.relname,
        format('%I.%I', n.nspname, t.relname))) + 1) as tail
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_class as t on t.oid = i.indrelid
    join pg_namespace as n on n.oid = t.relnamespace
    where i.indrelid = p_model.relation and not exists (select from pg_constraint where conindid = c.oid)
      and not ward_internal.is_token_index(c.oid)
      and (i.indnkeyatts > 1 or i.indkey[0] <> (select attnum from pg_attribute where attrelid = t.oid
        and attname = 'tenant_id'))
      and not exists (
        select from pg_index as s join pg_class as d on d.oid = s.indexrelid where s.indrelid = p_model.shape
          and d.relname = c.relname)
      and not exists (
        select from pg_depend as d join pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        join ward_internal.sealed_columns as s on s.model_id = p_model.id and s.name = a.attname
        where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refobjid = t.oid)
    order by c.relname
  loop
    execute format('create %sindex %I on %s%s', case when v_index.is_unique then 'unique ' else '' end, v_index.name,
      p_model.shape, replace(replace(v_index.tail, '(tenant_id, ', '('), ', tenant_id)', ')'));
  end loop;
end
$$;
comment on function ward_internal.follow_indexes(ward_internal.models) is 'gives a shape the indexes of its table';

create or replace function ward_internal.follow_leaves(p_model ward_internal.models) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
  v_leaf text;
  v_key name;
begin
  for v_tenant in select * from ward_internal.tenants loop
    v_leaf := ward_internal.leaf_name(p_model.id, v_tenant.schema_name);
    continue when to_regclass(v_leaf) is null;
    for v_key in
      select conname from pg_constraint as c
      where conrelid = v_leaf::regclass and contype = 'f' and conparentid = 0 and not exists (
        select from pg_constraint as d where d.conrelid = p_model.shape and d.contype = 'f' and d.conname = c.conname
          and (d.condeferrable, d.condeferred) = (c.condeferrable, c.condeferred))
    loop
      execute format('alter table %s drop constraint %I', v_leaf, v_key);
    end loop;
    perform ward_internal.create_leaf_foreign_keys(p_model.id, v_tenant);
    perform ward_internal.name_leaf_indexes(v_leaf::regclass);
  end loop;
end
$$;
comment on function ward_internal.follow_leaves(ward_internal.models) is
  'gives leaves the foreign keys of their shape, and their indexes the names of the table''s';

create or replace function ward_internal.follow_model(p_model uuid, p_renamed boolean) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models := (select m from ward_internal.models as m where id = p_model);
  v_changed boolean;
begin
  if 2 <> (select count(*) from pg_index where indrelid in (v_model.relation, v_model.shape) and indisprimary) then
    perform ward_internal.refuse_faults(p_model);  -- faces cannot be made without it
  end if;
  v_changed := ward_internal.follow_columns(v_model, p_renamed);
  if p_renamed then
    perform ward_internal.follow_row_rules(p_model);
  end if;
  perform ward_internal.follow_attributes(v_model);
  perform ward_internal.follow_constraints(v_model);
  perform ward_internal.follow_indexes(v_model);
  perform ward_internal.check_names(v_model);
  perform ward_internal.check_size(v_model.shape, array(select name from ward_internal.sealed_columns
    where model_id = p_model));
  perform ward_internal.follow_shape(p_model, v_changed);
end
$$;
comment on function ward_internal.follow_model(uuid, boolean) is
  'makes shape, leaves and faces of a model follow its table; p_renamed: a column was renamed, not added and dropped';

create or replace function ward_internal.follow_shape(p_model uuid, p_changed boolean default false) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model ward_internal.models := (select m from ward_internal.models as m where id = p_model);
  v_check name;
  v_has_rows boolean;
begin
  if exists (
    select from ward_internal.sealed_columns as s
    join pg_attribute as a on a.attrelid = v_model.shape and a.attname = s.name
    cross join ward_internal.tenants as t
    join pg_attribute as f on f.attrelid = to_regclass(format('%I.%I', t.schema_name, v_model.face))
      and f.attname = s.name
    where s.model_id = p_model and (f.atttypid, f.atttypmod) <> (a.atttypid, a.atttypmod))
  then
    perform ward_internal.fail('change_refused', 'nobody can look whether sealed values are of another type',
      'add a new sealed column with ward.add_sealed_column, and copy through each face');
  end if;
  perform ward_internal.check_foreign_keys(v_model.shape, exists (select from ward_internal.sealed_columns
    where model_id = p_model));
  v_check := (
    select conname from pg_constraint as c
    where conrelid = v_model.shape and contype = 'c' and convalidated and ward_internal.is_running(c.xmin) and exists (
      select from pg_attribute as a join ward_internal.sealed_columns as s on s.model_id = p_model
        and s.name = a.attname
      where a.attrelid = c.conrelid and a.attnum = any (c.conkey))
    limit 1);
  if v_check is not null then
    execute format('select exists (select from %s)', v_model.relation) into v_has_rows;
    if v_has_rows then
      perform ward_internal.fail('change_refused', format('nobody can look whether sealed values satisfy %I', v_check),
        'add the CHECK with NOT VALID: it holds for what is written from now on');
    end if;
  end if;
  update ward_internal.models set row_form = ward_internal.row_form(shape)
    where id = p_model and row_form <> ward_internal.row_form(shape);
  perform ward_internal.follow_leaves(v_model);
  if p_changed or ward_internal.faces_are_behind(p_model) or ward_internal.writers_are_behind(p_model) then
    perform ward_internal.rebuild_faces(p_model);
  end if;
end
$$;
comment on function ward_internal.follow_shape(uuid, boolean) is
  'makes leaves, faces and row_form of a model follow its shape: defaults and CHECKs of sealed columns, foreign keys';
