-- Contracts and policies on which access rests.

-- baa-in-force (fail): each tenant that is let in has a business associate agreement, where that is required
select t.slug, 'is let in, and no business associate agreement with it is in force',
  'record the one that was signed: wardkey baa add; or: wardkey tenant suspend ' || t.slug
from ward_internal.tenants as t
where t.status = 'active' and ward_internal.is_baa_required() and not ward_internal.is_baa_in_force(t.id)
order by 1;

-- baa-lasts (warn): no business associate agreement ends within 90 days without another one
select b.slug, format('its business associate agreement ends on %s, in %s (%s days before: notice)', b.ends,
    case when b.days_left < 7 then format('%s days: within a week', b.days_left)
      when b.days_left < 30 then format('%s days: within a month', b.days_left)
      else format('%s days', b.days_left) end, b.notice_days),
  'record the one that follows: wardkey baa add'
from ward.baas as b join ward_internal.tenants as t on t.id = b.tenant_id
where t.status in ('active', 'suspended') and b.state = 'in force' and b.days_left < 90
  and not exists (
    select from ward.baas as o where o.tenant_id = b.tenant_id and o.id <> b.id and o.begins <= b.ends + 1
      and (o.ends > b.ends or o.ends is null))
order by b.days_left, 1;

-- row-rules-stand (fail): the shape of a table has its row rules as they were declared
select m.shape::text, format('%s row rule %s', case when p.oid is null then 'lost' else 'has an altered' end, r.name),
  format('select ward_internal.restore_row_rules(%L);', m.shape)
from ward_internal.row_rules as r
join ward_internal.models as m on m.id = r.model_id
left join pg_policy as p on p.polrelid = m.shape and p.polname = 'ward_rule_' || r.name
where (pg_get_expr(p.polqual, p.polrelid) = r.expression and p.polroles = '{0}') is not true
order by 1, 2;

-- row-rules-cover (info): what references a table with row rules has some for the same roles
select t.relation::text, format('references %s, which row rule %s keeps from %s, and has none for %s', m.relation,
    r.name, array_to_string(r.roles, ', '), case when cardinality(r.roles) = 1 then 'that role' else 'all of them' end),
  format('wardkey access rule add %s --role %s …', t.relation, r.roles[1])
from ward_internal.row_rules as r
join ward_internal.models as m on m.id = r.model_id
join pg_constraint as c on c.contype = 'f' and c.confrelid = m.shape
join ward_internal.models as t on t.shape = c.conrelid and t.id <> m.id
where not r.roles <@ coalesce((
  select array_agg(role) from ward_internal.row_rules as o, unnest(o.roles) as role where o.model_id = t.id), '{}')
order by 1, 2;

-- break-glass-reviewed (warn): who broke the glass without an approver is looked at within 72 hours
select coalesce(slug, 'a tenant that is gone'), format('%s saw %s as of %s without an approver; the review is %s', subject,
    array_to_string(classes, ', '), date_trunc('minute', started_at),
    case when review_due < now() then 'overdue since ' else 'due by ' end || date_trunc('minute', review_due)),
  'an ADMIN of the tenant: wardkey access break-glass review ' || id
from ward.break_glass_grants
where review_due is not null order by review_due, 1;

-- masks-chosen (info): what a role sees masked shows something, or was given the mask null on purpose
select m.relation::text, format('%s sees nothing of %s: the mask %s of class %s does not fit %s', string_agg(p.role, ', '
    order by p.role), c.name, k.mask, c.class, c.kind),
  format('select ward.set_mask(%L, %L, ''null'');  -- or a mask that fits', m.relation, c.name)
from ward_internal.column_classes as c
join ward_internal.sealed_columns as s on s.id = c.id and s.mask is null
join ward_internal.known_classes as k on k.name = c.class and k.mask <> 'null'
join ward_internal.models as m on m.id = c.model_id
join ward_internal.platform_policy as p on p.class = c.class and p.access = 'mask'
where c.mask = 'null'
group by m.relation, c.name, k.mask, c.class, c.kind order by 1, 2;
