"""ATTACKS 5, 6, 14: SET ROLE, memberships, own password."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

EVERYTHING = "select * from tenant_globex.patients"


@pytest.mark.parametrize(
    "role", ["ward_owner", "tenant_globex", "postgres", "pg_read_all_data", "pg_monitor"]
)
@pytest.mark.parametrize("statement", ["set role {}", "set session authorization {}"])
def test_no_other_role_can_be_taken(calm: Wards, role: str, statement: str) -> None:
    calm.refuses(statement.format(role))


@pytest.mark.parametrize(
    "statement",
    [
        "grant tenant_acme to tenant_globex",
        "grant tenant_globex to tenant_acme",
        "grant ward_owner to tenant_acme",
        "grant ward_tenant to tenant_globex with admin option",
        "create role mine",
        "drop role tenant_globex",
        "alter group ward_owner add user tenant_acme",
        "reassign owned by tenant_globex to tenant_acme",
        "drop owned by tenant_globex",
    ],
)
def test_no_membership_can_be_made(calm: Wards, statement: str) -> None:
    calm.refuses(statement)


def test_group_role_is_harmless(wards: Wards) -> None:
    """It carries fewer rights than the tenant's own role, and the tenant stays that of the login role."""
    with wards.attacker() as connection:
        connection.execute("set role ward_tenant")
        assert connection.execute("select ward.tenant_id()").fetchone() == (wards.database.tenant_id("acme"),)
        for schema in ("tenant_globex", "tenant_acme"):
            with refused():
                connection.execute(f"select * from {schema}.patients")
        with refused("WK004"):
            connection.execute("select ward.login(%s)", [wards.token("globex")])


def test_wardkeys_roles_have_no_members_and_no_powers(calm: Wards) -> None:
    members = calm.admin.execute(
        """select r.rolname, m.rolname from pg_auth_members
             join pg_roles r on r.oid = roleid join pg_roles m on m.oid = member
            where r.rolname ~ '^(ward_|tenant_)' and (r.rolname <> 'ward_tenant'
              or m.rolname !~ '^tenant_')"""
    ).fetchall()
    assert members == []
    powers = calm.admin.execute(
        """select rolname from pg_roles where rolname ~ '^(ward_|tenant_)' and (rolsuper or rolcreaterole
             or rolcreatedb or rolbypassrls or rolreplication
                and rolname not in ('ward_scribe', 'ward_invalidator')
             or rolcanlogin and rolname ~ '^ward_' and rolname not in (
               'ward_scribe', 'ward_publisher', 'ward_invalidator', 'ward_metrics'))"""
    ).fetchall()
    assert powers == []


def test_membership_alone_gives_no_rows_and_no_key(wards: Wards) -> None:
    """A second wall: a member of the victim's role stays the tenant of its login."""
    wards.admin.execute("grant tenant_globex to tenant_acme")
    try:
        assert not wards.sees(EVERYTHING)
        query = """select p.ssn, uuid_send(c.id), int8send(p.id)
            from sealed_globex.patients p, ward_internal.sealed_columns c
            where c.name = 'ssn' and p.id = 1"""
        sealed = wards.admin.execute(query).fetchone()
        with wards.attacker() as connection:
            connection.execute("set role tenant_globex")
            assert connection.execute(EVERYTHING).fetchall() == []
            with refused("WK101"):
                connection.execute("select ward.unseal(%s, %s, %s)", sealed)
    finally:
        wards.admin.execute("revoke tenant_globex from tenant_acme")


def test_the_attack_works_with_membership_in_the_owner_of_unforced_tables(wards: Wards) -> None:
    wards.admin.execute("create role careless_owner")
    try:
        wards.admin.execute(
            f"""
            create table public.notes (tenant_id uuid, body text);
            insert into public.notes values (gen_random_uuid(), '{SECRET}');
            alter table public.notes owner to careless_owner;
            alter table public.notes enable row level security;
            create policy own on public.notes using (tenant_id = (select ward.tenant_id()));
            grant careless_owner to tenant_acme
            """
        )
        assert wards.sees("select * from public.notes")
        wards.admin.execute("alter table public.notes force row level security")
        assert not wards.sees("select * from public.notes")
    finally:
        wards.admin.execute("drop owned by careless_owner")
        wards.admin.execute("drop role careless_owner")


def test_own_password_is_ones_own(wards: Wards) -> None:
    """PostgreSQL lets every role change its password; that locks out its own clinic and no other."""
    slug = wards.database.new_tenant()
    with psycopg.connect(wards.database.dsn(f"tenant_{slug}"), autocommit=True) as connection:
        connection.execute("alter role current_user password 'changed'")
        with refused():
            connection.execute("alter role current_user valid until 'infinity'")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(wards.database.dsn(f"tenant_{slug}"))
    with wards.victim() as connection:
        assert connection.execute("select count(*) from patients").fetchone() == (2,)
