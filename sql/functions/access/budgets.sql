-- Budgets: how many rows of a table somebody opens in a window, by role. The keeper counts, by its own copy of the
-- budgets: wardkey access budget changes both, and what is here is for people. Honey rows: rows that nobody has a
-- reason to open; opening one is an alarm and may end the logins of who did. Both hold from the next transaction on.
--
-- Lock order: tenants, models, then budgets and honey_rows.

create or replace function ward_internal.begin_tenant_change(p_slug text) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid;
begin
  perform ward_internal.require_superuser();
  v_tenant := (ward_internal.tenant_of(p_slug)).id;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant;
  return v_tenant;
end
$$;
comment on function ward_internal.begin_tenant_change(text) is
  'locks a tenant''s row and returns its id: backends read what holds for it again, once the change is committed. For '
  'superusers. Errors: WK203';

create or replace function ward.set_budget(
  p_slug text, p_role text, p_table regclass, p_rows integer, p_distinct boolean default false,
  p_window interval default '1 day'
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.begin_tenant_change(p_slug);
  v_model uuid := ward_internal.model_of(p_table);
begin
  if (p_role in ('SUPER_ADMIN', 'ADMIN', 'EVALUATOR', 'ANALYST', 'VIEWER')) is not true then
    perform ward_internal.fail('invalid_budget', 'a budget is for a role of tokens',
      'roles are SUPER_ADMIN, ADMIN, EVALUATOR, ANALYST and VIEWER');
  elsif not exists (select from ward_internal.sealed_columns where model_id = v_model) then
    perform ward_internal.fail('invalid_budget', format('%s has no sealed column', p_table),
      'rows are counted when a sealed value of them is opened');
  end if;
  begin
    insert into ward_internal.budgets (tenant_id, role, model_id, row_limit, is_distinct, seconds)
      values (v_tenant, p_role, v_model, p_rows, coalesce(p_distinct, false), date_part('epoch', p_window))
      on conflict (tenant_id, role, model_id) do update set row_limit = excluded.row_limit,
        is_distinct = excluded.is_distinct, seconds = excluded.seconds, decided_by = excluded.decided_by,
        decided_at = excluded.decided_at;
  exception when check_violation or not_null_violation or numeric_value_out_of_range then
    perform ward_internal.fail('invalid_budget', 'a budget has 1 to 1,000,000,000 rows, or 100,000 distinct ones, '
      'and a window of a minute to 366 days', 'give p_rows and p_window within these bounds');
  end;
  perform ward_internal.log_event(v_tenant, 'budget set', jsonb_build_object('table', p_table::text, 'role', p_role,
    'rows', p_rows, 'distinct', coalesce(p_distinct, false), 'window', p_window));
end
$$;
comment on function ward.set_budget(text, text, regclass, integer, boolean, interval) is
  'says how many rows, or distinct rows, of a table each subject with this role may open in a window, in a tenant. A '
  'row counts when a sealed value of it is opened, once a statement, also under ROLLBACK. The keeper '
  'goes by its own copy: wardkey access budget set changes both. Errors: WK203, WK204, WK254 no such role, number or '
  'window, or nothing is sealed; when it is used up WK253, and WK102 where the keeper is away';

create or replace function ward.drop_budget(p_slug text, p_role text, p_table regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.begin_tenant_change(p_slug);
begin
  delete from ward_internal.budgets
    where tenant_id = v_tenant and role = p_role and model_id = ward_internal.model_of(p_table);
  if not found then
    perform ward_internal.fail('unknown_object', 'no such budget', 'list them: select * from ward.budgets');
  end if;
  perform ward_internal.log_event(v_tenant, 'budget dropped', jsonb_build_object('table', p_table::text,
    'role', p_role));
end
$$;
comment on function ward.drop_budget(text, text, regclass) is
  'takes a budget away in the database; the keeper goes by its own copy: wardkey access budget drop changes both. '
  'Errors: WK203, WK204';

create or replace view ward.budgets as
  select t.slug, b.role, m.relation, b.row_limit as rows, b.is_distinct, make_interval(secs => b.seconds) as "window",
    b.decided_by, b.decided_at, b.tenant_id, b.model_id, b.seconds
  from ward_internal.budgets as b
  join ward_internal.tenants as t on t.id = b.tenant_id
  join ward_internal.models as m on m.id = b.model_id;
comment on view ward.budgets is
  'how many rows of a table each subject with a role may open in a window, as the database has it; the keeper''s copy '
  'counts: wardkey access budget list shows both';

create or replace function ward_internal.look_up_row(p_tenant uuid, p_table regclass, p_key text[]) returns bytea
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid := ward_internal.model_of(p_table);
  v_key text := (select format('array[%s]', string_agg(format('l.%I::text', column_name), ', ' order by key_place))
    from ward_internal.model_columns(v_model) where key_place is not null);
  v_row bytea;
begin
  execute format('select %s from %s as l where %s = $1', ward_internal.row_expression(v_model, 'l'),
    ward_internal.leaf_name(v_model, (select schema_name from ward_internal.tenants where id = p_tenant)), v_key)
    into v_row using p_key;
  if v_row is null then
    perform ward_internal.fail('invalid_honey_row', format('the tenant has no such row of %s', p_table),
      'give each column of the primary key, as text, in its order');
  end if;
  return v_row;
end
$$;
comment on function ward_internal.look_up_row(uuid, regclass, text[]) is
  'the id of a tenant''s row by its primary key. Errors: WK204, WK256';

create or replace function ward.add_honey(
  p_slug text, p_table regclass, p_key text[], p_ends_logins boolean default true
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.begin_tenant_change(p_slug);
  v_model uuid := ward_internal.model_of(p_table);
begin
  if not exists (select from ward_internal.sealed_columns where model_id = v_model) then
    perform ward_internal.fail('invalid_honey_row', format('%s has no sealed column', p_table),
      'opening a sealed value of a honey row is the alarm');
  end if;
  insert into ward_internal.honey_rows (tenant_id, model_id, row_id, row_key, ends_logins)
    values (v_tenant, v_model, ward_internal.look_up_row(v_tenant, p_table, p_key), p_key,
      coalesce(p_ends_logins, true))
    on conflict (tenant_id, model_id, row_id) do update set ends_logins = excluded.ends_logins;
  perform ward_internal.log_event(ward_internal.master_id(), 'honey added', jsonb_build_object('tenant', v_tenant,
    'table', p_table::text, 'ends_logins', p_ends_logins));
end
$$;
comment on function ward.add_honey(text, regclass, text[], boolean) is
  'makes a row that is there a honey row: opening a sealed value of it is an alarm in the platform''s log '
  '(honey_row_opened), and by p_ends_logins ends the logins of its subject, from the next transaction on, until '
  'wardkey access honey lift. Nothing that a tenant sees tells such a row from others. It stays one when its primary '
  'key changes, and is gone when it is deleted. Errors: WK203, WK204, WK256 no such row, or nothing is sealed';

create or replace function ward_internal.follow_honey(
  p_tenant uuid, p_model uuid, p_from bytea, p_to bytea, p_key text[]
) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_ends_logins boolean;
begin
  delete from ward_internal.honey_rows where tenant_id = p_tenant and model_id = p_model and row_id = p_from
    returning ends_logins into v_ends_logins;
  if found then
    insert into ward_internal.honey_rows (tenant_id, model_id, row_id, row_key, ends_logins)
      values (p_tenant, p_model, p_to, p_key, v_ends_logins)
      on conflict (tenant_id, model_id, row_id) do update  -- the row that had this key was deleted
        set ends_logins = honey_rows.ends_logins or excluded.ends_logins;
    perform ward_internal.log_event(ward_internal.master_id(), 'honey moved', jsonb_build_object('tenant', p_tenant));
  end if;
end
$$;
comment on function ward_internal.follow_honey(uuid, uuid, bytea, bytea, text[]) is
  'keeps a honey row one when its primary key changes: faces call it. To refuse that would tell the row from others. '
  'The change has opened the row, which is an alarm; backends that have keys already learn the new key of the row '
  'within key_ttl: the tenant''s row is not locked for it';

create or replace function ward.drop_honey(p_slug text, p_table regclass, p_key text[]) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.begin_tenant_change(p_slug);
begin
  delete from ward_internal.honey_rows
    where tenant_id = v_tenant and model_id = ward_internal.model_of(p_table) and row_key = p_key;
  if not found then
    perform ward_internal.fail('unknown_object', 'no such honey row', 'list them: select * from ward.honey_rows');
  end if;
  perform ward_internal.log_event(ward_internal.master_id(), 'honey dropped', jsonb_build_object('tenant', v_tenant,
    'table', p_table::text));
end
$$;
comment on function ward.drop_honey(text, regclass, text[]) is
  'makes a honey row a row like others again; the row itself stays. Errors: WK203, WK204';

create or replace view ward.honey_rows as
  select t.slug, m.relation, h.row_key, h.ends_logins, h.made_by, h.made_at, h.tenant_id, h.model_id
  from ward_internal.honey_rows as h
  join ward_internal.tenants as t on t.id = h.tenant_id
  join ward_internal.models as m on m.id = h.model_id;
comment on view ward.honey_rows is 'honey rows, for operators';
