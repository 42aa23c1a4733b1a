-- The rows of the registry: which, a digest of what only functions of wardkey may change, whose log accounts for that, the
-- events that do, and what people call it.
with master as (select ward_internal.master_id() as id)
select 'tenants/' || id, md5(concat_ws('|', slug, schema_name, login_role, status, key_mode, region)), id::text,
  '{provisioned,suspended,resumed,shredding,shredded,dropped}'::text[], 'tenant ' || slug
from ward_internal.tenants
union all
select concat('tenant_keys/', k.tenant_id, '/', k.version),
  md5(concat_ws('|', k.state, k.kek, k.kek_version, encode(k.wrapped, 'hex'), encode(k.commitment, 'hex'), k.region)), k.tenant_id::text,
  '{provisioned,rotated,rewrapped,retired,readmitted,destroyed,shredding,shredded,dropped}',
  format('key %s of %s', k.version, coalesce(t.slug, 'master'))
from ward_internal.tenant_keys as k left join ward_internal.tenants as t on t.id = k.tenant_id
union all
select 'models/' || m.id, md5(concat_ws('|', face, audit)), master.id::text, '{protected,audit_level}', 'model ' || face
from ward_internal.models as m cross join master
union all
select 'sealed_columns/' || c.id, md5(concat_ws('|', c.model_id, c.class, c.mask)), master.id::text,
  '{protected,column_sealed,classified,mask_set}',
  format('sealed column %s of %s', c.name, m.face)
from ward_internal.sealed_columns as c cross join master left join ward_internal.models as m on m.id = c.model_id
union all
select 'issuers/' || issuer, md5(document::text), master.id::text, '{issuer_added,issuer_removed}', 'issuer ' || issuer
from ward_internal.issuers cross join master
union all
select 'classes/' || name, md5(concat_ws('|', number, mask)), master.id::text, '{class_added,mask_set}', 'class ' || name
from ward_internal.classes cross join master
union all
select concat_ws('/', 'policy', role, class), md5(concat_ws('|', access, writes)), master.id::text, '{policy_set}',
  format('policy for %s and class %s', role, class)
from ward_internal.policy cross join master
union all
select concat_ws('/', 'tenant_policy', p.tenant_id, p.role, p.class), md5(concat_ws('|', p.access, p.writes)), p.tenant_id::text,
  '{policy_narrowed,policy_restored,dropped,shredding,shredded}', format('policy of %s for %s and class %s', t.slug, p.role, p.class)
from ward_internal.tenant_policy as p join ward_internal.tenants as t on t.id = p.tenant_id
union all
select concat_ws('/', 'budgets', b.tenant_id, b.role, b.model_id), md5(concat_ws('|', b.row_limit, b.is_distinct, b.seconds)),
  b.tenant_id::text, '{budget_set,budget_dropped,dropped,shredding,shredded}', format('budget of %s for %s', t.slug, b.role)
from ward_internal.budgets as b join ward_internal.tenants as t on t.id = b.tenant_id
union all
select concat_ws('/', 'honey_rows', h.tenant_id, h.model_id, encode(h.row_id, 'hex')), h.ends_logins::text, master.id::text,
  '{honey_added,honey_dropped,honey_moved,unprotected,dropped}', format('a honey row of %s', t.slug)
from ward_internal.honey_rows as h join ward_internal.tenants as t on t.id = h.tenant_id cross join master
union all
select 'searches/' || s.id, md5(concat_ws('|', s.column_id, s.kind, s.normaliser, s.step, s.version, s.stored)), master.id::text,
  '{search_added,search_dropped,unprotected,dropped}', format('a search of column %s', c.name)
from ward_internal.searches as s cross join master left join ward_internal.sealed_columns as c on c.id = s.column_id
union all
select 'settings/' || name, md5(value), master.id::text, '{set}', 'setting ' || name
from ward_internal.settings cross join master
union all
select 'shares/' || relation::text, '', master.id::text, '{shared,unshared}', 'share ' || relation::text
from ward_internal.shares cross join master
