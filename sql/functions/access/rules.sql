-- Row rules: which rows of a model table a role sees and writes, by plain columns and claims of the token.
--
-- ward_internal.row_rules says what the rules are. On the table and on each leaf a restrictive policy is made of a
-- rule, which also asks whose role it is: all people of a tenant have one login role of the database, so no policy can
-- be of a role of the token. On the shape, where it acts on nothing, a policy has the expression as it was written: so
-- PostgreSQL knows what the rule needs, and follows the names of it.
--
-- What a rule does with columns and claims cannot raise an error that quotes them: functions on them are leakproof, as
-- PostgreSQL marks its own, and a claim is cast by ward.rule_claim, whose one error is a constant. An error denies: the
-- statement ends. A claim that is not there is NULL, and a comparison with NULL lets no row through.

create or replace function ward.tenant_unless(p_roles text[]) returns uuid
language plpython3u stable strict parallel restricted security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "tenant_unless")
return SD["call"](*args)
$$;
revoke execute on function ward.tenant_unless(text[]) from public;
comment on function ward.tenant_unless(text[]) is
  'the tenant of the context, if its role is none of these; else, and without a context, no tenant''s id; null for an '
  'error, for ward.raise_if_refused to raise. Row rules call it';

create or replace function ward.is_ruled(p_roles text[]) returns boolean
language plpython3u stable strict parallel restricted cost 1 security invoker as $$
try:
    return SD["call"](*args)
except KeyError:
    from wardkey_pg.entry import bind
    SD["call"] = bind("@VERSION@", "is_ruled")
return SD["call"](*args)
$$;
revoke execute on function ward.is_ruled(text[]) from public;
comment on function ward.is_ruled(text[]) is
  'whether the role of the context is one of these. For the planner, which asks it for its estimates';

-- parallel unsafe: a subtransaction cannot begin while a plan has workers
create or replace function ward.rule_claim(p_name text, p_type anyelement) returns anyelement
language plpgsql stable parallel unsafe security invoker set search_path = pg_catalog, pg_temp as $$
declare
  -- no error without a context, where a face may be empty
  v_claim text := case when ward.tenant_id() is not null then ward.claim(p_name) end;
begin
  begin
    p_type := v_claim;
    return p_type;
  exception when others then
    null;  -- its text has the claim
  end;
  raise exception using errcode = 'WK262',
    message = 'wardkey: a claim of the token is not of the type that a row rule compares it with',
    hint = 'have the identity provider give the claim as the row rule needs it';
end
$$;
revoke execute on function ward.rule_claim(text, anyelement) from public;
comment on function ward.rule_claim(text, anyelement) is
  'ward.claim(name) cast to the type of the second argument; NULL without a context. Row rules call it. Error: '
  'WK262 it cannot be cast';

create or replace function ward_internal.rule_condition(p_roles text[], p_expression text) returns text
language plpgsql immutable strict security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_claim constant text := $re$ward\.claim\('([A-Za-z_][A-Za-z0-9_:/.-]*)'::text\)$re$;
  v_name constant text := $re$(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_]*)$re$;
  v_type constant text := format('(%1$s(?:\.%1$s)?(?: varying| precision| with(?:out)? time zone)?(?:\[\])*)', v_name);
  v_nobody constant uuid := '00000000-0000-0000-0000-000000000000';
  v_last constant uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  v_hint constant text := 'case when (select false) and ward.is_ruled(%L) then null::uuid else %L end';
  v_expression text := regexp_replace(regexp_replace(p_expression,
    format('\(%s\)::%s', v_claim, v_type), '(select ward.rule_claim(''\1'', null::\2))::\2', 'g'),
    v_claim, '(select ward.rule_claim(''\1'', null::text))', 'g');
begin
  -- Other roles' rows pass by tenant_id. Its comparisons with the hints are always true, and say so to the planner for
  -- those roles, as it calls ward.is_ruled; for a role under the rule they are said to let almost nothing pass. So it
  -- takes the index on what the rule compares, which an OR with a condition on the role alone would keep it from, and
  -- plans as without a rule for the others. No executor evaluates what stands behind (select false).
  return format(
    'tenant_id = (select coalesce(ward.tenant_unless(%L), ward.raise_if_refused(null::uuid))) and tenant_id >= %s '
      'and tenant_id <= %s and tenant_id <> %s or (%s)', p_roles, format(v_hint, p_roles, v_nobody),
    format(v_hint, p_roles, v_last), format(v_hint, p_roles, v_nobody), v_expression);
end
$$;
comment on function ward_internal.rule_condition(text[], text) is
  'what the policy of a row rule asks, of its expression as pg_get_expr has it: claims are asked once a statement, and '
  'cast safely';

create or replace function ward_internal.check_row_rule(p_shape regclass, p_policy name) returns void
language plpgsql stable security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_policy pg_policy := (select p from pg_policy as p where polrelid = p_shape and polname = p_policy);
  v_token text;
  v_number integer;
  v_depth integer := 0;
  -- of the nodes that are open, by depth: kind, whether a column or claim is in it, function, kinds of what is directly
  -- in it
  v_kinds text[];
  v_told boolean[];
  v_functions oid[];
  v_parts text[];
  v_kind text;
  v_function pg_proc;
begin
  if not (v_policy.polcmd = '*' and v_policy.polroles = '{0}' and v_policy.polwithcheck is null) then
    perform ward_internal.fail('invalid_row_rule', 'that is more than one expression',
      'give a condition on one row, as after WHERE');
  end if;
  -- a tree as nodeToString writes it: {KIND :field value …}, lists in parentheses
  for v_token in
    select m[1] from regexp_matches(v_policy.polqual::text,
      '(\\.|\{[A-Z]*|\}|:(?:funcid|opfuncid|varattno|constisnull) \S+)', 'g') as m
  loop
    if v_token = '{SUBLINK' then
      perform ward_internal.fail('invalid_row_rule', 'a row rule has a subquery',
        'compare columns of the row with claims of the token');
    elsif v_token ~ '^\{' then
      v_depth := v_depth + 1;
      v_kinds[v_depth] := substr(v_token, 2);
      v_told[v_depth] := false;
      v_functions[v_depth] := null;
      v_parts[v_depth] := '';
    elsif v_token ~ '^:(op)?funcid ' then
      v_functions[v_depth] := split_part(v_token, ' ', 2)::oid;
    elsif v_token ~ '^:varattno ' then
      v_number := split_part(v_token, ' ', 2);
      v_told[v_depth] := true;
      if v_number <= 0 or exists (
        select from pg_attribute as a join ward_internal.models as m on m.shape = a.attrelid
        join ward_internal.sealed_columns as s on s.model_id = m.id and s.name = a.attname
        where a.attrelid = p_shape and a.attnum = v_number)
      then
        perform ward_internal.fail('rule_names_sealed_column',
          format('a row rule names a %s', case when v_number > 0 then 'sealed column' else 'row or system column' end),
          'compare plain columns: the database cannot look at what is sealed');
      end if;
    elsif v_token = ':constisnull true' then
      v_kinds[v_depth] := 'NULL';
    elsif v_token = '}' then
      v_kind := v_kinds[v_depth];
      if v_functions[v_depth] is not null then
        select * into v_function from pg_proc where oid = v_functions[v_depth];
        if v_function.oid = 'ward.claim(text)'::regprocedure then
          if v_parts[v_depth] <> ' CONST' then
            perform ward_internal.fail('invalid_row_rule', 'a row rule computes the name of a claim',
              'write ward.claim(''name'')');
          end if;
          v_kind := 'CLAIM';
          v_told[v_depth] := true;
        elsif v_function.pronamespace is distinct from 'pg_catalog'::regnamespace then
          perform ward_internal.fail('rule_calls_function',
            format('a row rule calls %s, which is not PostgreSQL''s own', v_functions[v_depth]::regprocedure),
            'use immutable and stable functions of pg_catalog, and ward.claim');
        elsif v_function.provolatile = 'v' then
          perform ward_internal.fail('rule_calls_function', format('a row rule calls %s, which is volatile',
            v_functions[v_depth]::regprocedure), 'use immutable and stable functions of pg_catalog, and ward.claim');
        elsif v_function.proname = 'current_setting' then
          perform ward_internal.fail('rule_calls_function', 'a row rule reads a setting',
            'any session can SET it: use a claim of the token');
        elsif v_told[v_depth] and not v_function.proleakproof
          and v_function.proname !~ '^(enum_(eq|ne)|numeric_(eq|ne|lt|le|gt|ge))$'  -- which raise nothing either
        then
          perform ward_internal.fail('rule_calls_function', format(
            'a row rule calls %s on a column or claim, and it is not leakproof', v_functions[v_depth]::regprocedure),
            'compare the column itself: an error of that function might quote rows that the rule hides');
        end if;
      end if;
      if v_told[v_depth] and v_kind !~ ('^(VAR|CLAIM|FUNCEXPR|OPEXPR|DISTINCTEXPR|NULLIFEXPR|SCALARARRAYOPEXPR|'
          'BOOLEXPR|NULLTEST|BOOLEANTEST|RELABELTYPE|CASE(EXPR)?|(CASE)?WHEN|COALESCE(EXPR)?|ARRAY(EXPR)?|'
          'COLLATE(EXPR)?)$')
        and not (v_kind = 'COERCEVIAIO' and v_parts[v_depth] = ' CLAIM')
      then
        perform ward_internal.fail('rule_calls_function', 'a row rule does with a column or claim what might fail',
          'compare the column itself, and cast the claim to its type: ward.claim(''name'')::bigint');
      end if;
      v_depth := v_depth - 1;
      if v_depth > 0 then
        v_told[v_depth] := v_told[v_depth] or v_told[v_depth + 1];
        v_parts[v_depth] := v_parts[v_depth] || ' ' || v_kind;
      end if;
    end if;
  end loop;
  if ward_internal.rule_condition('{}', pg_get_expr(v_policy.polqual, p_shape)) ~ 'ward\.claim\(' then
    perform ward_internal.fail('invalid_row_rule', 'a row rule names a claim in a way that is not supported',
      'names of claims begin with a letter or _ and have letters, digits and _ : / . -');
  end if;
end
$$;
comment on function ward_internal.check_row_rule(regclass, name) is
  'raises unless the policy is a condition on plain columns and claims that tells nothing by its errors. Errors: '
  'WK258, WK259, WK260';

create or replace function ward_internal.build_row_rules(p_model uuid, p_relation regclass) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_policy name;
  v_condition text;
begin
  for v_policy in
    select polname from pg_policy where polrelid = p_relation and starts_with(polname, 'ward_rule_')
  loop
    execute format('drop policy %I on %s', v_policy, p_relation);
  end loop;
  for v_policy, v_condition in
    select 'ward_rule_' || r.name,
      case when m.shape = p_relation then r.expression else ward_internal.rule_condition(r.roles, r.expression) end
    from ward_internal.row_rules as r join ward_internal.models as m on m.id = r.model_id where m.id = p_model
  loop
    execute format('create policy %I on %s as restrictive using (%s)', v_policy, p_relation, v_condition);
  end loop;
end
$$;
comment on function ward_internal.build_row_rules(uuid, regclass) is
  'gives the shape, the table or a leaf of the model the policies of its row rules';

create or replace function ward_internal.restore_row_rules(p_relation regclass) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  select ward_internal.build_row_rules(id, p_relation) from ward_internal.models
  where p_relation in (relation, shape) or exists (
    select from pg_inherits where inhrelid = p_relation and inhparent = relation)
$$;
comment on function ward_internal.restore_row_rules(regclass) is
  'puts the policies of row rules right on one relation: what the doctor says to do';

create or replace function ward_internal.follow_row_rules(p_model uuid) returns void
language sql volatile security invoker set search_path = pg_catalog, pg_temp as $$
  update ward_internal.row_rules as r set expression = pg_get_expr(p.polqual, p.polrelid)
  from ward_internal.models as m join pg_policy as p on p.polrelid = m.shape
  where m.id = p_model and r.model_id = m.id and p.polname = 'ward_rule_' || r.name
    and r.expression is distinct from pg_get_expr(p.polqual, p.polrelid)
$$;
comment on function ward_internal.follow_row_rules(uuid) is
  'rewrites the expressions of row rules: a column or a type has another name';

create or replace function ward_internal.lock_row_rules(p_table regclass) returns uuid
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
begin
  perform ward_internal.require_superuser();
  lock table ward_internal.tenants in share row exclusive mode;
  lock table ward_internal.models in share row exclusive mode;
  perform ward_internal.lock_together(array(select ward_internal.relations_of(array[p_table])));
  return ward_internal.model_of(p_table);
end
$$;
comment on function ward_internal.lock_row_rules(regclass) is
  'the model, with no other change of it or of tenants until the transaction ends';

create or replace function ward.add_row_rule(
  p_table regclass, p_roles text[], p_expression text, p_name text default null
) returns text
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_known constant text[] := '{SUPER_ADMIN,ADMIN,EVALUATOR,ANALYST,VIEWER}';
  v_model uuid := ward_internal.lock_row_rules(p_table);
  v_shape regclass := (select shape from ward_internal.models where id = v_model);
  v_name text := coalesce(p_name, (
    select 'rule_' || min(n) from generate_series(1, 1000) as n
    where not exists (select from ward_internal.row_rules where model_id = v_model and name = 'rule_' || n)));
begin
  if (cardinality(p_roles) > 0 and array_position(p_roles, null) is null and p_roles <@ v_known) is not true then
    perform ward_internal.fail('rule_for_unknown_role', 'a row rule is for one or more of the roles of tokens',
      'roles are ' || array_to_string(v_known, ', '));
  elsif v_name !~ '^[a-z][a-z0-9_]{0,47}$'
    or exists (select from ward_internal.row_rules where model_id = v_model and name = v_name)
  then
    perform ward_internal.fail('invalid_row_rule', 'the name of the row rule is taken or not valid',
      'use a lower-case letter, then at most 47 lower-case letters, digits and underscores');
  end if;
  begin
    execute format(E'create policy %I on %s as restrictive using (%s\n)', 'ward_rule_' || v_name, v_shape,
      p_expression);
  exception when others then
    perform ward_internal.fail('invalid_row_rule', format('that is no condition on a row of %s: %s', p_table, sqlerrm),
      'give what could stand after WHERE: plain columns and ward.claim(''name''), types with their schema');
  end;
  perform ward_internal.check_row_rule(v_shape, 'ward_rule_' || v_name);
  insert into ward_internal.row_rules (model_id, name, roles, expression)
    select v_model, v_name, array(select role from unnest(v_known) as role where role = any (p_roles)),
      pg_get_expr(polqual, polrelid)
    from pg_policy where polrelid = v_shape and polname = 'ward_rule_' || v_name
    returning roles, expression into p_roles, p_expression;
  perform ward_internal.build_row_rules(v_model, ruled) from ward_internal.relations_of(array[p_table]) as ruled;
  update ward_internal.tenants set key_epoch = key_epoch + 1;  -- what clients have cached was read without it
  perform ward_internal.log_event(ward_internal.master_id(), 'row rule added', jsonb_build_object(
    'table', p_table::text, 'rule', v_name, 'roles', p_roles, 'expression', p_expression));
  return v_name;
end
$$;
comment on function ward.add_row_rule(regclass, text[], text, text) is
  'lets these roles see and write only rows of a model table for which the expression is true, in every ward; '
  'returns the name of the rule. All rules of a role hold. It may name plain columns, ward.claim(''name''), '
  'constants, and operators and functions of pg_catalog: on columns and claims leakproof ones, as comparisons are. '
  'A claim is compared as text, or cast: ward.claim(''patient_id'')::bigint. Foreign keys and unique keys look at '
  'all rows. Errors: WK204, WK258 sealed column, WK259 function, WK260 no condition on a row, WK261 role; when the '
  'rule is asked WK262: the claim cannot be cast';

create or replace function ward.drop_row_rule(p_table regclass, p_name text) returns void
language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp as $$
declare
  v_model uuid := ward_internal.lock_row_rules(p_table);
  v_shape regclass := (select shape from ward_internal.models where id = v_model);
begin
  delete from ward_internal.row_rules where model_id = v_model and name = p_name;
  if not found then
    perform ward_internal.fail('unknown_object', format('%s has no row rule of that name', p_table),
      'list them: select * from ward.row_rules');
  end if;
  perform ward_internal.build_row_rules(v_model, ruled) from ward_internal.relations_of(array[p_table]) as ruled;
  execute format('drop policy if exists %I on %s', 'ward_rule_' || p_name, v_shape);
  update ward_internal.tenants set key_epoch = key_epoch + 1;
  perform ward_internal.log_event(ward_internal.master_id(), 'row rule dropped',
    jsonb_build_object('table', p_table::text, 'rule', p_name));
end
$$;
comment on function ward.drop_row_rule(regclass, text) is
  'takes a row rule away: its roles see and write all rows again, save for what other rules say. Error: WK204 no '
  'such rule';

create or replace view ward.row_rules as
  select m.relation, r.name, r.roles, r.expression, r.made_by, r.made_at, r.model_id
  from ward_internal.row_rules as r join ward_internal.models as m on m.id = r.model_id;
comment on view ward.row_rules is 'the row rules of model tables: which rows a role sees and writes';
