-- Classes of sealed columns: what roles may see is decided class by class, and each class has a key of its own (see
-- plpython/wardkey_core/envelope.py). Masks are in plpython/wardkey_pg/masks.py.

create or replace view ward_internal.known_classes as
  select coalesce(c.number, b.number) as number, name, coalesce(c.description, b.description) as description,
    coalesce(c.mask, b.mask) as mask
  from (values
    (1::smallint, 'identifier', 'names, SSN, MRN, contact', 'redact'),
    (2::smallint, 'quasi', 'dates, ZIP codes, ages', 'year'),
    (3::smallint, 'clinical', 'findings, diagnoses, medication', 'null'),
    (4::smallint, 'note', 'free text', 'redact'),
    (5::smallint, 'financial', 'accounts, payments', 'null')
  ) as b (number, name, description, mask)
  full join ward_internal.classes as c using (name);
comment on view ward_internal.known_classes is
  'all classes: those that wardkey brings, and those of ward_internal.classes';

create or replace function ward_internal.mask_fits(p_mask text, p_type oid) returns boolean
language sql immutable strict parallel safe security invoker set search_path = pg_catalog, pg_temp
return case
  when p_mask = 'null' then true
  when p_mask = 'redact' then
    p_type = any ('{text, varchar, bpchar, json, jsonb, bytea, text[]}'::regtype[]::oid[])
  when p_mask in ('last4', 'zip3', 'initial') then p_type = any ('{text, varchar, bpchar}'::regtype[]::oid[])
  when p_mask = 'year' then p_type = any ('{date, timestamp, timestamptz}'::regtype[]::oid[])
  when p_mask = 'age90' then
    p_type = any ('{smallint, integer, bigint, numeric, real, double precision}'::regtype[]::oid[])
end;
comment on function ward_internal.mask_fits(text, oid) is
  'whether the mask of a value of the type is a value of the type; null: there is no such mask';

create or replace view ward_internal.column_classes as
  select s.id, s.model_id, s.name, c.number, c.name as class, format_type(t.id, null) as kind,
    case when s.mask is not null then s.mask when ward_internal.mask_fits(c.mask, t.id) then c.mask
      else 'null' end as mask
  from ward_internal.sealed_columns as s
  join ward_internal.models as m on m.id = s.model_id
  join ward_internal.known_classes as c on c.name = s.class
  -- by its index: a join would read all of pg_attribute, at each backend's first login
  cross join lateral (select (
    select atttypid from pg_catalog.pg_attribute where attrelid = m.shape and attname = s.name) as id offset 0) as t;
comment on view ward_internal.column_classes is
  'sealed columns with their class and the mask that holds for their type';

create or replace view ward_internal.platform_policy as
  select r.role, c.name as class, coalesce(p.access, d.access, 'none') as access,
    coalesce(p.writes, d.writes, false) as writes, p.decided_by, p.decided_at
  from (values ('ADMIN'), ('EVALUATOR'), ('ANALYST'), ('VIEWER')) as r (role)
  cross join ward_internal.known_classes as c
  left join (values
    ('ADMIN', null, 'clear', true), ('EVALUATOR', null, 'clear', true),
    ('ANALYST', 'quasi', 'mask', false), ('ANALYST', 'clinical', 'clear', false),
    ('VIEWER', 'identifier', 'clear', false), ('VIEWER', 'quasi', 'clear', false),
    ('VIEWER', 'clinical', 'clear', false)
  ) as d (role, class, access, writes) on d.role = r.role and c.number <= 5 and coalesce(d.class, c.name) = c.name
  left join ward_internal.policy as p on p.role = r.role and p.class = c.name;
comment on view ward_internal.platform_policy is
  'what each role sees of each class by the platform''s policy: that of a class which a DBA added is to be set. '
  'SUPER_ADMIN, which works for the platform, sees none. wardkey_core/policy.py has the same default for the keeper';

create or replace view ward_internal.tenant_access as
  select t.id as tenant_id, p.role, p.class,
    case when n.access is null then p.access when 'none' in (p.access, n.access) then 'none'
      when 'mask' in (p.access, n.access) then 'mask' else 'clear' end as access,
    p.writes and coalesce(n.writes, true) and p.access <> 'none' and coalesce(n.access, '') <> 'none' as writes,
    p.access as platform_access, p.writes as platform_writes,
    coalesce(n.decided_by, p.decided_by) as decided_by, coalesce(n.decided_at, p.decided_at) as decided_at
  from ward_internal.tenants as t
  cross join ward_internal.platform_policy as p
  left join ward_internal.tenant_policy as n on n.tenant_id = t.id and n.role = p.role and n.class = p.class;
comment on view ward_internal.tenant_access is
  'what each role sees of each class in each tenant: the stricter of the two policies. For people: backends decide the '
  'same from the tables, plpython/wardkey_pg/registry.py';

create or replace view ward.classes as
  select c.number, c.name, c.description, c.mask, (
    select coalesce(array_agg(format('%s.%I', m.face, s.name) order by m.face, s.name), '{}')
    from ward_internal.sealed_columns as s join ward_internal.models as m on m.id = s.model_id
    where s.class = c.name) as columns
  from ward_internal.known_classes as c;
comment on view ward.classes is
  'classes of sealed columns, which columns are of each, and the mask of those that have no other: ward.set_mask';
