-- Who sees what. The platform's policy stands here and with the keeper, which gives no key beyond its own: wardkey
-- access policy changes both. A tenant's ADMIN narrows it for the tenant. What changes holds from the next transaction
-- on, as backends compare key_epoch.
--
-- Lock order: tenants, then policy.

create or replace function ward_internal.check_policy_cell(p_role text, p_class text, p_access text, p_writes boolean)
returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if not exists (select from ward_internal.known_classes where name = p_class) then
    perform ward_internal.fail('unknown_object', 'no such class', 'list them: select * from ward.classes');
  elsif not exists (select from ward_internal.platform_policy where role = p_role) then
    perform ward_internal.fail('unknown_object', 'no such role', 'roles are ADMIN, EVALUATOR, ANALYST and VIEWER; '
      'SUPER_ADMIN works for the platform and sees no tenant''s sealed columns');
  elsif (p_access in ('none', 'mask', 'clear')) is not true then
    perform ward_internal.fail('unknown_object', 'no such access', 'access is clear, mask or none');
  elsif p_writes and p_access = 'none' then
    perform ward_internal.fail('invalid_policy', 'who writes a class has to see at least its mask',
      'an update shows the old row: give access mask or clear, or do not let the role write');
  end if;
end
$$;
comment on function ward_internal.check_policy_cell(text, text, text, boolean) is
  'Errors: WK204 unknown class, role or access, WK234 writes what it does not see';

create or replace function ward.set_policy(p_role text, p_class text, p_access text, p_writes boolean default null)
returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_old record;
  v_writes boolean;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.policy in share row exclusive mode;
  select * into v_old from ward_internal.platform_policy where role = p_role and class = p_class;
  v_writes := coalesce(p_writes, v_old.writes and p_access <> 'none', false);
  perform ward_internal.check_policy_cell(p_role, p_class, p_access, v_writes);
  insert into ward_internal.policy (role, class, access, writes) values (p_role, p_class, p_access, v_writes)
    on conflict (role, class) do update set access = excluded.access, writes = excluded.writes,
      decided_by = excluded.decided_by, decided_at = excluded.decided_at;
  if not exists (select from ward_internal.platform_policy where class = p_class and access = 'clear') then
    perform ward_internal.fail('invalid_policy', 'no role would see this class in the clear any more',
      'give it to another role first');
  end if;
  update ward_internal.tenants set key_epoch = key_epoch + 1;
  perform ward_internal.log_event(ward_internal.master_id(), 'policy set', jsonb_build_object('role', p_role,
    'class', p_class, 'access', p_access, 'writes', v_writes, 'from', v_old.access));
end
$$;
comment on function ward.set_policy(text, text, text, boolean) is
  'the platform''s policy in the database: what a role sees (clear, mask, none) and whether it writes; null: as before'
  '. The keeper has a policy of its own and gives no key beyond it: wardkey access policy set changes both. '
  'Errors: WK204, WK234 nobody would see the class in the clear, or the role would write what it does not see';

-- definer because the policy is no tenant's to write
create or replace function ward.narrow_policy(p_role text, p_class text, p_access text, p_writes boolean default null)
returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.admin_of_context('narrow the policy');
  v_now record;
  v_writes boolean;
begin
  perform from ward_internal.tenants where id = v_tenant for no key update;
  select * into v_now from ward_internal.tenant_access where tenant_id = v_tenant and role = p_role and class = p_class;
  v_writes := coalesce(p_writes, v_now.writes and p_access <> 'none', false);
  perform ward_internal.check_policy_cell(p_role, p_class, p_access, v_writes);
  if v_writes and not v_now.platform_writes
    or array_position('{none,mask,clear}', p_access) > array_position('{none,mask,clear}', v_now.platform_access)
  then
    perform ward_internal.fail('policy_widened', format('the platform gives %s at most %s%s of this class', p_role,
      v_now.platform_access, case when v_now.platform_writes then '' else ' and no writing' end),
      'ask the operator of the platform');
  end if;
  insert into ward_internal.tenant_policy (tenant_id, role, class, access, writes, decided_by)
    values (v_tenant, p_role, p_class, p_access, v_writes, ward.subject())
    on conflict (tenant_id, role, class) do update set access = excluded.access, writes = excluded.writes,
      decided_by = excluded.decided_by, decided_at = excluded.decided_at;
  if not exists (
    select from ward_internal.tenant_access where tenant_id = v_tenant and class = p_class and access = 'clear')
  then
    perform ward_internal.fail('invalid_policy', 'no role would see this class in the clear any more',
      'leave it to one role at least');
  end if;
  update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant;
  perform ward_internal.log_event(v_tenant, 'policy narrowed', jsonb_build_object('role', p_role, 'class', p_class,
    'access', p_access, 'writes', v_writes, 'from', v_now.access, 'by', ward.subject()));
end
$$;
revoke execute on function ward.narrow_policy(text, text, text, bool) from public;
comment on function ward.narrow_policy(text, text, text, boolean) is
  'for a tenant''s ADMIN: lets a role see no more of a class than p_access, in this tenant, and write it or not; null: '
  'as before. Holds from the next transaction on. Errors: WK001, WK204, WK212 another role, WK234 nobody would see the '
  'class in the clear, WK235 the platform''s policy gives less';

-- definer because the policy is no tenant's to write
create or replace function ward.restore_policy(p_role text default null, p_class text default null) returns integer
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_tenant uuid := ward_internal.admin_of_context('restore the policy');
  v_count integer;
begin
  perform from ward_internal.tenants where id = v_tenant for no key update;
  delete from ward_internal.tenant_policy
    where tenant_id = v_tenant and role = coalesce(p_role, role) and class = coalesce(p_class, class);
  get diagnostics v_count = row_count;
  if v_count > 0 then
    update ward_internal.tenants set key_epoch = key_epoch + 1 where id = v_tenant;
    perform ward_internal.log_event(v_tenant, 'policy restored', jsonb_build_object('role', p_role, 'class', p_class,
      'cells', v_count, 'by', ward.subject()));
  end if;
  return v_count;
end
$$;
revoke execute on function ward.restore_policy(text, text) from public;
comment on function ward.restore_policy(text, text) is
  'for a tenant''s ADMIN: takes back what ward.narrow_policy did, for a role, a class, or all; returns how many cells. '
  'Errors: WK001, WK212';

create or replace view ward.policy as
  select role, class, access, writes, platform_access, platform_writes, decided_by, decided_at
  from ward_internal.tenant_access where tenant_id = (select ward.tenant_id())
  union all
  select role, class, access, writes, access, writes, decided_by, decided_at
  from ward_internal.platform_policy where (select ward.tenant_id()) is null;
comment on view ward.policy is
  'what each role sees and writes of each class: in the tenant of the context; without one, by the platform''s policy';

create or replace function ward_internal.forget_keys() returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  update ward_internal.tenants set key_epoch = key_epoch + 1
$$;
comment on function ward_internal.forget_keys() is 'has every backend read columns, classes and policy again';

create or replace function ward_internal.check_mask(p_mask text) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
begin
  if ward_internal.mask_fits(p_mask, 'text'::regtype) is null then
    perform ward_internal.fail('unknown_object', 'no such mask',
      'masks are redact, null, last4, year, zip3, age90 and initial');
  end if;
end
$$;

create or replace function ward.add_class(p_name text, p_description text, p_mask text default 'redact') returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_reason(p_description);
  perform ward_internal.check_mask(p_mask);
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.classes in share row exclusive mode;
  if exists (select from ward_internal.known_classes where name = p_name) then
    perform ward_internal.fail('unsupported', 'there is a class of that name', 'list them: select * from ward.classes');
  end if;
  begin
    insert into ward_internal.classes (name, number, description, mask)
      select p_name, max(number) + 1, p_description, p_mask from ward_internal.known_classes;
  exception when check_violation or not_null_violation then
    perform ward_internal.fail('unsupported', 'that is no name of a class, or there are 255 already',
      'a name has 1 to 48 characters: a letter, then letters, digits and _, all lower-case ASCII');
  end;
  perform ward_internal.forget_keys();
  perform ward_internal.log_event(ward_internal.master_id(), 'class added', jsonb_build_object('class', p_name,
    'description', p_description, 'mask', p_mask));
end
$$;
comment on function ward.add_class(text, text, text) is
  'adds a class of columns. No role sees it before the policy says so: wardkey access policy set. It stays for good, '
  'as keys derive from its name. Errors: WK204 unknown mask, WK209 name taken or no name, WK212 no description';

create or replace function ward.set_class_mask(p_class text, p_mask text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  perform ward_internal.check_mask(p_mask);
  insert into ward_internal.classes (name, number, description, mask)
    select name, number, description, p_mask from ward_internal.known_classes where name = p_class
    on conflict (name) do update set mask = excluded.mask;
  if not found then
    perform ward_internal.fail('unknown_object', 'no such class', 'list them: select * from ward.classes');
  end if;
  perform ward_internal.forget_keys();
  perform ward_internal.log_event(ward_internal.master_id(), 'mask set',
    jsonb_build_object('class', p_class, 'mask', p_mask));
end
$$;
comment on function ward.set_class_mask(text, text) is
  'sets the mask of a class: of its columns that have none of their own and whose type it fits; the others are null. '
  'Errors: WK204';

create or replace function ward_internal.sealed_column(p_table regclass, p_column name)
returns ward_internal.sealed_columns
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns;
begin
  select * into v_column from ward_internal.sealed_columns
    where model_id = ward_internal.model_of(p_table) and name = p_column for update;
  if not found then
    perform ward_internal.fail('unknown_object', format('%s has no sealed column %I', p_table, p_column),
      'list them: select * from ward.models');
  end if;
  return v_column;
end
$$;

create or replace function ward.set_mask(p_table regclass, p_column name, p_mask text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns;
  v_type regtype;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  v_column := ward_internal.sealed_column(p_table, p_column);
  if p_mask is not null then
    perform ward_internal.check_mask(p_mask);
    v_type := (select a.atttypid from pg_attribute as a join ward_internal.models as m on m.shape = a.attrelid
      where m.id = v_column.model_id and a.attname = p_column);
    if not ward_internal.mask_fits(p_mask, v_type) then
      perform ward_internal.fail('mask_does_not_fit', format('mask %s of type %s would be no %2$s', p_mask, v_type),
        'redact: text, JSON, bytea · last4, zip3, initial: text · year: dates and timestamps · age90: numbers · '
        'null: all');
    end if;
  end if;
  update ward_internal.sealed_columns set mask = p_mask where id = v_column.id;
  perform ward_internal.forget_keys();
  perform ward_internal.log_event(ward_internal.master_id(), 'mask set', jsonb_build_object('table', p_table::text,
    'column', p_column, 'mask', p_mask));
end
$$;
comment on function ward.set_mask(regclass, name, text) is
  'how a sealed column is shown to roles that see its class masked: redact, null, last4, year, zip3, age90 or initial; '
  'null: as its class says. Holds from the next transaction on. Errors: WK204, WK233 the mask does not fit the type';

create or replace function ward.classify(p_table regclass, p_column name, p_class text) returns integer
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_column ward_internal.sealed_columns;
  v_count integer;
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  if not exists (select from ward_internal.known_classes where name = p_class) then
    perform ward_internal.fail('unknown_object', 'no such class', 'list them: select * from ward.classes');
  end if;
  v_column := ward_internal.sealed_column(p_table, p_column);
  if v_column.class = p_class then
    return 0;
  end if;
  if exists (select from ward_internal.searches where column_id = v_column.id and kind like 'unique%') then
    perform ward_internal.fail('unsupported', format('column %I is part of a unique index', p_column),
      'tokens of two classes cannot be compared: select ward.drop_unique(…), classify and reseal, then '
        'select ward.add_unique(…)');
  end if;
  update ward_internal.sealed_columns set class = p_class where id = v_column.id;
  update ward_internal.searches set former_classes = former_classes || v_column.class where column_id = v_column.id;
  perform ward_internal.forget_keys();
  insert into ward_internal.rotations (tenant_id, version, reason)
    select k.tenant_id, k.version, format('column %I is of class %s', p_column, p_class)
    from ward_internal.tenants as t join ward_internal.tenant_keys as k on k.tenant_id = t.id and k.state = 'active'
    where t.status not in ('shredding', 'shredded')
      and not exists (select from ward_internal.rotations where tenant_id = t.id and finished_at is null);
  get diagnostics v_count = row_count;
  perform ward_internal.log_event(ward_internal.master_id(), 'classified', jsonb_build_object('table', p_table::text,
    'column', p_column, 'class', p_class, 'from', v_column.class));
  return v_count;
end
$$;
comment on function ward.classify(regclass, name, text) is
  'gives a sealed column another class. New values are sealed under its key from the next transaction on; the values '
  'there are need the rights of both classes until they are resealed: wardkey keys reseal, tenant by tenant. Returns '
  'how many tenants that is due in. Errors: WK204';
