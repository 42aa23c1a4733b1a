-- A face that loses a column, or whose column loses its type, is dropped and remade: PostgreSQL has no other way,
-- and what stands on it goes along. Before a command that may do that, views on faces and grants to others are written
-- down; after it, what is gone is made again. What used the lost column itself cannot be: CASCADE took it, as was
-- asked.

create or replace function ward_internal.grants_on(p_relation oid, p_except name[]) returns setof text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select format('grant %s%s on %s to %s%s', a.privilege_type, ' (' || quote_ident(a.attname) || ')',
    p_relation::regclass, case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
    case when a.is_grantable then ' with grant option' else '' end)
  from (
    select null::name as attname, acl.* from pg_class as c, aclexplode(c.relacl) as acl where c.oid = p_relation
    union all
    select attname, acl.* from pg_attribute, aclexplode(attacl) as acl where attrelid = p_relation and not attisdropped
  ) as a
  where a.grantee = 0 or pg_get_userbyid(a.grantee) <> all (p_except)
$$;
comment on function ward_internal.grants_on(oid, name[]) is
  'statements that grant what is granted on a view, save to these roles';

create or replace function ward_internal.comments_on(p_relation oid) returns setof text
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select case objsubid when 0 then format('comment on view %s is %L', p_relation::regclass, description)
    else format('comment on column %s.%I is %L', p_relation::regclass,
      (select attname from pg_attribute where attrelid = p_relation and attnum = objsubid), description) end
  from pg_description where classoid = 'pg_class'::regclass and objoid = p_relation
$$;

create or replace function ward_internal.view_statements(p_view oid) returns text[]
language sql stable strict security invoker set search_path = pg_catalog, pg_temp as $$
  select array[format('create view %s%s as %s', p_view::regclass,
      ' with (' || (select string_agg(o, ', ') from unnest(c.reloptions) as o) || ')', pg_get_viewdef(p_view)),
    format('alter view %s owner to %I', p_view::regclass, pg_get_userbyid(c.relowner))]
    || array(select ward_internal.grants_on(p_view, array[pg_get_userbyid(c.relowner)]))
    || array(select ward_internal.comments_on(p_view))
    || array(select format('alter view %s alter column %I set default %s', p_view::regclass, a.attname,
        pg_get_expr(d.adbin, d.adrelid))
      from pg_attrdef as d join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
        where d.adrelid = p_view)
    || array(select pg_get_triggerdef(oid) from pg_trigger where tgrelid = p_view and not tgisinternal)
    || array(select pg_get_ruledef(oid) from pg_rewrite where ev_class = p_view and rulename <> '_RETURN')
  from pg_class as c where c.oid = p_view
$$;
comment on function ward_internal.view_statements(oid) is
  'statements that make a view again, with all that is about it';

create or replace function ward_internal.save_dependents() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  insert into ward_internal.dependents (transaction, catalog, object, place, name, statements)
    with recursive face as materialized (
      select c.oid, c.relacl, t.login_role from ward_internal.tenants as t
      join pg_namespace as n on n.nspname = t.schema_name
      join pg_class as c on c.relnamespace = n.oid and c.relkind = 'v'
      join ward_internal.models as m on m.face = c.relname
    ), link as materialized (  -- what stands on a view, and the view; a view by itself, not by its rule
      select o.catalog, o.object, v.oid as view
      from (
        select 'pg_class'::regclass::oid as catalog, c.oid as object, 'pg_rewrite'::regclass::oid as classid,
          r.oid as objid
        from pg_class as c join pg_rewrite as r on r.ev_class = c.oid
        where c.relkind in ('v', 'm') and c.oid >= 16384 and not exists (select from face where face.oid = c.oid)
        union all
        select 'pg_proc'::regclass, oid, 'pg_proc'::regclass, oid from pg_proc where prosqlbody is not null
          and oid >= 16384
        union all
        select 'pg_policy'::regclass, oid, 'pg_policy'::regclass, oid from pg_policy
          where polname not in ('ward_tenant', 'ward_fence')
      ) as o
      join pg_depend as d on d.classid = o.classid and d.objid = o.objid and d.refclassid = 'pg_class'::regclass
        and d.deptype = 'n'
      join pg_class as v on v.oid = d.refobjid and v.relkind in ('v', 'm') and v.oid <> o.object
    ), dependent as (
      select l.*, 1 as place from link as l join face as f on f.oid = l.view
      union
      select l.*, f.place + 1 from link as l join dependent as f on f.catalog = 'pg_class'::regclass
        and f.object = l.view
    )
    select pg_current_xact_id(), catalog, object, max(place), pg_describe_object(catalog, object, 0),
      case when (select relkind = 'v' from pg_class where catalog = 'pg_class'::regclass and oid = object)
        then ward_internal.view_statements(object) end
      from dependent group by catalog, object
    union all
    select pg_current_xact_id(), 'pg_class'::regclass, f.oid, 0, f.oid::regclass::text,
      array(select ward_internal.grants_on(f.oid, array['ward_owner', f.login_role]))
        || array(select ward_internal.comments_on(f.oid))
      from face as f
      where cardinality(f.relacl) > 2 or exists (select from pg_attribute where attrelid = f.oid and attacl is not null)
        or exists (select from pg_description where classoid = 'pg_class'::regclass and objoid = f.oid)
  on conflict do nothing;
end
$$;
comment on function ward_internal.save_dependents() is
  'writes down what stands on faces: views, and what is granted to others';

create or replace function ward_internal.restore_dependents() returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_lost ward_internal.dependents;
  v_statement text;
begin
  for v_lost in
    select d.* from ward_internal.dependents as d
    where d.transaction = pg_current_xact_id()
      and not exists (select from pg_class where d.catalog = 'pg_class'::regclass and oid = d.object)
      and not exists (select from pg_proc where d.catalog = 'pg_proc'::regclass and oid = d.object)
      and not exists (select from pg_policy where d.catalog = 'pg_policy'::regclass and oid = d.object)
    order by d.place
  loop
    if v_lost.statements is null then
      perform ward_internal.fail('change_refused', format('%s stands on a face and would go with it', v_lost.name),
        'drop it first, and make it again afterwards');
    end if;
    begin
      foreach v_statement in array v_lost.statements loop
        execute v_statement;
      end loop;
    exception when undefined_column or undefined_table or undefined_object or undefined_function then
      raise notice '% used what was dropped, and is gone', v_lost.name;
    end;
  end loop;
  delete from ward_internal.dependents where transaction = pg_current_xact_id();
end
$$;
comment on function ward_internal.restore_dependents() is
  'makes again what ward_internal.save_dependents wrote down and is gone';
