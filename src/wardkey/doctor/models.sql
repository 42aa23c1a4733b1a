-- Every tenant has a leaf and a face of every model table, as wardkey makes them.

-- models-there (fail): every registered model has its table and its shape
select format('model %I', m.face), 'its table or shape is gone',
  format('delete from ward_internal.models where id = %L;', m.id)
from ward_internal.models as m
where not exists (select from pg_class where oid = m.relation) or not exists (select from pg_class where oid = m.shape)
order by 1;

-- shapes-follow (fail): table and shape of a model have the same columns, the sealed ones stored as bytea
select model, format('column %I differs from its shape', coalesce(s.attname, d.attname)),
  format('select ward_internal.follow_model(%L, false);', coalesce(s.id, d.id))
from (
  select m.id, a.attname, a.atttypid, c.id is not null as sealed
  from ward_internal.models as m
  join pg_attribute as a on a.attrelid = m.relation and a.attnum > 0 and not a.attisdropped and a.attname <> 'tenant_id'
    and not ward_internal.is_token_column(a.attname)
  left join ward_internal.sealed_columns as c on c.model_id = m.id and c.name = a.attname
) as s
full join (
  select m.id, a.attname, a.atttypid
  from ward_internal.models as m
  join pg_attribute as a on a.attrelid = m.shape and a.attnum > 0 and not a.attisdropped
) as d on d.id = s.id and d.attname = s.attname
cross join lateral (select relation::text from ward_internal.models where id in (s.id, d.id)) as m (model)
where s.id is null or d.id is null
  or s.atttypid <> case when s.sealed then 'bytea'::regtype else d.atttypid end
order by 1, 2;

-- models-sound (fail): nothing on a model table or leaf sees ciphertext where it means plaintext, and the key of a face holds
select f.object, f.detail, f.fix
from ward_internal.models as m, ward_internal.model_faults(m.id) as f
where f.kind in ('key', 'constraint', 'default', 'index', 'labels') and f.object in (m.relation::text, m.shape::text)
  and exists (select from pg_class where oid = m.relation)
  and exists (select from pg_class where oid = m.shape)
order by 1, 2;

-- leaves-there (fail): every tenant has a leaf of every model table
select w.slug, format('has no leaf of %s', w.relation), format('select ward.repair_tenant(%L);', w.slug)
from ward as w
where not exists (select from leaf where leaf.model_id = w.model_id and leaf.tenant_id = w.tenant_id)
order by 1, 2;

-- finds-there (fail): every ward has the find function of each model table that is searched
select t.slug, format('has no %s as wardkey makes it', ward_internal.find_name(m.face)),
  format('select ward.repair_tenant(%L);', t.slug)
from tenant as t
cross join ward_internal.models as m
where exists (select from ward_internal.searches where model_id = m.id and kind not like 'unique%')
  and to_regclass(ward_internal.leaf_name(m.id, t.schema_name)) is not null
  and 2 <> (
    select count(*) from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
    where n.nspname = t.schema_name and ward_internal.is_find(p.oid)
      and p.proname in (ward_internal.find_name(m.face), ward_internal.finder_name(m.face, t.schema_name))
      and has_function_privilege(t.login_role, p.oid, 'execute'))
order by 1, 2;

-- searches-built (info): all rows have the tokens of all searches
select t.slug, format('rows of %s have no tokens of %s yet: that search is refused', m.face, c.name),
  format('wardkey keys reseal %s', t.slug)
from ward_internal.pending_searches as p
join tenant as t on t.id = p.tenant_id
join ward_internal.searches as s on s.id = p.search_id
join ward_internal.models as m on m.id = s.model_id
join ward_internal.sealed_columns as c on c.id = s.column_id
order by 1, 2;

-- searches-tell-little (warn): tokens do not tell the values of a column by how often each occurs
select format('%s.%s', relation, column_name),
  format('%s, %s: %s values, the commonest in %s %% of the rows', slug, kind, distinct_values,
    round(100 * coalesce(commonest_value, 0)::numeric, 1)),
  format('wardkey search drop %s %s, or accept it: wardkey search accept %s %s --reason …', relation, column_name,
    relation, column_name)
from ward.search_leakage where tells_too_much and accepted is null
order by 1, 2;

-- leaves-only (fail): every partition of a model table lies with a tenant's leaves and holds that tenant only
select oid::regclass::text,
  case when tenant_id is null then 'is not among a tenant''s leaves' else format('takes %s', bound) end,
  format('alter table %s detach partition %s;', parent, oid::regclass)
from leaf
where tenant_id is null or bound is distinct from format('FOR VALUES IN (%L)', tenant_id)
order by 1;
