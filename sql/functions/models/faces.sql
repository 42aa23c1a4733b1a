-- Leaves and faces. A leaf is a tenant's partition of a model table, sealed. A face is the view that applications use
-- in its stead, with INSTEAD OF triggers. The two have one name, so that PostgreSQL's own errors about a leaf name the
-- face, and lie in two schemas of the ward: tenant_acme.patients is the face, sealed_acme.patients the leaf. Both
-- belong to ward_owner; tenants have privileges on faces only, and every statement on a leaf, a face's too, stands
-- under row-level security.
--
-- A face's trigger writes one row of the leaf: the one that has the key and every value of the row it was given. It
-- refuses to change or delete a row that another transaction changed after the statement's snapshot (40001, as under
-- repeatable read): on a view PostgreSQL does not look again. What the statement itself changed before, it may delete,
-- and does not update again: as on a table.
--
-- Constraints are the leaf's: what a row violates, PostgreSQL says itself, at once or at COMMIT, without the values,
-- for the leaf stands under row-level security. A CHECK of a sealed column, which the leaf cannot look at, is the
-- trigger's.

create or replace function ward_internal.leaf_schema(p_schema name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return 'sealed' || substr(p_schema, length('tenant_'));
comment on function ward_internal.leaf_schema(name) is 'the schema of the leaves of a ward, beside that of its faces';

create or replace function ward_internal.ward_schemas() returns table (tenant_id uuid, schema_name name)
language sql stable security invoker set search_path = pg_catalog, pg_temp as $$
  select id, schema_name from ward_internal.tenants
  union all
  select id, ward_internal.leaf_schema(schema_name) from ward_internal.tenants
$$;
comment on function ward_internal.ward_schemas() is 'both schemas of each ward';

create or replace function ward_internal.leaf_name(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select format('%I.%I', ward_internal.leaf_schema(p_schema), face) from ward_internal.models
  where id = p_model);
comment on function ward_internal.leaf_name(uuid, name) is 'the leaf of the model in the ward of this schema';

create or replace function ward_internal.writer_name(p_face name, p_schema name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name(p_face || '_write' || substr(p_schema, length('tenant_')));
comment on function ward_internal.writer_name(name, name) is
  'name of a face''s trigger function: patients_write_acme. Its own in each ward, because PostgreSQL looks a function '
  'up among all of its name, in whatever schema';

create or replace function ward_internal.set_row_security(p_relation text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  execute format('alter table %s owner to ward_owner', p_relation);
  execute format('alter table %s enable row level security', p_relation);
  execute format('alter table %s force row level security', p_relation);
  -- The restrictive one stands also if somebody adds a permissive policy, which would be OR-ed. It alone checks new
  -- rows: every query on a leaf pays for asking again, and the partition's constraint and the face's trigger check too.
  execute format($sql$
    create policy ward_tenant on %s as permissive
      using (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_no_context()))) with check (true)
  $sql$, p_relation);
  execute format($sql$
    create policy ward_fence on %s as restrictive
      using (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_no_context())))
      with check (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_no_context())))
  $sql$, p_relation);
end
$$;
comment on function ward_internal.set_row_security(text) is
  'makes a parent or leaf ward_owner''s and puts it under RLS';

create or replace function ward_internal.name_leaf_indexes(p_leaf regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_index record;
begin
  for v_index in
    select c.oid::regclass as made, declared.relname as name
    from pg_index as x
    join pg_class as c on c.oid = x.indexrelid
    join pg_inherits as i on i.inhrelid = x.indexrelid
    join pg_class as declared on declared.oid = i.inhparent
    where x.indrelid = p_leaf and c.relname <> declared.relname and not exists (
      select from pg_class where relnamespace = c.relnamespace and relname = declared.relname)
  loop
    execute format('alter index %s rename to %I', v_index.made, v_index.name);
  end loop;
end
$$;
comment on function ward_internal.name_leaf_indexes(regclass) is
  'errors name the constraint: by its declared name, which applications know, not by the one PostgreSQL makes up';

create or replace function ward_internal.create_leaf(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_tenant.schema_name);
begin
  execute format('create table %s partition of %s for values in (%L)', v_leaf,
    (select relation from ward_internal.models where id = p_model), p_tenant.id);
  perform ward_internal.set_row_security(v_leaf);
  perform ward_internal.name_leaf_indexes(v_leaf::regclass);
end
$$;

create or replace function ward_internal.create_counters(p_model uuid, p_tenant ward_internal.tenants)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_counter record;
begin
  for v_counter in
    select made.name, s.*
    from ward_internal.model_columns(p_model) as c
    join pg_class as seq on seq.oid = c.sequence
    join pg_sequence as s on s.seqrelid = c.sequence
    cross join lateral (select format('%I.%I', p_tenant.schema_name, seq.relname) as name) as made
    where to_regclass(made.name) is null
  loop
    execute format('create sequence %s as %s start %s increment %s minvalue %s maxvalue %s cache %s %s',
      v_counter.name, v_counter.seqtypid::regtype, v_counter.seqstart, v_counter.seqincrement, v_counter.seqmin,
      v_counter.seqmax, v_counter.seqcache, case when v_counter.seqcycle then 'cycle' else 'no cycle' end);
    execute format('alter sequence %s owner to ward_owner', v_counter.name);
  end loop;
end
$$;
comment on function ward_internal.create_counters(uuid, ward_internal.tenants) is
  'makes the sequences that a face lacks: the tenant''s own, for gaps in a shared one would tell how much others '
  'insert. They lie beside the face, outlive a leaf that is lost, and go with the model''s: ward_internal.on_drop';

create or replace function ward_internal.create_leaf_foreign_keys(p_model uuid, p_tenant ward_internal.tenants)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_key record;
begin
  for v_key in
    select c.conname, target.id as target, c.confrelid::regclass as shared,
      (select string_agg(quote_ident(attname), ', ' order by place)
        from unnest(c.conkey) with ordinality as k (num, place)
        join pg_attribute on attrelid = c.conrelid and attnum = num) as columns,
      (select string_agg(quote_ident(attname), ', ' order by place)
        from unnest(c.confkey) with ordinality as k (num, place)
        join pg_attribute on attrelid = c.confrelid and attnum = num) as referenced,
      (select string_agg(quote_ident(attname), ', ' order by place)
        from unnest(coalesce(c.confdelsetcols, c.conkey)) with ordinality as k (num, place)
        join pg_attribute on attrelid = c.conrelid and attnum = num) as set_columns,
      case c.confupdtype when 'c' then ' on update cascade' when 'r' then ' on update restrict' else '' end
        as on_update,
      c.confdeltype,
      case when c.condeferrable then ' deferrable' else '' end
        || case when c.condeferred then ' initially deferred' else '' end as deferrable
    from ward_internal.models as m
    join pg_constraint as c on c.conrelid = m.shape and c.contype = 'f'
    left join ward_internal.models as target on target.shape = c.confrelid
    where m.id = p_model and not exists (
      select from pg_constraint as l where l.conrelid = ward_internal.leaf_name(p_model, p_tenant.schema_name)::regclass
        and l.contype = 'f' and l.conname = c.conname)
    order by c.conname
  loop
    execute format('alter table %s add constraint %I foreign key (%s%s) references %s (%s%s)%s%s%s',
      ward_internal.leaf_name(p_model, p_tenant.schema_name), v_key.conname,
      case when v_key.target is not null then 'tenant_id, ' else '' end, v_key.columns,
      coalesce(ward_internal.leaf_name(v_key.target, p_tenant.schema_name), v_key.shared::text),
      case when v_key.target is not null then 'tenant_id, ' else '' end, v_key.referenced,
      v_key.on_update,
      case v_key.confdeltype
        when 'c' then ' on delete cascade'
        when 'r' then ' on delete restrict'
        when 'n' then format(' on delete set null (%s)', v_key.set_columns)
        when 'd' then format(' on delete set default (%s)', v_key.set_columns)
        else ''
      end,
      v_key.deferrable);
  end loop;
end
$$;
comment on function ward_internal.create_leaf_foreign_keys(uuid, ward_internal.tenants) is
  'foreign keys stand between leaves of one ward: they cannot reach another tenant';

create or replace function ward_internal.key_operator(p_index regclass, p_place integer) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select format('operator(%I.%s)', o.oprnamespace::regnamespace::name, o.oprname)
  from pg_index as i
  join pg_opclass as class on class.oid = i.indclass[p_place]
  join pg_amop as equal on equal.amopfamily = class.opcfamily and equal.amopstrategy = 3
    and equal.amoplefttype = class.opcintype and equal.amoprighttype = class.opcintype
  join pg_operator as o on o.oid = equal.amopopr
  where i.indexrelid = p_index
$$;
comment on function ward_internal.key_operator(regclass, integer) is
  'what a unique index itself takes for equality at this place, from 0, as an operator may be in no search_path';

create or replace function ward_internal.face_expressions(p_model uuid)
returns table (place integer, column_name name, expression text)
language sql stable strict rows 10 security invoker set search_path = pg_catalog, pg_temp as $$
  with row_id as materialized (select ward_internal.row_expression(p_model, 'l') as expression)
  select c.place, c.column_name, case when c.column_id is null then 'l.' || q.quoted
    else ward_internal.unseal_expression('l.' || q.quoted, c.type_id, c.type_name, c.column_id, row_id.expression)
      || coalesce(' collate ' || c.collation_name, '') end
  from ward_internal.model_columns(p_model) as c, row_id,
    lateral (select ward_internal.quoted_name(c.column_name) as quoted) as q
$$;
comment on function ward_internal.face_expressions(uuid) is 'what a face shows of row l of its leaf, column by column';

create or replace function ward_internal.face_query(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  -- uncorrelated: planned as a one-time filter, which also an empty leaf, or an index that finds nothing, asks; but
  -- part of the join's condition where PostgreSQL 16 or later finds the face in an outer join, and then the leaf's
  -- policy asks
  select format('select %s from %s as l where (select coalesce(ward.require_context(%L), ward.raise_refusal(true)))',
    string_agg(format('%s as %I', expression, column_name), ', ' order by place),
      ward_internal.leaf_name(p_model, p_schema), p_model)
  from ward_internal.face_expressions(p_model)
$$;

create or replace function ward_internal.face_checks(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with model as (
    select * from ward_internal.models where id = p_model
  ), violated as (
    select k.columns, k.generates, c.conname, format($sql$
      if not coalesce((%1$s), true) then
        raise check_violation using constraint = %2$L, table = %3$L, schema = %4$L, message = %5$L;
      end if;$sql$, pg_get_expr(c.conbin, c.conrelid), c.conname, face, ward_internal.leaf_schema(p_schema),
      format('new row for relation "%s" violates check constraint "%s"', face, c.conname)) as text
    from model
    join pg_constraint as c on c.conrelid = model.shape and c.contype = 'c'
    cross join lateral (
      select array_agg(attname) as columns, bool_or(attgenerated <> '') as generates,
        bool_or(attname in (select name from ward_internal.sealed_columns where model_id = p_model)) as seals
      from pg_attribute where attrelid = model.shape and attnum = any (c.conkey)
    ) as k
    where k.seals and not 0 = any (c.conkey)
  ), declared as (
    select string_agg(
        format('%1$s %2$s%3$s := %4$s', q.quoted, c.type_name, coalesce(' collate ' || c.collation_name, ''),
          case when c.generated then (
            select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = a.attrelid and adnum = a.attnum)
          else 'new.' || q.quoted end),
        E';\n      '
        order by c.generated, c.column_name = 'new', a.attnum) as text  -- new hides the record from those after it
    from ward_internal.model_columns(p_model) as c
    join pg_attribute as a on a.attrelid = (select shape from model) and a.attname = c.column_name
    cross join lateral (select ward_internal.quoted_name(c.column_name) as quoted) as q
    where exists (select from violated where generates or c.column_name = any (columns))
  )
  select format(E'\n    declare\n      %s;\n    begin%s\n    end;', declared.text,
    string_agg(violated.text, '' order by conname))
  from declared, violated group by declared.text
$$;
comment on function ward_internal.face_checks(uuid, name) is
  'the CHECKs of sealed columns as PL/pgSQL, for the plaintext, before it is sealed; null without one. Their errors '
  'are as the leaf''s would be';

create or replace function ward_internal.is_running(p_transaction xid) returns boolean
language sql volatile strict security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce(pg_xact_status((now.id - (now.id - p_transaction::text::bigint + 6442450944) % 4294967296
      + 2147483648)::text::xid8) = 'in progress', false)
  from (select pg_current_xact_id()::text::bigint as id) as now
$$;
comment on function ward_internal.is_running(xid) is
  'whether the transaction, one of the last two thousand million, has not ended: of a row that is locked, it is the '
  'current one';

create or replace function ward_internal.face_sealing(p_model uuid, p_tenant uuid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with col as (
    select row_number() over (order by place) as number, type_id, column_id, 'new.' || quoted as new_field,
      ward_internal.sealed_bytes('new.' || quoted, type_id) as new_bytes,
      ward_internal.canonical_expression('new.' || quoted, type_id) as new_value,
      ward_internal.canonical_expression('old.' || quoted, type_id) as old_value
    from ward_internal.model_columns(p_model), lateral (select ward_internal.quoted_name(column_name) as quoted) as q
    where column_id is not null
  )
  select ward_internal.filled($body$
    if tg_op = 'UPDATE' then
      v_old_row := @old_row@;
      v_kept := array[@kept@];
      if v_row <> v_old_row or @emptied@ then  -- masks would be sealed as values, or a value be lost
        perform coalesce(ward_internal.check_rewrite(case when v_row <> v_old_row then @columns@ else '' end,
          @emptied_columns@), ward.raise_refusal(true));
      end if;
      if v_row <> v_old_row then
        perform ward_internal.follow_honey(@tenant@, @model@, v_old_row, v_row, array[@key@]);
      end if;
    end if;
    -- one assignment: PL/pgSQL keeps its expression ready and takes one snapshot. The leaf refuses a key that is null
    v_sealed := case when v_row is not null then @sealed@ end;@tokens@$body$, jsonb_build_object(
      'tenant', quote_literal(p_tenant),
      'model', quote_literal(p_model),
      'key', (select string_agg(format('new.%s::text', ward_internal.quoted_name(column_name)), ', ' order by key_place)
        from ward_internal.model_columns(p_model) where key_place is not null),
      'tokens', coalesce(ward_internal.face_tokens(p_model), ''),
      'old_row', ward_internal.row_expression(p_model, 'old'),
      'columns', format('%L::bytea', string_agg(uuid_send(column_id), '' order by number)),
      'emptied', string_agg(format('%s is null and not v_kept[%s]', new_field, number), ' or ' order by number),
      'emptied_columns', string_agg(format('case when %s is null and not v_kept[%s] then %L::bytea else %L end',
        new_field, number, uuid_send(column_id), ''), ' || ' order by number),
      'kept', string_agg(format('v_row = v_old_row and %s%s is not distinct from %s', new_value,
        -- a declared one may say that A and a are equal
        case type_id when 'bytea'::regtype then '' else ' collate "C"' end, old_value),
        E',\n        ' order by number),
      'sealed', ward_internal.seal_expression(
        array_agg(format('case when v_kept[%s] then null else %s end', number, new_bytes) order by number),
        array_agg(column_id order by number), 'v_row')))
  from col having count(*) > 0
$$;
comment on function ward_internal.face_sealing(uuid, uuid) is
  'PL/pgSQL that seals the values of the row, but those that an update leaves; null if no column is sealed';

create or replace function ward_internal.face_trigger_parts(p_model uuid, p_tenant ward_internal.tenants) returns jsonb
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with col as (
    select c.*, q.quoted, 'new.' || q.quoted as new_value, 'old.' || q.quoted as old_value,
      count(c.column_id) over (order by c.place) as number
    from ward_internal.model_columns(p_model) as c,
      lateral (select ward_internal.quoted_name(c.column_name) as quoted) as q
  ), key as (
    select indexrelid::regclass as index from pg_index join ward_internal.models on indrelid = shape
    where id = p_model and indisprimary
  ), token as (
    select coalesce(string_agg(', ' || stored, '' order by place), '') as columns,
      coalesce(string_agg(format(E',\n      face.v_tokens[%s]::%s', place, type), '' order by place), '') as inserted,
      coalesce(string_agg(format(E',\n          %1$s = case when face.v_kept[%2$s] then l.%1$s else '
        'face.v_tokens[%3$s]::%4$s end', stored, number, place, type), '' order by place), '') as updated
    from ward_internal.model_searches(p_model),
      lateral (select case when kind ~ '^(exact|unique)' then 'bigint' else 'bigint[]' end as type) as t
  )
  select jsonb_build_object(
    'tenant', quote_literal(p_tenant.id),
    'model', quote_literal(p_model),
    'leaf', leaf,
    'checks', coalesce(ward_internal.face_checks(p_model, p_tenant.schema_name), ''),
    'row', case when sealing is null then 'null' else ward_internal.row_expression(p_model, 'new') end,
    'sealing', coalesce(sealing, ''),
    'columns', string_agg(quoted, ', ' order by place) filter (where not generated) || token.columns,
    'inserted', string_agg(case when column_id is null then new_value else format('face.v_sealed[%s]', number) end,
      ', ' order by place)
      filter (where not generated) || token.inserted,
    'updated', string_agg(format(case when column_id is null then '%1$s = %2$s'
        else '%1$s = case when face.v_kept[%3$s] then l.%1$s else face.v_sealed[%3$s] end' end, quoted, new_value,
          number),
      E',\n          ' order by place) filter (where not generated) || token.updated,
    'returning', coalesce(' returning ' || string_agg('l.' || quoted, ', ' order by place) filter (where generated)
      || ' into ' || string_agg(new_value, ', ' order by place) filter (where generated), ''),
    'shown', (select string_agg(expression, ', ' order by place) from ward_internal.face_expressions(p_model)),
    'old_key', string_agg(
      format('l.%s %s %s', quoted, ward_internal.key_operator(key.index, key_place), old_value), ' and '
      order by key_place) filter (where key_place is not null))
  from col, key, token, ward_internal.leaf_name(p_model, p_tenant.schema_name) as leaf,
    ward_internal.face_sealing(p_model, p_tenant.id) as sealing
  group by leaf, sealing, token.columns, token.inserted, token.updated
$$;
comment on function ward_internal.face_trigger_parts(uuid, ward_internal.tenants) is
  'the parts of a face''s trigger function: SQL about its columns';

create or replace function ward_internal.face_trigger_body(p_model uuid, p_tenant ward_internal.tenants) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select ward_internal.filled($body$
#variable_conflict use_column
<<face>>
declare
  v_row bytea;
  v_old_row bytea;
  v_seen record;  -- a column may be called old
  v_place tid;
  v_changed_by xid;
  v_ignores boolean;
  v_stack text;
  v_kept boolean[];  -- of the sealed values of an update: which stay as they are
  v_sealed bytea[];
  v_tokens text[];
begin
  v_ignores := coalesce(ward_internal.begin_write(@tenant@, case tg_op when 'DELETE' then @model@ else '' end),
    ward.raise_refusal(true));
  if tg_op <> 'DELETE' then
    v_row := @row@;@checks@@sealing@
  end if;
  if tg_op = 'INSERT' then
    if v_ignores then
      get diagnostics v_stack = pg_context;
      if strpos(v_stack, chr(10)) = 0 then  -- the client's own INSERT, not one of a function that it calls
        insert into @leaf@ as l (tenant_id, @columns@) values (@tenant@,
          @inserted@) on conflict do nothing@returning@;
        if found then
          return new;
        end if;
        return null;
      end if;
    end if;
    insert into @leaf@ as l (tenant_id, @columns@) values (@tenant@,
      @inserted@)@returning@;
    return new;
  end if;

  v_seen := old;
  -- the row the statement saw, by its key and every value; then it is locked, and stays where it is
  select l.ctid into v_place from @leaf@ as l where l.tenant_id = @tenant@ and @old_key@
    and row(@shown@) *= face.v_seen limit 1 for update;
  if not found then
    select l.ctid, l.xmin into v_place, v_changed_by from @leaf@ as l where l.tenant_id = @tenant@ and @old_key@ limit 1
      for update;
    if not found then
      return null;
    end if;
    -- changed by this very statement: through a foreign key, or because a join finds the row twice
    if not ward_internal.is_running(v_changed_by) then
      raise exception using errcode = 'serialization_failure',
        message = 'could not serialize access due to concurrent update', hint = 'retry the transaction';
    elsif tg_op = 'UPDATE' then
      return null;
    end if;
  end if;
  if tg_op = 'UPDATE' then
    update @leaf@ as l set
      @updated@
    where l.ctid = face.v_place@returning@;
    return new;
  end if;
  delete from @leaf@ as l where l.ctid = face.v_place;
  return old;
end
$body$, ward_internal.face_trigger_parts(p_model, p_tenant))
$$;
comment on function ward_internal.face_trigger_body(uuid, ward_internal.tenants) is
  'body of the INSTEAD OF trigger of one face';

create or replace function ward_internal.create_writer(
  p_schema name, p_name name, p_body text, p_settings text default ''
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_role text := current_setting('role');
begin
  -- made by its owner, whose default privileges are not PUBLIC's; replacing it leaves owner and privileges
  if not exists (select from pg_proc where proname = p_name and proargtypes = ''::oidvector
    and pronamespace = p_schema::text::regnamespace)
  then
    perform set_config('role', 'ward_owner', true);
  end if;
  execute format('create or replace function %I.%I() returns trigger language plpgsql volatile security definer '
    'set search_path = pg_catalog, pg_temp%s as %L', p_schema, p_name, p_settings, p_body);
  if current_setting('role') <> v_role then
    perform set_config('role', v_role, true);
  end if;
end
$$;
comment on function ward_internal.create_writer(name, name, text, text) is
  'makes or remakes a trigger function of a ward, a definer with these settings; ward_owner''s and nobody else''s';

create or replace function ward_internal.build_face(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_face_name name := (select face from ward_internal.models where id = p_model);
  v_face text := format('%I.%I', p_tenant.schema_name, v_face_name);
  v_writer_name name := ward_internal.writer_name(v_face_name, p_tenant.schema_name);
  v_trigger_name name := ward_internal.cut_name(v_face_name || '_write');
  v_query text := ward_internal.face_query(p_model, p_tenant.schema_name);
  v_is_new boolean := to_regclass(v_face) is null;
  v_body text := ward_internal.face_trigger_body(p_model, p_tenant);
  v_defaults text;
begin
  begin
    execute format('create or replace view %s as %s', v_face, v_query);
  exception when invalid_table_definition then  -- a column went or changed its type
    perform ward_internal.save_dependents();
    execute format('drop view %s cascade', v_face);
    execute format('create view %s as %s', v_face, v_query);
    v_is_new := true;
  end;
  perform ward_internal.create_counters(p_model, p_tenant);
  select string_agg(format('alter column %I %s', column_name, case
      when generated or default_expression is null and sequence is null then 'drop default'
      when sequence is not null then format('set default ward.nextval(%L)',
        format('%I.%I', p_tenant.schema_name, (select relname from pg_class where oid = sequence)))
      else 'set default ' || default_expression
    end), ', ')
    into v_defaults
    from ward_internal.model_columns(p_model)
    where not v_is_new or sequence is not null or default_expression is not null and not generated;
  if v_defaults is not null then
    execute format('alter table %s %s', v_face, v_defaults);
  end if;
  perform ward_internal.create_writer(p_tenant.schema_name, v_writer_name, v_body);
  execute format('grant select, insert, update, delete on %s to %I', v_face, p_tenant.login_role);
  if (select relowner <> 'ward_owner'::regrole from pg_class where oid = v_face::regclass) then
    execute format('alter view %s owner to ward_owner', v_face);
  end if;
  if not exists (select from pg_trigger where tgrelid = v_face::regclass and tgname = v_trigger_name) then
    execute format('create trigger %I instead of insert or update or delete on %s for each row '
      'execute function %I.%I()', v_trigger_name, v_face, p_tenant.schema_name, v_writer_name);
  end if;
  perform ward_internal.build_audit_trigger(p_model, p_tenant);
  perform ward_internal.build_find(p_model, p_tenant);
end
$$;
comment on function ward_internal.build_face(uuid, ward_internal.tenants) is
  'makes or remakes the view and its trigger in one ward, and sees to the audit triggers of the leaf; the trigger''s '
  'function is a definer: a tenant may not touch the leaf';
