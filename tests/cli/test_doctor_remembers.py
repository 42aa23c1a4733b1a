"""What was not there at the doctor's last run, and is in no audit log, it finds until it is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database, clone
from wardkey.doctor import Problem, Server, checks, remember
from wardkey.embedded import Cluster

BY_HAND = {
    "tenant byhand": "insert into ward_internal.tenants (slug, name, schema_name, login_role)"
    " values ('byhand', '', 'tenant_byhand', 'tenant_byhand')",
    "tenant acme": "update ward_internal.tenants set status = 'suspended' where slug = 'acme'",
    "key 1 of acme": "update ward_internal.tenant_keys as k set wrapped = o.wrapped"
    " from ward_internal.tenants as t, ward_internal.tenant_keys as o"
    " where t.id = k.tenant_id and t.slug = 'acme' and o.tenant_id <> k.tenant_id",
    "key 2 of acme": "insert into ward_internal.tenant_keys"
    " (tenant_id, version, state, kek, kek_version, wrapped, commitment, reason)"
    " select tenant_id, 2, 'retired', kek, kek_version, wrapped, commitment, reason"
    " from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id"
    " where slug = 'acme'",
    "model byhand": "insert into ward_internal.models (relation, shape, face, row_form)"
    " values (123, 124, 'byhand', 't')",
    "model patients": "update ward_internal.models set audit = 'off', audit_reason = 'x'",
    "sealed column city of patients": "insert into ward_internal.sealed_columns (model_id, name)"
    " select id, 'city' from ward_internal.models",
    "issuer byhand": "insert into ward_internal.issuers (issuer, document)"
    " values ('byhand', '{\"issuer\": \"byhand\"}')",
    "setting grace": "insert into ward_internal.settings values ('grace', '1')",
    "share pg_class": "insert into ward_internal.shares values ('pg_class')",
}
BY_FUNCTION = (
    "select ward.set('grace', '7')",
    "select ward.suspend_tenant('acme')",
    "select ward.resume_tenant('acme')",
    "select ward.rotate_key('acme', 'test')",
    "select ward.set_audit('clinic.patients', 'statement')",
    "create table clinic.more (id int primary key, note text)",
    "select ward.protect('clinic.more', seal => '{note}')",
    "drop table clinic.more cascade",
)


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        yield database


@pytest.fixture
def server(database: Database, tmp_path: Path) -> Iterator[Server]:
    """One that was looked at before; what the test does to it is rolled back."""
    with database.admin(autocommit=False) as connection:
        server = Server(connection, memory=tmp_path / "doctor.json")
        remember(server)
        connection.rollback()
        yield server
        connection.rollback()


def look(server: Server) -> list[Problem]:
    (members,) = [members for theme, members in checks().items() if theme == "since the last run"]
    return [problem for check in members for problem in check.run("", server).problems]


def test_what_functions_of_wardkey_do_is_accounted_for(server: Server) -> None:
    assert look(server) == []
    for statement in BY_FUNCTION:
        server.connection.execute(statement)
    assert look(server) == []
    remember(server)
    assert look(server) == []


@pytest.mark.parametrize("name", BY_HAND)
def test_rows_changed_by_hand_are_found_until_accepted(name: str, server: Server) -> None:
    server.connection.execute(BY_HAND[name])
    assert [problem.object for problem in look(server)] == [name]
    remember(server)
    assert [problem.object for problem in look(server)] == [name]
    remember(server, accept=True)
    assert look(server) == []


def test_rows_deleted_by_hand_are_found(server: Server) -> None:
    server.connection.execute("delete from ward_internal.tenants where slug = 'acme'")
    server.connection.execute("delete from ward_internal.tenant_keys")
    problems = {(problem.object, problem.detail.partition(",")[0]) for problem in look(server)}
    assert problems >= {
        ("tenant acme", "is gone"),
        ("key 1 of acme", "is gone"),
        ("key 1 of globex", "is gone"),
    }


@pytest.mark.parametrize("power", ["superuser", "bypassrls", "replication", "createrole"])
def test_new_powers_are_found_until_accepted(power: str, server: Server) -> None:
    server.connection.execute(f"create role wk_mighty {power}")
    (problem,) = look(server)
    assert (problem.object, power.upper() in problem.detail) == ("wk_mighty", True)
    remember(server)
    assert look(server) == [problem]
    with server.connection.transaction(force_rollback=True):
        server.connection.execute(problem.fix or "")
        assert look(server) == []
    remember(server, accept=True)
    assert look(server) == []


def test_a_first_run_finds_nothing(server: Server, tmp_path: Path) -> None:
    server.connection.execute(BY_HAND["setting grace"])
    assert look(Server(server.connection, memory=tmp_path / "another.json")) == []


def test_another_database_is_not_meant(
    database: Database, server: Server, cluster: Cluster, template: str
) -> None:
    with clone(cluster, template) as other, psycopg.connect(other.dsn()) as connection:
        connection.execute("select ward.set('grace', '9')")
        assert look(Server(connection, memory=server.memory)) == []
