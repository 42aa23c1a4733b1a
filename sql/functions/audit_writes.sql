-- Every change of a row of a leaf is an entry: through a face, by a foreign key, or by a superuser's own statement. The
-- triggers are ALWAYS: session_replication_role does not get round them. Images are as stored: sealed values are ciphertext.
--
-- Resealing is no change of the data; that it is resealing only wardkey_pg's own code can say (ward_internal.audit_context).

create or replace function ward_internal.audit_context(p_tenant text) returns bytea
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "audit_context")
return SD["call"](*args)
$$;
comment on function ward_internal.audit_context(text) is
  'the id of the context of this tenant, which entries refer to; null without one; empty while rows are resealed. Sees to it '
  'that the tenant''s log has a partition for this month';

create or replace function ward_internal.make_audit_id() returns bigint
language plpython3u volatile parallel unsafe security invoker as $$
try:
    return SD["call"]()
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "make_audit_id")
return SD["call"]()
$$;
comment on function ward_internal.make_audit_id() is 'an entry''s id, out of those that this backend has leased';

create or replace function ward_internal.audit_writer(p_tenant ward_internal.tenants) returns text
language sql stable security invoker set search_path = pg_catalog, pg_temp
return format('%I.%I', p_tenant.schema_name, 'log_change' || substr(p_tenant.schema_name, length('tenant_')));
comment on function ward_internal.audit_writer(ward_internal.tenants) is
  'the ward''s function that writes entries: log_change_acme. Its own in each ward, as with ward_internal.writer_name';

create or replace function ward_internal.build_audit_writer(p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_writer text := ward_internal.audit_writer(p_tenant);
begin
  execute format($sql$create or replace function %1$s() returns trigger
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %2$L $sql$, v_writer, format($body$
declare
  v_context bytea := ward_internal.audit_context(%1$L);
  v_old jsonb;
  v_new jsonb;
  v_row text;
  v_columns text;
  v_id bigint;
  v_model uuid := tg_argv[0];
  -- PL/pgSQL keeps expressions ready from call to call, those inside a statement it does not
  v_transaction xid8 := pg_current_xact_id();
  v_statement bigint := (date_part('epoch', statement_timestamp()) * 1000000)::bigint - 946684800000000;
  v_operation text := lower(tg_op);
  v_role text;
  v_address text;
  v_application text;
begin
  if v_context = '' then  -- resealing
    return null;
  end if;
  if tg_op = 'INSERT' then
    v_new := to_jsonb(new);
  elsif tg_op <> 'TRUNCATE' then
    v_old := to_jsonb(old);
  end if;
  if tg_nargs = 2 then
    v_row := coalesce(v_old, v_new) ->> tg_argv[1];
  elsif tg_op <> 'TRUNCATE' then
    -- blanks at the end of a char(n) are not part of the key
    select case count(*) when 1 then jsonb_agg(part) ->> 0 else jsonb_agg(part order by place)::text end into v_row
      from generate_series(1, tg_nargs - 1, 2) as place, lateral (select case tg_argv[place]
        when 'bpchar' then to_jsonb(rtrim(coalesce(v_old, v_new) ->> tg_argv[place + 1], ' '))
        else coalesce(v_old, v_new) -> tg_argv[place + 1] end as part) as p;
  end if;
  if tg_op = 'UPDATE' then
    select string_agg(quote_ident(key), ','), jsonb_object_agg(key, v_old -> key), jsonb_object_agg(key, value)
      into v_columns, v_old, v_new
      from jsonb_each(to_jsonb(new)) where value::text is distinct from (v_old -> key)::text;
  end if;
  if v_context is null then
    v_role := session_user;
    v_address := host(inet_client_addr());
    v_application := current_setting('application_name');
  end if;
  v_id := ward_internal.make_audit_id();
  insert into %2$s (tenant_id, id, transaction, statement, model_id, kind, context, operation, row_id, columns, old, new,
      database_role, address, application)
    values (%1$L, v_id, v_transaction, v_statement, v_model, 'w', v_context, v_operation, v_row, v_columns, v_old, v_new,
      v_role, v_address, v_application);
  return null;
end
$body$, p_tenant.id, format('%I.audit_log', p_tenant.schema_name)));
  execute format('alter function %s() owner to ward_owner', v_writer);
  execute format('revoke all on function %s() from public', v_writer);
end
$$;
comment on function ward_internal.build_audit_writer(ward_internal.tenants) is
  'makes the trigger function of the ward that writes an entry per row; a definer: whoever may change a row of the leaf, by '
  'whatever mistake, may not write the log';

create or replace function ward_internal.build_audit_trigger(p_model uuid, p_tenant ward_internal.tenants) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_leaf text := ward_internal.leaf_name(p_model, p_tenant.schema_name);
  v_key text[] := (
    select array_agg(column_name order by key_place) from ward_internal.model_columns(p_model) where key_place is not null);
  v_arguments text[] := case
    when cardinality(v_key) > 1 or exists (
      select from ward_internal.model_columns(p_model) where key_place is not null and type_id = 'bpchar'::regtype)
    then (
      select array[p_model::text] || array_agg(part order by key_place, half)
      from ward_internal.model_columns(p_model),
        unnest(array[format_type(type_id, -1), column_name])  -- bpchar, not character
        with ordinality as p (part, half)
      where key_place is not null)
    else array[p_model::text] || v_key
  end;
  v_event record;
begin
  for v_event in
    select * from (values
      ('ward_audit', 'insert or update or delete', 'row'),
      ('ward_audit_truncate', 'truncate', 'statement')) as e (trigger_name, events, level)
    where not exists (select from pg_trigger where tgrelid = v_leaf::regclass and tgname = trigger_name
      and tgenabled = 'A' and tgfoid = to_regprocedure(ward_internal.audit_writer(p_tenant) || '()')
      and encode(tgargs, 'escape') = array_to_string(v_arguments, '\000') || '\000')
  loop
    execute format('create or replace trigger %I after %s on %s for each %s execute function %s(%s)', v_event.trigger_name,
      v_event.events, v_leaf, v_event.level, ward_internal.audit_writer(p_tenant),
      (select string_agg(quote_literal(a), ', ') from unnest(v_arguments) as a));
    execute format('alter table %s enable always trigger %I', v_leaf, v_event.trigger_name);
  end loop;
end
$$;
comment on function ward_internal.build_audit_trigger(uuid, ward_internal.tenants) is
  'puts the triggers on a leaf, or puts them right: a restore of data alone leaves them enabled, but not ALWAYS';
