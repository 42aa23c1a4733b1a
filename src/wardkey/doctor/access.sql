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
