"""The test databases: a template made once per cluster, clones of it, connections and tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from wardkey.embedded import Cluster
from wardkey.embedded.issuer import EmbeddedIssuer, embedded_issuer
from wardkey.identity import issuers
from wardkey.tenants import provisioning as tenants

TEMPLATE = "ward_template"
TENANTS = ("acme", "globex")
_numbers = count(1)

Connection = psycopg.Connection[tuple[Any, ...]]


def parallel_mode(value: str, *, local: bool = False) -> str:
    """Return the statement that sets what is called force_parallel_mode in 15, debug_parallel_query later."""
    names = "('force_parallel_mode', 'debug_parallel_query')"
    return f"select set_config(name, '{value}', {local}) from pg_settings where name in {names}"


@dataclass(frozen=True)
class Database:
    """One test's database."""

    cluster: Cluster
    name: str

    def dsn(self, user: str = "postgres") -> str:
        return self.cluster.dsn(self.name, user)

    def tcp_dsn(self, user: str) -> str:
        """The DSN over TCP; not for the superuser, who comes through the socket only."""
        return make_conninfo(self.dsn(user), host="127.0.0.1")

    def admin(self, *, autocommit: bool = True) -> Connection:
        """Connect as superuser."""
        return psycopg.connect(self.dsn(), autocommit=autocommit)

    def tenant(self, slug: str, **claims: Any) -> Connection:
        """Connect as a tenant's login role; with ``subject`` or ``role``, logged in for the session."""
        connection = psycopg.connect(self.dsn(f"tenant_{slug}"), autocommit=True)
        if claims:
            connection.execute("select ward.login_session(%s)", [self.token(slug, **claims)])
        return connection

    def token(
        self,
        slug: str,
        subject: str = "tester",
        role: str = "ADMIN",
        lifetime: float = 900,
        purpose: str | None = None,
        **further: str,
    ) -> str:
        """Sign a token of the embedded issuer, with further claims."""
        return self.issuer.sign_token(self.tenant_id(slug), subject, role, lifetime, purpose, further)

    @property
    def issuer(self) -> EmbeddedIssuer:
        config = self.cluster.home.config()
        assert config is not None
        return EmbeddedIssuer.open(self.cluster.home.issuer, config.id)

    def tenant_id(self, slug: str) -> UUID:
        with self.admin() as connection:
            return issuers.tenant_id(connection, slug)

    def new_tenant(self, slug: str | None = None) -> str:
        """Make a tenant of this test's own and return its slug. Its role goes with the database."""
        slug = slug or f"t{os.getpid()}_{next(_numbers)}"
        with self.admin(autocommit=False) as connection:
            tenants.create(connection, slug, None, tenants.passfile_keeper(self.cluster.home.pgpass))
        return slug


def make_template(cluster: Cluster) -> str:
    """Make the template unless that is done."""
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
        done = "select datistemplate from pg_database where datname = %s"
        if connection.execute(done, [TEMPLATE]).fetchone() == (True,):
            return TEMPLATE
        connection.execute(f"drop database if exists {TEMPLATE} with (force)")
        connection.execute(f"create database {TEMPLATE}")
        _load(cluster)
        connection.execute(f"alter database {TEMPLATE} is_template true")
    return TEMPLATE


def _load(cluster: Cluster) -> None:
    with psycopg.connect(cluster.dsn(TEMPLATE)) as connection:
        connection.execute("create extension wardkey cascade")
        connection.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])
        embedded_issuer(connection, cluster.home)
        connection.execute(Path(__file__).with_name("clinic.sql").read_bytes())
        for slug in TENANTS:
            tenants.create(connection, slug, slug.title(), tenants.passfile_keeper(cluster.home.pgpass))


@contextmanager
def clone(cluster: Cluster, template: str) -> Iterator[Database]:
    """Yield a clone of ``template``; it goes afterwards, with the roles its test made.

    The KEKs of acme and globex are those of every clone: a test that changes them is told so, for others
    would fail, and only when the keeper next asks its KMS for them.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with temporary(cluster, name, template) as database, _same_keks(cluster, template):
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
            for (statement,) in connection.execute(_NOT_CLONED, {"of": template, "to": database.name}):
                connection.execute(statement)
        yield database


@cache
def _ids(cluster: Cluster, template: str) -> list[UUID]:
    return [Database(cluster, template).tenant_id(slug) for slug in TENANTS]


@contextmanager
def _same_keks(cluster: Cluster, template: str) -> Iterator[None]:
    files = [cluster.home.keeper / "kek" / f"{tenant}.json" for tenant in _ids(cluster, template)]
    before = [file.read_bytes() for file in files]
    yield
    assert [file.read_bytes() for file in files] == before, f"this test changed the KEKs of {TENANTS}"


@contextmanager
def temporary(cluster: Cluster, name: str, template: str) -> Iterator[Database]:
    """Make a database; it goes afterwards, with the roles of tenants that are in no other."""
    try:
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
            # not through the WAL, which the scribe of the cluster would read
            connection.execute(f"create database {name} template {template} strategy file_copy")
        yield Database(cluster, name)
    finally:
        with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
            roles = connection.execute(_ROLES, [name]).fetchall()
            _wait_until_unread(connection, name)
            connection.execute(f"drop database if exists {name} with (force)")
            for (role,) in roles:
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def _wait_until_unread(connection: Connection, name: str) -> None:
    """Wait for walsenders whose readers have ended: FORCE ends none of them, and they keep the database."""
    deadline = time.monotonic() + 60
    active = "select from pg_replication_slots where database = %s and active"
    while connection.execute(active, [name]).rowcount and time.monotonic() < deadline:
        time.sleep(0.01)


# What PostgreSQL keeps of a database outside it: privileges on it, settings of roles in it.
_NOT_CLONED = """
    select format('revoke all on database %%I from public', %(to)s::text)
    union all
    select format('grant connect on database %%I to %%s', %(to)s::text, grantee::regrole)
    from pg_database, aclexplode(datacl)
    where datname = %(of)s and privilege_type = 'CONNECT' and grantee not in (0, datdba)
    union all
    select format('alter role %%I in database %%I set %%I = %%s', rolname, %(to)s::text, name,
      case name when 'search_path' then value else quote_literal(value) end)
    from pg_db_role_setting join pg_roles on pg_roles.oid = setrole, unnest(setconfig) as setting,
      split_part(setting, '=', 1) as name, substr(setting, strpos(setting, '=') + 1) as value
    where setdatabase = (select oid from pg_database where datname = %(of)s)"""
_ROLES = """
    select rolname from pg_roles as r, pg_database as d
    where d.datname = %s and rolname like 'tenant!_%%' escape '!'
      and exists (select from pg_shdepend where refobjid = r.oid and dbid = d.oid)
      and not exists (select from pg_shdepend where refobjid = r.oid and dbid not in (0, d.oid))"""
