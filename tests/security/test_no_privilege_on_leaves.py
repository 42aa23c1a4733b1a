"""ATTACKS 11, 12, 15, 16: leaves and parents, by any statement, in any ward, the own one too."""

from __future__ import annotations

import pytest

from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

RELATIONS = (
    "sealed_acme.patients",
    "sealed_globex.patients",
    "tenant_globex.patients",
    "clinic.patients",
    "ward_model.clinic__patients",
    "ward_internal.tenants",
    "ward_internal.tenant_keys",
    "ward_internal.issuers",
    "ward.tenants",
    "ward.issuers",
)
NOT_FOR_VIEWS = ("0A000", "42703", "42809", "55000")
STATEMENTS = (
    "select * from {}",
    "table {}",
    "select from {} where ctid = '(0,1)'",
    "select from {} tablesample system (100)",
    "select from {} for update",
    "copy {} to stdout",
    "copy (select * from {}) to stdout",
    "copy {} from stdin",
    "insert into {} default values",
    "delete from {}",
    "truncate {}",
    "explain select * from {}",
    "lock table {} in access share mode",
    "declare c cursor with hold for select * from {}",
    "select query_to_xml('table {}', true, true, '')",
)


@pytest.mark.parametrize("relation", RELATIONS)
def test_no_statement_reaches_it(calm: Wards, relation: str) -> None:
    for statement in STATEMENTS:
        text = statement.format(relation)
        calm.refuses(f"begin; {text}" if text.startswith("lock") else text, "42501", *NOT_FOR_VIEWS)


def test_a_tenant_has_the_grants_of_its_own_faces_only(calm: Wards) -> None:
    """Whatever relation outside the catalogs carries a privilege for acme, by any way: this is the list."""
    grants = calm.admin.execute(
        """
        select c.oid::regclass::text, p from pg_class c,
          unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) as p
        where c.relkind in ('r', 'p', 'v', 'm', 'f')
          and c.relnamespace::regnamespace::text not in ('pg_catalog', 'information_schema')
          and has_table_privilege('tenant_acme', c.oid, p)
        union
        select attrelid::regclass::text, 'column ' || attname from pg_attribute
        join pg_class c on c.oid = attrelid
        where attacl is not null and c.relnamespace <> 'pg_catalog'::regnamespace
          and has_column_privilege('tenant_acme', attrelid, attnum, 'SELECT, INSERT, UPDATE, REFERENCES')
        """
    ).fetchall()
    face = {("tenant_acme.patients", p) for p in ("SELECT", "INSERT", "UPDATE", "DELETE")}
    views = {"ward.policy", "ward.classes", "ward.measures", "ward.measure_definitions", "ward.delegated"}
    assert set(grants) == face | {("clinic.icd10", "SELECT"), *((view, "SELECT") for view in views)}
    schemas = (
        "select bool_or(has_schema_privilege('tenant_acme', nspname, 'usage, create')) from pg_namespace"
    )
    assert calm.admin.execute(f"{schemas} where nspname ~ '^sealed_'").fetchone() == (False,)


def test_face_gives_no_way_to_hang_something_on_it(calm: Wards) -> None:
    trigger = "suppress_redundant_updates_trigger()"
    calm.refuses(f"create trigger t instead of insert on patients for each row execute function {trigger}")
    calm.refuses("create rule r as on insert to patients do also notify x")
    calm.refuses("truncate patients", "42809")
    calm.refuses("alter view patients owner to tenant_acme")
    calm.refuses("alter view patients set (security_invoker = true)")
    calm.refuses("alter table patients alter column name set default 'x'")
    calm.refuses("create or replace view patients as select 1")
    calm.refuses("drop view patients")
    calm.refuses("comment on view patients is 'mine'")
    calm.refuses("create policy mine on sealed_acme.patients using (true)")
    calm.refuses("grant select on patients to tenant_globex", "WK212")  # PostgreSQL would warn only
    query = "select has_table_privilege('tenant_globex', 'tenant_acme.patients', 'select')"
    assert calm.admin.execute(query).fetchone() == (False,)


def test_rows_stay_hidden_if_a_leaf_is_granted_by_mistake(wards: Wards) -> None:
    """RLS is forced on each leaf, no matter who made or owns it: the second wall."""
    wards.admin.execute("grant usage on schema sealed_globex to ward_tenant")
    wards.admin.execute("grant all on sealed_globex.patients, clinic.patients to ward_tenant")
    with wards.attacker() as connection:
        assert connection.execute("select * from sealed_globex.patients").fetchall() == []
        assert connection.execute("select count(*) from clinic.patients").fetchone() == (2,)  # its own
        for statement in ("delete from {}", "update {} set city = 'x'"):
            done = connection.execute(statement.format("sealed_globex.patients"))
            assert done.rowcount == 0
        query = "insert into sealed_globex.patients (tenant_id, id, name) values (%s, 9, 'x')"

        with refused("42501"):
            connection.execute(query, [wards.database.tenant_id("globex")])


def test_the_attack_works_on_a_leaf_without_forced_rls(wards: Wards) -> None:
    wards.admin.execute("grant usage on schema sealed_globex to tenant_acme")
    wards.admin.execute("grant select on sealed_globex.patients to tenant_acme")
    query = "select city from sealed_globex.patients order by id"
    with wards.attacker() as connection:
        assert connection.execute(query).fetchall() == []
        wards.admin.execute("alter table sealed_globex.patients disable row level security")
        assert connection.execute(query).fetchall() == [("Shelbyville",), ("Ogden",)]


def test_the_attack_works_on_a_copy_of_a_leaf(wards: Wards) -> None:
    """ATTACKS 12: LIKE … INCLUDING ALL takes everything along but policies and owners."""
    wards.admin.execute(
        """
        create table public.copied (like sealed_globex.patients including all);
        insert into public.copied select * from sealed_globex.patients;
        grant select on public.copied to ward_tenant
        """
    )
    with wards.attacker() as connection:
        assert connection.execute("select count(*) from public.copied").fetchone() == (2,)


def test_the_attack_works_with_truncate(wards: Wards) -> None:
    """ATTACKS 16: TRUNCATE does not ask policies."""
    wards.admin.execute("grant usage on schema sealed_globex to tenant_acme")
    wards.admin.execute("grant truncate on sealed_globex.patients to tenant_acme")
    with wards.attacker() as connection:
        connection.execute("truncate sealed_globex.patients")
    assert wards.admin.execute("select count(*) from sealed_globex.patients").fetchone() == (0,)


def test_every_new_leaf_is_under_rls(wards: Wards) -> None:
    wards.database.new_tenant()
    wards.admin.execute("create table clinic.notes (id int primary key, body text)")
    wards.admin.execute("select ward.protect('clinic.notes', '{body}')")
    open_ones = wards.admin.execute(
        """select c.oid::regclass from pg_class c
            where (c.oid in (select relation from ward.models)
                or c.oid in (select inhrelid from pg_inherits join ward.models on inhparent = relation))
              and not (relrowsecurity and relforcerowsecurity and relowner = 'ward_owner'::regrole
                and (select array_agg(polpermissive order by polpermissive) = '{f,t}' from pg_policy
                      where polrelid = c.oid and polcmd = '*' and polroles = '{0}'))"""
    ).fetchall()
    assert open_ones == []


SECOND = (
    "alter event trigger ward_follow_models disable;"
    " create policy second on sealed_globex.patients using (true)"
)


def test_second_permissive_policy_opens_nothing(wards: Wards) -> None:
    """ATTACKS 15: permissive policies are OR-ed; the restrictive fence is not."""
    wards.admin.execute("grant usage on schema sealed_globex to tenant_acme")
    wards.admin.execute("grant select on sealed_globex.patients to tenant_acme")
    wards.admin.execute(SECOND)
    query = "select city from sealed_globex.patients"
    with wards.attacker() as connection:
        assert connection.execute(query).fetchall() == []
        wards.admin.execute("drop policy ward_fence on sealed_globex.patients")
        assert len(connection.execute(query).fetchall()) == 2  # the attack works without the fence


def test_secret_is_there_to_be_found(calm: Wards) -> None:
    with calm.victim() as connection:
        assert connection.execute("select ssn from patients where id = 1").fetchone() == (SECRET,)
