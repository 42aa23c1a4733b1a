"""Who grants or revokes what is wardkey's, a ward's or a tenant's role's leaves an event that says what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.database import Connection, Database

PLATFORM = "00000000-0000-0000-0000-000000000000"


def events(connection: Connection, tenant: Any, operation: str = "grant") -> list[dict[str, Any]]:
    """Return the objects of each event."""
    rows = connection.execute(
        "select detail -> 'objects', database_role from ward_internal.audit_log"
        " where tenant_id = %s and operation = %s order by id",
        [tenant, operation],
    ).fetchall()
    assert {role for _, role in rows} <= {"postgres"}
    return [objects for objects, _ in rows]


@pytest.mark.parametrize(
    ("statement", "objects"),
    [
        ("grant select on tenant_acme.patients to ward_owner", ["tenant_acme.patients"]),
        ("grant select on sealed_acme.patients to public", ["sealed_acme.patients"]),
        ("grant select (name) on tenant_acme.patients to public", ["tenant_acme.patients (name)"]),
        ("grant usage on schema tenant_acme to public", ["schema tenant_acme"]),
        ("grant create on schema public to tenant_acme", ["schema public"]),
        ("grant execute on function pg_catalog.pg_ls_dir(text) to tenant_acme", ["pg_ls_dir(text)"]),
        (
            "alter default privileges in schema tenant_acme grant select on tables to public",
            ["what postgres makes"],
        ),
        (
            "savepoint a; grant select on all tables in schema tenant_acme to public; release a",
            ["tenant_acme.audit_log", "tenant_acme.patients"],
        ),
    ],
)
def test_a_grant_in_a_ward_or_to_its_role_is_its_tenants(
    database: Database, statement: str, objects: list[str]
) -> None:
    acme, globex = database.tenant_id("acme"), database.tenant_id("globex")
    with database.admin(autocommit=False) as connection:
        connection.execute(statement)
        (event,) = events(connection, acme)
        assert set(objects) <= {one["object"] for one in event}
        assert any("=" in privilege for one in event for privilege in one["privileges"])
        assert events(connection, globex) == events(connection, PLATFORM) == []
        connection.rollback()
        assert events(connection, acme) == []


@pytest.mark.parametrize(
    ("statement", "object_"),
    [
        ("grant select on ward_internal.tenant_keys to public", "ward_internal.tenant_keys"),
        ("grant select on clinic.patients to ward_tenant", "clinic.patients"),
        ("grant select on pg_catalog.pg_stat_activity to public", "pg_stat_activity"),
        ("grant execute on function ward_internal.harden() to ward_tenant", "ward_internal.harden()"),
    ],
)
def test_a_grant_on_what_is_all_tenants_is_the_platforms(
    database: Database, statement: str, object_: str
) -> None:
    with database.admin(autocommit=False) as connection:
        connection.execute(statement)
        (event,) = events(connection, PLATFORM)
        assert [one["object"] for one in event] == [object_]
        connection.execute(statement.replace("grant", "revoke").replace(" to ", " from "))
        (event,) = events(connection, PLATFORM, "revoke")
        # what is revoked on a table is revoked on its columns too
        columns = [
            f"{object_} ({name})"
            for (name,) in connection.execute(
                "select attname from pg_attribute where attrelid = to_regclass(%s) and attacl is not null"
                ' order by attname collate "C"',
                [object_],
            )
        ]
        assert [one["object"] for one in event] == [object_, *columns]
        connection.rollback()


def test_what_wardkey_grants_itself_and_what_is_nobodys_is_no_event(database: Database) -> None:
    slug = database.new_tenant()
    with database.admin(autocommit=False) as connection:
        connection.execute("create role nobodys_reader; create schema nobodys; create table nobodys.t ()")
        connection.execute("grant usage on schema nobodys to nobodys_reader")
        connection.execute("grant select on nobodys.t to nobodys_reader")
        connection.execute("select ward.repair_tenant(%s), ward_internal.harden()", [slug])
        for tenant in (database.tenant_id(slug), database.tenant_id("acme"), PLATFORM):
            assert events(connection, tenant) == events(connection, tenant, "revoke") == []
        connection.rollback()


def test_no_text_of_a_statement_passes_for_wardkeys_own_grant(database: Database) -> None:
    frame = "PL/pgSQL function ward.repair_tenant(text) line 5 at PERFORM"
    grant = "grant select on tenant_acme.patients to public"
    statements = (
        f"do $$ begin {grant} /*\n{frame}\n*/; end $$",
        f"do $$ begin execute '{grant} /*\n{frame}\n*/'; end $$",
        f'create function public."f\n{frame}"() returns void language plpgsql as $$ begin {grant}; end $$;'
        f' select public."f\n{frame}"()',
    )
    for statement in statements:
        with database.admin(autocommit=False) as connection:
            connection.execute(statement)
            assert len(events(connection, database.tenant_id("acme"))) == 1, statement
            connection.rollback()


def test_a_role_of_somebody_else_writes_no_tenants_log(database: Database) -> None:
    with database.admin(autocommit=False) as connection:
        connection.execute(
            "create role another_application; set local session authorization another_application;"
            " alter default privileges grant select on tables to tenant_acme;"
            " reset session authorization"
        )
        assert events(connection, database.tenant_id("acme")) == []
        connection.rollback()


def test_a_grant_whose_event_cannot_be_written_does_not_happen(database: Database) -> None:
    with database.admin() as connection:
        connection.execute(
            "create function public.stop() returns trigger language plpgsql as $$begin raise 'full'; end$$;"
            "create trigger stop before insert on tenant_acme.audit_log"
            " for each row execute function public.stop()"
        )
        with pytest.raises(Exception, match="full"):
            connection.execute("grant select on tenant_acme.patients to public")
        acl = connection.execute(
            "select relacl::text from pg_class where oid = 'tenant_acme.patients'::regclass"
        )
        assert "{=r" not in str(acl.fetchone()) and ",=r" not in str(acl.fetchone())
