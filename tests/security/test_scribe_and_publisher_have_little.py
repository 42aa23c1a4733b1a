"""Each service works as a role of its own, which can do what it has to and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.scribe.scribes import PLATFORM, drop_slot, new_tenant, wait_for, wait_signed, write
from tests.support.database import Connection, Database
from wardkey.embedded import Cluster

FORBIDDEN = {
    "ward_scribe": (
        "update ward_internal.audit_log set subject = 'x'",
        "delete from ward_internal.audit_log",
        "truncate ward_internal.audit_log",
        "update ward_internal.audit_checkpoints set size = 0",
        "delete from ward_internal.audit_batches",
        "select from ward_internal.tenant_keys",
        "select from ward_internal.issuers",
        "select from clinic.patients",
        "select from tenant_acme.patients",
        "select from sealed_acme.patients",
        "insert into ward_internal.settings values ('keeper_socket', '/tmp/x')",
        "select ward.set('keeper_socket', '/tmp/x')",
        "select ward.login('x')",
        "create table public.x ()",
        "create role x",
        "select pg_read_file('/etc/passwd')",
        "copy (select) to program 'true'",
        "set role ward_owner",
    ),
    "ward_invalidator": (
        "select secret from ward_internal.cache_state",
        "update ward_internal.cache_state set url = 'redis://elsewhere'",
        "select from ward_internal.audit_log",
        "select from ward_internal.tenant_keys",
        "select from tenant_acme.patients",
        "select ward.login('x')",
        "select ward.set_cache(null)",
        "create table public.x ()",
        "set role ward_owner",
    ),
    "ward_metrics": (
        "select from ward_internal.audit_log",
        "select wrapped from ward_internal.tenant_keys",
        "select name from ward_internal.tenants",
        "select subject from ward_internal.break_glass",
        "select document from ward_internal.baas",
        "select from ward_internal.issuers",
        "insert into ward_internal.counts values (gen_random_uuid(), 'x', '', 1)",
        "update ward_internal.metrics_tokens set sha256 = sha256",
        "insert into ward_internal.settings values ('keeper_socket', '/tmp/x')",
        "select ward.set_metrics_token(null, ''::bytea)",
        "select from tenant_acme.patients",
        "select ward.login('x')",
        "select pg_create_logical_replication_slot('x', 'pgoutput')",
        "create table public.x ()",
        "set role ward_owner",
    ),
    "ward_publisher": (
        "insert into ward_internal.audit_log (kind, operation) values ('e', 'x')",
        "update ward_internal.audit_log set subject = 'x'",
        "delete from ward_internal.audit_topics",
        "select from ward_internal.tenant_keys",
        "select from tenant_acme.patients",
        "select pg_create_logical_replication_slot('x', 'pgoutput')",
        "select ward.login('x')",
        "select ward_internal.set_audit_slot('x')",
        "create table public.x ()",
        "set role ward_owner",
    ),
}


@pytest.fixture
def server(cluster: Cluster) -> Iterator[Connection]:
    """The embedded server's own database, where its scribe works."""
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize(
    ("role", "statement"), [(role, each) for role, every in FORBIDDEN.items() for each in every]
)
def test_they_may_not(database: Database, role: str, statement: str) -> None:
    with database.admin() as connection:
        connection.execute(f"set session authorization {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


def test_the_scribe_works_without_superuser(cluster: Cluster, server: Connection) -> None:
    """It seals, has checkpoints signed, makes months, and makes its slot and publications again."""
    tenant = new_tenant(server)
    write(server, tenant, 3)
    wait_signed(server, tenant, 3, seconds=60)
    used = server.execute(
        "select distinct usename, usesuper from pg_stat_activity join pg_user using (usename)"
        " where application_name = 'wardkey scribe'"
    ).fetchall()
    assert used == [("ward_scribe", False)]
    gaps = "select count(*) from ward_internal.audit_log where tenant_id = %s and operation = 'journal_gap'"
    for number, change in enumerate(
        ("", "drop publication wardkey_audit"), (server.execute(gaps, [PLATFORM]).fetchone() or (0,))[0] + 1
    ):
        if change:
            server.execute(change)
        else:
            drop_slot(server, "wardkey_audit")
        wait_for(server, number, gaps, PLATFORM, seconds=60)
    write(server, tenant, 1)
    wait_signed(server, tenant, 4, seconds=60)


@pytest.mark.skipif(os.geteuid() != 0, reason="another OS user cannot become the scribe's")
def test_the_scribe_cannot_copy_the_whole_cluster(cluster: Cluster) -> None:
    """REPLICATION would do for that: pg_hba.conf lets it replicate its database logically only."""
    psql = cluster.software.program("psql")

    def ask(replication: str) -> subprocess.CompletedProcess[str]:
        dsn = f"{cluster.dsn(user='ward_scribe')} replication={replication}"
        command = cluster.home.scribe_user().command([psql, dsn, "-c", "IDENTIFY_SYSTEM"])
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")

    assert ask("database").returncode == 0
    physical = ask("yes")
    assert physical.returncode != 0 and "pg_hba.conf rejects replication connection" in physical.stderr
