-- Model tables: what the DBA declares once and every tenant gets a leaf and a face of.
--
-- protect moves the declared table, which must be empty, to schema ward_model as the model's shape and puts a table
-- PARTITION BY LIST (tenant_id) in its place. The shape keeps what belongs to the plaintext: types of sealed columns,
-- their CHECKs and defaults, and the foreign keys; PostgreSQL itself keeps their expressions right when something is
-- renamed.

create or replace function ward_internal.model_of(p_table regclass) returns uuid
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid := (select id from ward_internal.models where relation = p_table);
begin
  if v_model is null then
    perform ward_internal.fail('unknown_object', format('%s is not a protected table', coalesce(p_table::text, 'NULL')),
      format('protect it: select ward.protect(%L)', coalesce(p_table::text, 'schema.table')));
  end if;
  return v_model;
end
$$;

create or replace function ward_internal.check_sealed_column(p_table regclass, p_column text) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column pg_attribute := (select a from pg_attribute as a
    where attrelid = p_table and attname = p_column and attnum > 0 and not attisdropped);
  v_index name;
begin
  if v_column.attname is null then
    perform ward_internal.fail('unknown_object', format('%s has no column %I', p_table, p_column),
      'name the columns of the table that are to be sealed');
  end if;
  if not ward_internal.can_be_sealed(v_column.atttypid) then
    perform ward_internal.fail('type_cannot_be_sealed',
      format('column %I of %s: type %s cannot be sealed', p_column, p_table,
        format_type(v_column.atttypid, v_column.atttypmod)),
      'use text, a number, boolean, date or time type, uuid, json, bytea, inet, an enum, or an array of text or '
      'integer');
  end if;
  if v_column.attgenerated <> '' or v_column.attidentity <> '' then
    perform ward_internal.fail('unsupported', format('column %I of %s is generated and cannot be sealed', p_column,
      p_table), 'seal the columns it is made from, and make it in a query');
  end if;
  v_index := (
    select c.relname from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_depend as d on d.classid = 'pg_class'::regclass and d.objid = i.indexrelid
      and d.refclassid = 'pg_class'::regclass and d.refobjid = p_table and d.refobjsubid = v_column.attnum
    where i.indrelid = p_table
    union all
    select conname from pg_constraint
    where conrelid = p_table and contype in ('p', 'u', 'f', 'x') and v_column.attnum = any (conkey)
    limit 1);
  if v_index is not null then
    perform ward_internal.fail('sealed_index',
      format('column %I of %s is part of key or index %I and cannot be sealed', p_column, p_table, v_index),
      'drop the key or index (UNIQUE with NULLS NOT DISTINCT or DEFERRABLE too), or do not seal the column; '
      'ward.add_unique and ward.add_search stand in for them');
  end if;
  if exists (
    select from pg_depend as d
    join pg_attrdef as g on d.classid = 'pg_attrdef'::regclass and d.objid = g.oid
    join pg_attribute as a on a.attrelid = g.adrelid and a.attnum = g.adnum and a.attgenerated <> ''
    where d.refobjid = p_table and d.refobjsubid = v_column.attnum and a.attnum <> v_column.attnum
  ) then
    perform ward_internal.fail('unsupported', format('a generated column of %s is made from sealed column %I', p_table,
      p_column), 'drop the generated column, or do not seal what it is made from');
  end if;
end
$$;
comment on function ward_internal.check_sealed_column(regclass, text) is 'raises unless the column can be sealed';

create or replace function ward_internal.check_foreign_keys(p_table regclass, p_seals boolean) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_key record;
begin
  for v_key in
    select c.*, p.conkey as primary_key from pg_constraint as c
    join pg_constraint as p on p.conrelid = c.conrelid and p.contype = 'p'
    where c.conrelid = p_table and c.contype = 'f'
  loop
    if v_key.confmatchtype = 'f' or v_key.confupdtype in ('n', 'd') then
      perform ward_internal.fail('unsupported', format('%s has a foreign key that is %s', p_table,
          case v_key.confmatchtype when 'f' then 'MATCH FULL' else 'ON UPDATE SET NULL or SET DEFAULT' end),
        'drop that from the foreign key: there is no such key between leaves');
    end if;
    if v_key.confrelid <> p_table
      and not exists (select from ward_internal.models where shape = v_key.confrelid)
      and not exists (select from ward_internal.shares where relation = v_key.confrelid)
    then
      perform ward_internal.fail('unsupported',
        format('foreign key %I of %s references %s, which is not protected', v_key.conname, p_table,
          v_key.confrelid::regclass),
        format('protect that first: select ward.protect(%1$L), or share it with all: select ward.share(%1$L)',
          v_key.confrelid::regclass));
    end if;
    if p_seals and (v_key.confupdtype = 'c' or v_key.confdeltype = 'd') and v_key.conkey && v_key.primary_key then
      perform ward_internal.fail('unsupported',
        format('foreign key %I of %s would change a primary key behind the seals', v_key.conname, p_table),
        'ciphertexts are bound to the primary key: drop ON UPDATE CASCADE or ON DELETE SET DEFAULT from the foreign '
        'key');
    end if;
  end loop;
end
$$;
comment on function ward_internal.check_foreign_keys(regclass, boolean) is
  'raises unless each foreign key of the table can stand between leaves; p_seals: the table has sealed columns';

create or replace function ward_internal.register_sealed_column(
  p_model uuid, p_shape regclass, p_column name, p_class text
) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  insert into ward_internal.sealed_columns (model_id, name, labels, class)
    select p_model, attname, array(select enumlabel from pg_enum where enumtypid = atttypid order by enumsortorder),
      p_class
    from pg_attribute where attrelid = p_shape and attname = p_column
$$;

create or replace function ward_internal.check_declared_table(p_table regclass, p_seal text[]) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_class pg_class := (select c from pg_class as c where oid = p_table);
  v_reason text;
begin
  if v_class.relkind is distinct from 'r' or v_class.relpersistence <> 'p' then
    perform ward_internal.fail('unsupported', format('%s is not an ordinary table', p_table),
      'protect takes a permanent table that is not partitioned, not a view and not foreign');
  end if;
  if v_class.relnamespace::regnamespace::text in ('ward', 'ward_internal', 'ward_model', 'pg_catalog',
    'information_schema')
    or exists (select from ward_internal.ward_schemas()
      where schema_name = v_class.relnamespace::regnamespace::text)
  then
    perform ward_internal.fail('unsupported', format('%s is in a schema that cannot hold model tables', p_table),
      'create model tables in a schema of your own');
  end if;
  if exists (select from ward_internal.models where face = v_class.relname) then
    perform ward_internal.fail('unsupported', format('there is already a face called %I', v_class.relname),
      'rename the table: every face has the name of its table, in one schema per tenant');
  end if;
  perform ward_internal.check_names(row(gen_random_uuid(), p_table, p_table, v_class.relname, '', 'row', null));
  perform ward_internal.check_size(p_table, p_seal);
  if not exists (select from pg_index where indrelid = p_table and indisprimary) then
    perform ward_internal.fail('no_primary_key', format('%s has no primary key', p_table),
      format('alter table %s add primary key (…): ciphertexts are bound to their row by it', p_table));
  end if;
  if exists (select from pg_index where indrelid = p_table and indisprimary and not indimmediate) then
    perform ward_internal.fail('unsupported', format('the primary key of %s is deferrable', p_table),
      'declare it NOT DEFERRABLE: while it is deferred, two rows may have one key');
  end if;
  v_reason := case
    when exists (select from pg_inherits where p_table in (inhrelid, inhparent)) then 'takes part in inheritance'
    when exists (select from pg_trigger where tgrelid = p_table and not tgisinternal) then 'has triggers'
    when exists (select from pg_policy where polrelid = p_table) or v_class.relrowsecurity then 'has row-level security'
    when exists (select from pg_rewrite where ev_class = p_table) then 'has rules'
    when exists (select from pg_depend where refobjid = p_table and classid = 'pg_rewrite'::regclass)
      then 'has views on it'
    when exists (select from pg_publication_rel where prrelid = p_table) then 'is published'
    when exists (select from pg_constraint where conrelid = p_table and contype = 'x')
      then 'has an exclusion constraint'
    when exists (select from pg_constraint where conrelid = p_table and contype = 'c' and connoinherit)
      then 'has a CHECK that is NO INHERIT'
    when exists (select from pg_attribute where attrelid = p_table and attnum > 0 and attname = 'tenant_id')
      then 'has a column tenant_id, which is wardkey''s'
    when exists (select from pg_attribute where attrelid = p_table and attnum > 0
      and ward_internal.is_token_column(attname))
      then 'has a column with a name of wardkey''s own'
    when exists (
      select from pg_depend as d join pg_class as q on q.oid = d.refobjid and q.relkind = 'S'
      join pg_attrdef as e on d.classid = 'pg_attrdef'::regclass and e.oid = d.objid and e.adrelid = p_table
      where d.refclassid = 'pg_class'::regclass and not exists (
        select from pg_depend as o where o.classid = 'pg_class'::regclass and o.objid = q.oid and o.refobjid = p_table
          and o.refobjsubid = e.adnum and o.deptype in ('a', 'i')))
      then 'has a default that draws from a sequence which is not the column''s own'
  end;
  if v_reason is not null then
    perform ward_internal.fail('unsupported', format('%s %s', p_table, v_reason),
      'drop that from the table, then protect it');
  end if;
  perform ward_internal.check_foreign_keys(p_table, cardinality(p_seal) > 0);
  if cardinality(p_seal) > 0 and exists (
    select from pg_index as i join pg_attribute as a on a.attrelid = p_table and a.attnum = any (i.indkey)
    where i.indrelid = p_table and i.indisprimary and not ward_internal.can_be_row_id(a.atttypid)
  ) then
    perform ward_internal.fail('unsupported',
      format('the primary key of %s is of a type that ciphertexts cannot be bound to', p_table),
      'use integer, uuid or text keys');
  end if;
end
$$;
comment on function ward_internal.check_declared_table(regclass, text[]) is 'raises unless the table can be protected';

create or replace function ward_internal.parent_query(p_model uuid, p_name text) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select format('create table %s (%s) partition by list (tenant_id)', p_name,
    'tenant_id uuid not null, '
    || (select string_agg(format('%I %s%s%s%s', a.attname,
          case when s.id is null then format_type(a.atttypid, a.atttypmod) else 'bytea' end,
          case when s.id is null and a.attcollation <> t.typcollation then
            format(' collate %s', a.attcollation::regcollation) else '' end,
          case when a.attnotnull then ' not null' else '' end,
          case
            when d.oid is null or s.id is not null or pg_get_serial_sequence(m.shape::text, a.attname) is not null
              then ''
            when a.attgenerated <> '' then format(' generated always as (%s) %s', pg_get_expr(d.adbin, d.adrelid),
              case a.attgenerated when 's' then 'stored' else 'virtual' end)
            else format(' default %s', pg_get_expr(d.adbin, d.adrelid))
          end), ', ' order by a.attnum)
        from pg_attribute as a
        join pg_type as t on t.oid = a.atttypid
        left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        left join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = a.attname
        where a.attrelid = m.shape and a.attnum > 0 and not a.attisdropped)
    || coalesce((select string_agg(format(', constraint %I %s', c.conname,
          case when c.contype in ('p', 'u') then regexp_replace(pg_get_constraintdef(c.oid), '\(', '(tenant_id, ')
          else pg_get_constraintdef(c.oid) end), '' order by c.conname)
        from pg_constraint as c
        where c.conrelid = m.shape and (c.contype in ('p', 'u') or c.contype = 'c' and not exists (
          select from pg_attribute as a
          join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = a.attname
          where a.attrelid = m.shape and a.attnum = any (c.conkey)))), ''))
  from ward_internal.models as m
  where m.id = p_model
$$;
comment on function ward_internal.parent_query(uuid, text) is
  'the partitioned table: sealed columns as bytea, tenant_id in front of every key, no foreign keys';

create or replace function ward_internal.create_parent_indexes(p_model uuid, p_parent text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_index record;
  v_tail text;
begin
  for v_index in
    select c.relname as name, pg_get_indexdef(i.indexrelid) as definition, am.amname = 'btree' as is_btree,
      i.indisunique, format('CREATE %sINDEX %I ON %I.%I', case when i.indisunique then 'UNIQUE ' else '' end, c.relname,
        n.nspname, t.relname) as head
    from ward_internal.models as m
    join pg_index as i on i.indrelid = m.shape
    join pg_class as c on c.oid = i.indexrelid
    join pg_class as t on t.oid = i.indrelid
    join pg_namespace as n on n.oid = t.relnamespace
    join pg_am as am on am.oid = c.relam
    where m.id = p_model and not exists (select from pg_constraint where conindid = i.indexrelid and conrelid = m.shape)
    order by c.relname
  loop
    if not starts_with(v_index.definition, v_index.head) then
      perform ward_internal.fail('unsupported', format('index %I cannot be read', v_index.name), 'drop the index');
    end if;
    v_tail := substr(v_index.definition, length(v_index.head) + 1);
    if v_index.is_btree then
      v_tail := regexp_replace(v_tail, '^ USING btree \(', ' USING btree (tenant_id, ');
    end if;
    execute format('create %sindex %I on %s%s', case when v_index.indisunique then 'unique ' else '' end, v_index.name,
      p_parent, v_tail);
  end loop;
end
$$;

create or replace function ward_internal.copy_comments(p_model uuid, p_parent text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_shape regclass := (select shape from ward_internal.models where id = p_model);
  v_column record;
begin
  if obj_description(v_shape, 'pg_class') is not null then
    execute format('comment on table %s is %L', p_parent, obj_description(v_shape, 'pg_class'));
  end if;
  for v_column in
    select attname, col_description(v_shape, attnum) as text from pg_attribute
    where attrelid = v_shape and attnum > 0 and not attisdropped and col_description(v_shape, attnum) is not null
  loop
    execute format('comment on column %s.%I is %L', p_parent, v_column.attname, v_column.text);
  end loop;
end
$$;

create or replace function ward.protect(
  p_table regclass, seal jsonb, audit text default 'row', audit_reason text default null, search jsonb default '{}'
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid := gen_random_uuid();
  v_class pg_class;
  v_schema name;
  v_parent text;
  v_has_rows boolean;
  v_column text;
  v_columns text[];
  v_tenant ward_internal.tenants;
  v_unique record;
  v_uniques jsonb := '[]';
begin
  perform ward_internal.require_superuser();
  if jsonb_typeof(seal) is distinct from 'object' then
    perform ward_internal.fail('unknown_object', 'seal is not an object of columns and their classes',
      'an object {"name": "identifier", "birth_date": "quasi"}, or a list of columns');
  end if;
  v_columns := array(select jsonb_object_keys(seal));
  if exists (select from jsonb_each_text(seal) where value is null or not exists (
    select from ward_internal.known_classes where name = value))
  then
    perform ward_internal.fail('unknown_object', 'no such class', 'list them: select * from ward.classes');
  end if;
  if exists (select from ward_internal.models where relation = p_table) then
    perform ward_internal.fail('unsupported', format('%s is protected already', p_table),
      'to seal a further column: select ward.add_sealed_column(…)');
  end if;
  perform ward_internal.check_audit_level(audit, audit_reason);
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  perform ward_internal.check_declared_table(p_table, v_columns);
  -- with the tables it references: their leaves get triggers
  perform ward_internal.lock_together(array(select ward_internal.relations_of(p_table || array(
    select m.relation from pg_constraint as c join ward_internal.models as m on m.shape = c.confrelid
      or m.relation = c.confrelid
    where c.conrelid = p_table and c.contype = 'f'))));
  for v_unique in
    select conname, array(select attname from unnest(conkey) with ordinality as k (number, place)
        join pg_attribute on attrelid = p_table and attnum = number order by place) as columns
    from pg_constraint join pg_index on indexrelid = conindid
    where conrelid = p_table and contype = 'u' and not condeferrable and not indnullsnotdistinct and exists (
      select from pg_attribute where attrelid = p_table and attnum = any (conkey) and attname = any (v_columns))
    order by conname
  loop
    v_uniques := v_uniques || to_jsonb(v_unique);
    execute format('alter table %s drop constraint %I', p_table, v_unique.conname);
  end loop;
  foreach v_column in array v_columns loop
    perform ward_internal.check_sealed_column(p_table, v_column);
  end loop;
  execute format('select exists (select from %s)', p_table) into v_has_rows;
  if v_has_rows then
    perform ward_internal.fail('table_not_empty', format('%s has rows', p_table),
      'nobody can say whose they are: move them away, protect the empty table, load them through each tenant''s face');
  end if;

  v_class := (select c from pg_class as c where oid = p_table);
  v_schema := (select nspname from pg_namespace where oid = v_class.relnamespace);
  v_parent := format('%I.%I', v_schema, v_class.relname);
  execute format('grant usage on schema %I to ward_owner', v_schema);  -- checks name its types and functions
  execute format('alter table %s set schema ward_model', p_table);
  execute format('alter table ward_model.%I rename to %I', v_class.relname,
    ward_internal.cut_name(v_schema || '__' || v_class.relname));
  execute format('alter table %s owner to ward_owner', p_table);
  insert into ward_internal.models (id, relation, shape, face, row_form, audit, audit_reason)
    values (v_model, p_table, p_table, v_class.relname, ward_internal.row_form(p_table), audit, audit_reason);
  perform ward_internal.register_sealed_column(v_model, p_table, key, value) from jsonb_each_text(seal);

  execute ward_internal.parent_query(v_model, v_parent);
  perform ward_internal.create_parent_indexes(v_model, v_parent);
  perform ward_internal.copy_comments(v_model, v_parent);
  perform ward_internal.set_row_security(v_parent);
  update ward_internal.models set relation = v_parent::regclass where id = v_model;
  perform ward_internal.open_model_schemas();

  for v_tenant in select * from ward_internal.tenants where status not in ('shredding', 'shredded') loop
    perform ward_internal.create_leaf(v_model, v_tenant);
    perform ward_internal.create_leaf_foreign_keys(v_model, v_tenant);
    perform ward_internal.build_face(v_model, v_tenant);
  end loop;
  update ward_internal.tenants set key_epoch = key_epoch + 1;  -- backends learn the columns
  perform ward_internal.log_event(ward_internal.master_id(), 'protected', jsonb_build_object('table', v_parent,
    'model', v_model, 'sealed', to_jsonb(v_columns), 'classes', seal, 'audit', audit, 'reason', audit_reason));
  perform ward.add_search(v_parent::regclass, key::name, array(select jsonb_array_elements_text(value)))
    from jsonb_each(search);
  perform ward.add_unique(v_parent::regclass, array(select jsonb_array_elements_text(value -> 'columns')),
      (value ->> 'conname')::name)
    from jsonb_array_elements(v_uniques);
end
$$;
comment on function ward.protect(regclass, jsonb, text, text, jsonb) is
  'makes an empty table a model table: every tenant gets a leaf of it, with the columns of "seal" encrypted, and a '
  'face. Needs a primary key. UNIQUE over sealed columns becomes ward.add_unique; other indexes over them, triggers, '
  'rules and exclusion constraints are refused. Later tables reference it through its shape in schema ward_model. '
  'audit: row, statement or off, with audit_reason: see ward.set_audit. search: {"name": ["exact", "prefix"]}, see '
  'ward.add_search';

create or replace function ward.protect(
  p_table regclass, seal text[], audit text default 'row', audit_reason text default null, search jsonb default '{}'
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if seal is null or array_position(seal, null) is not null then
    perform ward_internal.fail('unknown_object', 'a column to seal is NULL',
      'name the columns of the table that are to be sealed');
  elsif (select count(distinct name) from unnest(seal) as name) <> cardinality(seal) then
    perform ward_internal.fail('unsupported', format('%s names a column twice', p_table),
      'name each column to seal once');
  end if;
  perform ward.protect(p_table, (select coalesce(jsonb_object_agg(name, 'clinical'), '{}') from unnest(seal) as name),
    audit, audit_reason, search);
end
$$;
comment on function ward.protect(regclass, text[], text, text, jsonb) is
  'the same for a list of columns, which are of class clinical';

create or replace function ward.protect(
  p_table regclass, seal text default '{}', audit text default 'row', audit_reason text default null,
  search jsonb default '{}'
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if seal ~ '^\s*\{\s*"[^"]*"\s*:' then
    perform ward.protect(p_table, seal::jsonb, audit, audit_reason, search);
  else
    perform ward.protect(p_table, seal::text[], audit, audit_reason, search);
  end if;
end
$$;
comment on function ward.protect(regclass, text, text, text, jsonb) is
  'the same for a literal, which is either: {"name": "identifier"} or {name, birth_date}';

create or replace function ward.share(p_table regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_class pg_class := (select c from pg_class as c where oid = p_table);
begin
  perform ward_internal.require_superuser();
  if v_class.relkind is distinct from 'r' or exists (select from ward_internal.models
    where p_table in (relation, shape))
    or v_class.relnamespace::regnamespace::text in ('ward', 'ward_internal', 'ward_model', 'pg_catalog',
      'information_schema')
    or exists (select from ward_internal.ward_schemas()
      where schema_name = v_class.relnamespace::regnamespace::text)
  then
    perform ward_internal.fail('unsupported', format('%s cannot be shared', p_table),
      'share takes ordinary tables that are no tenant''s: code systems, calendars, price lists');
  end if;
  insert into ward_internal.shares values (p_table) on conflict do nothing;
  execute format('grant usage on schema %s to ward_tenant, ward_owner', v_class.relnamespace::regnamespace);
  -- the writers of faces that reference it look
  execute format('grant select on %s to ward_tenant, ward_owner', p_table);
  perform ward_internal.log_event(ward_internal.master_id(), 'shared', jsonb_build_object('table', p_table::text));
end
$$;
comment on function ward.share(regclass) is
  'lets every tenant read the table; what is neither shared nor protected, none sees';

create or replace function ward_internal.rebuild_faces(p_model uuid) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant ward_internal.tenants;
begin
  perform ward_internal.open_model_schemas();
  for v_tenant in select * from ward_internal.tenants loop
    -- a ward may be away, to be restored: ward.repair_tenant makes what it lacks
    continue when to_regclass(ward_internal.leaf_name(p_model, v_tenant.schema_name)) is null
      or to_regnamespace(v_tenant.schema_name) is null;
    perform ward_internal.build_face(p_model, v_tenant);
  end loop;
  perform ward_internal.restore_dependents();
end
$$;

create or replace function ward.add_sealed_column(
  p_table regclass, p_column name, p_type text, p_default text default null, p_class text default 'clinical'
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid;
  v_shape regclass;
begin
  perform ward_internal.require_superuser();
  v_model := ward_internal.model_of(p_table);
  v_shape := (select shape from ward_internal.models where id = v_model);
  if exists (select from pg_attribute where attrelid = p_table and attname = p_column and not attisdropped) then
    perform ward_internal.fail('unsupported', format('%s has a column %I already', p_table, p_column),
      'choose another name; a column that is there cannot be sealed later');
  end if;
  if not exists (select from ward_internal.known_classes where name = p_class) then
    perform ward_internal.fail('unknown_object', 'no such class', 'list them: select * from ward.classes');
  end if;
  perform p_type::regtype;  -- raises, before anything is made of the text
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  execute format('alter table %s add column %I %s%s', v_shape, p_column, p_type,
    coalesce(' default ' || p_default, ''));
  perform ward_internal.check_sealed_column(v_shape, p_column);
  perform ward_internal.register_sealed_column(v_model, v_shape, p_column, p_class);
  perform ward_internal.check_size(v_shape, (select array_agg(name) from ward_internal.sealed_columns
    where model_id = v_model));
  execute format('alter table %s add column %I bytea', p_table, p_column);
  perform ward_internal.rebuild_faces(v_model);
  update ward_internal.tenants set key_epoch = key_epoch + 1;  -- backends learn the column
  perform ward_internal.log_event(ward_internal.master_id(), 'column sealed',
    jsonb_build_object('table', p_table::text, 'column', p_column, 'class', p_class));
end
$$;
comment on function ward.add_sealed_column(regclass, name, text, text, text) is
  'adds a sealed, nullable column to a model table and all its faces. p_default is an SQL expression for new rows';

create or replace view ward.models as
  select
    m.relation,
    m.face,
    (select coalesce(array_agg(s.name order by s.name), '{}') from ward_internal.sealed_columns as s
      where s.model_id = m.id)
      as sealed,
    (select coalesce(jsonb_object_agg(s.name, s.class), '{}') from ward_internal.sealed_columns as s
      where s.model_id = m.id) as classes,
    m.shape,
    m.id,
    m.audit,
    m.audit_reason,
    (select coalesce(jsonb_object_agg(s.name, s.mask), '{}') from ward_internal.sealed_columns as s
      where s.model_id = m.id and s.mask is not null) as masks
  from ward_internal.models as m;
comment on view ward.models is
  'the protected tables, which of their columns are sealed, of what class and with what mask of their own, and how '
  'reading them is journalled';
