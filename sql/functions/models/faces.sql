-- Leaves and faces. A leaf is a tenant's partition of a model table, sealed, in the tenant's ward. A face is the view
-- that applications use in its stead, with INSTEAD OF triggers. Both belong to ward_owner; tenants have privileges on
-- faces only, and every statement on a leaf, a face's too, stands under row-level security.
--
-- A face's trigger writes one row of the leaf: the one that has the key and every value of the row it was given. It refuses to change or delete a row that another transaction changed
-- after the statement's snapshot (40001, as under repeatable read): on a view PostgreSQL does not look again. What the
-- statement itself changed before, it may delete, and does not update again: as on a table.

create or replace function ward_internal.leaf_name(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp
return (select format('%I.%I', p_schema, face || '_sealed') from ward_internal.models where id = p_model);

create or replace function ward_internal.writer_name(p_face name, p_schema name) returns name
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return ward_internal.cut_name(p_face || '_write' || substr(p_schema, length('tenant_')));
comment on function ward_internal.writer_name(name, name) is
  'name of a face''s trigger function: patients_write_acme. Its own in each ward, because PostgreSQL looks a function up among '
  'all of its name, in whatever schema';

create or replace function ward_internal.set_row_security(p_relation text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  execute format('alter table %s owner to ward_owner', p_relation);
  execute format('alter table %s enable row level security', p_relation);
  execute format('alter table %s force row level security', p_relation);
  -- The restrictive one stands also if somebody adds a permissive policy, which would be OR-ed. It alone checks new rows:
  -- every query on a leaf pays for asking again, and the partition's constraint and the face's trigger check too.
  execute format($sql$
    create policy ward_tenant on %s as permissive
      using (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_if_refused(null::uuid)))) with check (true)
  $sql$, p_relation);
  execute format($sql$
    create policy ward_fence on %s as restrictive
      using (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_if_refused(null::uuid)))) with check (tenant_id = (select coalesce(ward.try_tenant_id(), ward.raise_if_refused(null::uuid))))
  $sql$, p_relation);
end
$$;
comment on function ward_internal.set_row_security(text) is 'makes a parent or leaf ward_owner''s and puts it under RLS';

create or replace function ward_internal.name_leaf_indexes(p_leaf regclass, p_schema name) returns void
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
    where x.indrelid = p_leaf and c.relname <> declared.relname and to_regclass(format('%I.%I', p_schema, declared.relname)) is null
  loop
    execute format('alter index %s rename to %I', v_index.made, v_index.name);
  end loop;
end
$$;
comment on function ward_internal.name_leaf_indexes(regclass, name) is
  'errors name the constraint: by its declared name, which applications know, not by the one PostgreSQL makes up';

create or replace function ward_internal.create_leaf(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_tenant.schema_name);
  v_column record;
begin
  execute format('create table %s partition of %s for values in (%L)', v_leaf,
    (select relation from ward_internal.models where id = p_model), p_tenant.id);
  perform ward_internal.set_row_security(v_leaf);
  perform ward_internal.name_leaf_indexes(v_leaf::regclass, p_tenant.schema_name);
  -- A sequence of the tenant's own: gaps in a shared one would tell how much others insert.
  for v_column in
    select format('%I.%I', p_tenant.schema_name, seq.relname) as name, c.column_name, s.*
    from ward_internal.model_columns(p_model) as c
    join pg_class as seq on seq.oid = c.sequence
    join pg_sequence as s on s.seqrelid = c.sequence
  loop
    execute format('create sequence %s as %s start %s increment %s minvalue %s maxvalue %s cache %s %s',
      v_column.name, v_column.seqtypid::regtype, v_column.seqstart, v_column.seqincrement, v_column.seqmin,
      v_column.seqmax, v_column.seqcache, case when v_column.seqcycle then 'cycle' else 'no cycle' end);
    execute format('alter sequence %s owner to ward_owner', v_column.name);
    execute format('alter sequence %s owned by %s.%I', v_column.name, v_leaf, v_column.column_name);
  end loop;
end
$$;

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
  from ward_internal.model_columns(p_model) as c, row_id, lateral (select ward_internal.quoted_name(c.column_name) as quoted) as q
$$;
comment on function ward_internal.face_expressions(uuid) is 'what a face shows of row l of its leaf, column by column';

create or replace function ward_internal.face_query(p_model uuid, p_schema name) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  -- uncorrelated: planned as a one-time filter, which also an empty leaf, or an index that finds nothing, asks
  select format('select %s from %s as l where (select coalesce(ward.require_context(%L), ward.raise_refusal(true)))',
    string_agg(format('%s as %I', expression, column_name), ', ' order by place), ward_internal.leaf_name(p_model, p_schema), p_model)
  from ward_internal.face_expressions(p_model)
$$;

create or replace function ward_internal.face_checks(p_model uuid) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with model as (
    select * from ward_internal.models where id = p_model
  ), col as (
    select c.column_name, c.generated, c.column_id, a.attnum, a.attnotnull, ward_internal.quoted_name(c.column_name) as quoted,
      format('%1$s %2$s%3$s := new.%1$s', ward_internal.quoted_name(c.column_name), c.type_name,
        coalesce(' collate ' || c.collation_name, '')) as declaration
    from ward_internal.model_columns(p_model) as c
    join model on true
    join pg_attribute as a on a.attrelid = model.shape and a.attname = c.column_name
  ), missing as (
    select string_agg(format(
      $sql$
    if new.%1$s is not distinct from null then
      raise not_null_violation using column = %2$L, table = %3$L, schema = tg_table_schema, message = %4$L;
    end if;$sql$,
      quoted, column_name, face,
      format('null value in column "%s" of relation "%s" violates not-null constraint', column_name, face)), '' order by attnum) as checks
    from col, model where attnotnull and not generated
  ), violated as (
    select string_agg(format(
      $sql$
      if not coalesce((%1$s), true) then
        raise check_violation using constraint = %2$L, table = %3$L, schema = tg_table_schema, message = %4$L;
      end if;$sql$,
      pg_get_expr(c.conbin, c.conrelid), c.conname, face,
      format('new row for relation "%s" violates check constraint "%s"', face, c.conname)), '' order by c.conname) as checks
    from model join pg_constraint as c on c.conrelid = model.shape and c.contype = 'c'
    where not 0 = any (c.conkey)  -- of the row as a whole: the leaf's own
      and (exists (select from col where attnum = any (c.conkey) and column_id is not null)
        or not exists (select from col where attnum = any (c.conkey) and generated))
  )
  select concat(missing.checks, case when violated.checks is not null then format(E'\n    declare\n      %s;\n    begin%s\n    end;',
    (select string_agg(declaration, E';\n      ' order by column_name = 'new', attnum) from col
      where exists (select from pg_constraint as c where c.conrelid = shape and c.contype = 'c' and attnum = any (c.conkey))),
    violated.checks) end)
  from missing, violated, model
$$;
comment on function ward_internal.face_checks(uuid) is
  'NOT NULL and CHECK as PL/pgSQL. They hold for the plaintext, before it is sealed, and their errors '
  'name the face: the leaf checks again, and its errors would name it';

create or replace function ward_internal.face_conflicts(p_model uuid, p_tenant ward_internal.tenants, p_is_update boolean)
returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce(string_agg(format(
    $sql$
      if %1$sexists (select from %2$s as l where l.tenant_id = %3$L and %4$s%5$s)
        and to_regclass(%9$L) is not null then
        raise unique_violation using constraint = %6$L, table = %7$L, schema = tg_table_schema, message = %8$L;
      end if;$sql$,
    case when p_is_update then format('record_image_ne(row(%s), row(%s)) and ', k.new_values, k.old_values) else '' end,
    ward_internal.leaf_name(p_model, p_tenant.schema_name), p_tenant.id, k.same,
    case when p_is_update then ' and l.ctid <> face.v_place' else '' end, c.relname, m.face,
    format('duplicate key value violates unique constraint "%s"', c.relname),
    format('%I.%I', p_tenant.schema_name, c.relname)), '' order by c.relname), '')
  from ward_internal.models as m
  join pg_index as i on i.indrelid = m.shape and i.indisunique and i.indimmediate and i.indpred is null and i.indexprs is null
  join pg_class as c on c.oid = i.indexrelid
  cross join lateral (
    select string_agg('new.' || n.quoted, ', ' order by place) as new_values,
      string_agg('old.' || n.quoted, ', ' order by place) as old_values,
      string_agg(format(case when i.indnullsnotdistinct then '(l.%1$s %2$s new.%1$s or l.%1$s is null and new.%1$s is null)'
        else 'l.%1$s %2$s new.%1$s' end, n.quoted, ward_internal.key_operator(i.indexrelid, place)), ' and ' order by place) as same
    from generate_series(0, i.indnkeyatts - 1) as place
    join pg_attribute as a on a.attrelid = m.shape and a.attnum = i.indkey[place]
    cross join lateral (select ward_internal.quoted_name(a.attname) as quoted) as n
  ) as k
  where m.id = p_model
$$;
comment on function ward_internal.face_conflicts(uuid, ward_internal.tenants, boolean) is
  'which unique key a row violates, as PL/pgSQL: the errors name the face';

create or replace function ward_internal.is_running(p_transaction xid) returns boolean
language sql volatile strict security invoker set search_path = pg_catalog, pg_temp as $$
  select coalesce(pg_xact_status((now.id - (now.id - p_transaction::text::bigint + 6442450944) % 4294967296 + 2147483648)::text::xid8)
    = 'in progress', false)
  from (select pg_current_xact_id()::text::bigint as id) as now
$$;
comment on function ward_internal.is_running(xid) is
  'whether the transaction, one of the last two thousand million, has not ended: of a row that is locked, it is the current one';

create or replace function ward_internal.face_trigger_body(p_model uuid, p_tenant ward_internal.tenants) returns text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  with col as (
    select c.*, q.quoted, 'new.' || q.quoted as new_value, 'old.' || q.quoted as old_value,
      format('face.v_sealed[%s]', count(c.column_id) over (order by c.place)) as sealed_value
    from ward_internal.model_columns(p_model) as c,
      lateral (select ward_internal.quoted_name(c.column_name) as quoted) as q
  ), pk as (
    select indexrelid::regclass from pg_index join ward_internal.models on indrelid = shape where id = p_model and indisprimary
  ), text_of as (
    select
      string_agg(quoted, ', ' order by place) filter (where not generated) as columns,
      string_agg(case when column_id is null then new_value else sealed_value end, ', ' order by place)
        filter (where not generated) as inserted,
      string_agg(ward_internal.seal_expression(new_value, type_id, column_id, 'face.v_row'), E',\n      ' order by place)
        filter (where column_id is not null) as sealing,
      string_agg(
        case when column_id is null then format('%s = %s', quoted, new_value)
        else format(E'%1$s = case when face.v_row = face.v_old_row and %2$s%5$s is not distinct from %3$s then l.%1$s\n        else %4$s end',
          quoted,
          ward_internal.canonical_expression(new_value, type_id),
          ward_internal.canonical_expression(old_value, type_id),
          ward_internal.seal_expression(new_value, type_id, column_id, 'face.v_row'),
          case type_id when 'bytea'::regtype then '' else ' collate "C"' end)  -- a declared one may say that A and a are equal
        end, E',\n      ' order by place) filter (where not generated) as updated,
      string_agg(format('l.%s %s %s', quoted, ward_internal.key_operator(pk.indexrelid, key_place), old_value), ' and ' order by key_place)
        filter (where key_place is not null) as old_key,
      string_agg('l.' || quoted, ', ' order by place) filter (where generated) as generated_columns,
      string_agg(new_value, ', ' order by place) filter (where generated) as generated_targets,
      bool_or(column_id is not null) as seals
    from col, pk
  )
  select format($body$
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
  v_sealed bytea[];
begin
  v_ignores := coalesce(ward_internal.begin_write(%1$L), ward.raise_refusal(true));
  if tg_op <> 'DELETE' then
    v_row := %2$s;%3$s
  end if;
  if tg_op = 'INSERT' then
    v_sealed := array[%12$s]::bytea[];  -- one assignment: PL/pgSQL keeps its expression ready and takes one snapshot
    if v_ignores then
      get diagnostics v_stack = pg_context;
      v_ignores := strpos(v_stack, chr(10)) = 0;  -- the client's own INSERT, not one of a function that it calls
    end if;
    if %15$s and (v_ignores or current_setting('transaction_isolation') = 'read committed') then  -- else it may be a 40001
      insert into %4$s as l (tenant_id, %5$s) values (%1$L,
        %6$s) on conflict do nothing%7$s;
      if found then
        return new;
      elsif v_ignores then
        return null;
      end if;%13$s
    end if;
    insert into %4$s as l (tenant_id, %5$s) values (%1$L,
      %6$s)%7$s;
    return new;
  end if;

  v_seen := old;
  -- the row the statement saw, by its key and every value; then it is locked, and stays where it is
  select l.ctid into v_place from %4$s as l where l.tenant_id = %1$L and %9$s and row(%8$s) *= face.v_seen limit 1 for update;
  if not found then
    select l.ctid, l.xmin into v_place, v_changed_by from %4$s as l where l.tenant_id = %1$L and %9$s limit 1 for update;
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
  if tg_op = 'UPDATE' then%14$s
    v_old_row := %10$s;
    update %4$s as l set
      %11$s
    where l.ctid = face.v_place%7$s;
    return new;
  end if;
  delete from %4$s as l where l.ctid = face.v_place;
  return old;
end
$body$,
    p_tenant.id,
    case when seals then ward_internal.row_expression(p_model, 'new') else 'null' end,
    ward_internal.face_checks(p_model),
    ward_internal.leaf_name(p_model, p_tenant.schema_name),
    columns, inserted,
    case when generated_columns is null then '' else format(' returning %s into %s', generated_columns, generated_targets) end,
    (select string_agg(expression, ', ' order by place) from ward_internal.face_expressions(p_model)),
    old_key,
    case when seals then ward_internal.row_expression(p_model, 'old') else 'null' end,
    updated, sealing,
    ward_internal.face_conflicts(p_model, p_tenant, false), ward_internal.face_conflicts(p_model, p_tenant, true),
    case when exists (select from pg_index where indrelid = m.shape and indisunique and not indimmediate) then 'false' else 'true' end)
  from text_of, ward_internal.models as m
  where m.id = p_model
$$;
comment on function ward_internal.face_trigger_body(uuid, ward_internal.tenants) is
  'body of the INSTEAD OF trigger of one face';

create or replace function ward_internal.build_face(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_face_name name := (select face from ward_internal.models where id = p_model);
  v_face text := format('%I.%I', p_tenant.schema_name, v_face_name);
  v_writer_name name := ward_internal.writer_name(v_face_name, p_tenant.schema_name);
  v_writer text := format('%I.%I', p_tenant.schema_name, v_writer_name);
  v_query text := ward_internal.face_query(p_model, p_tenant.schema_name);
  v_is_new boolean := to_regclass(v_face) is null;
  v_body text := ward_internal.face_trigger_body(p_model, p_tenant);
  v_role text := current_setting('role');
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
  -- made by its owner, whose default privileges are not PUBLIC's; replacing it leaves owner and privileges
  if not exists (select from pg_proc where proname = v_writer_name and proargtypes = ''::oidvector
    and pronamespace = p_tenant.schema_name::text::regnamespace)
  then
    perform set_config('role', 'ward_owner', true);
  end if;
  execute format('create or replace function %s() returns trigger language plpgsql security definer '
    'set search_path = pg_catalog, pg_temp as %L', v_writer, v_body);
  if current_setting('role') <> v_role then
    perform set_config('role', v_role, true);
  end if;
  execute format('grant select, insert, update, delete on %s to %I', v_face, p_tenant.login_role);
  if (select relowner <> 'ward_owner'::regrole from pg_class where oid = v_face::regclass) then
    execute format('alter view %s owner to ward_owner', v_face);
  end if;
  if not exists (select from pg_trigger where tgrelid = v_face::regclass and tgname = v_face_name || '_write') then
    execute format('create trigger %I instead of insert or update or delete on %s for each row execute function %s()',
      v_face_name || '_write', v_face, v_writer);
  end if;
  perform ward_internal.build_audit_trigger(p_model, p_tenant);
end
$$;
comment on function ward_internal.build_face(uuid, ward_internal.tenants) is
  'makes or remakes the view and its trigger in one ward, and sees to the audit triggers of the leaf; the trigger''s function is a definer: a tenant may not touch the leaf';
