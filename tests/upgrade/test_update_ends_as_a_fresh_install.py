"""``alter extension wardkey update`` re-runs all replaceable objects and privileges, and loses nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
import wardkey_pg

from tests.support.catalog import catalog
from tests.support.database import Database
from tests.support.dumps import empty_database
from tests.upgrade.conftest import Aged
from wardkey.embedded import Cluster
from wardkey.embedded.issuer import embedded_issuer
from wardkey.install import migrations
from wardkey.install.extension import prepare_extension
from wardkey.tenants import provisioning as tenants

_FACE = """
    select pg_get_viewdef('{0}.patients'::regclass),
      (select pg_get_functiondef(oid) from pg_proc
        where proname ~ '^patients_write' and pronamespace = '{0}'::regnamespace),
      (select relacl::text from pg_class where oid = '{0}.patients'::regclass)"""


@pytest.fixture
def updated(cluster: Cluster) -> Iterator[Database]:
    with empty_database(cluster) as database:
        yield database


@pytest.fixture
def fresh(cluster: Cluster) -> Iterator[Database]:
    with empty_database(cluster) as database:
        yield database


def _install(database: Database, version: str) -> None:
    with database.admin() as admin:
        admin.execute("create extension plpython3u")
        admin.execute(f"create extension wardkey version '{version}'")


def test_catalog_is_that_of_a_fresh_install(aged: Aged, updated: Database, fresh: Database) -> None:
    _install(updated, aged.version)
    _install(fresh, wardkey_pg.__version__)
    with updated.admin() as after, fresh.admin() as target:
        wanted, before = catalog(target), catalog(after)
        different = {kind for kind in wanted if before[kind] != wanted[kind]}
        # each kind that the earlier version differs in is one that this test would notice
        assert {"functions", "PostgreSQL's own relations"} <= different
        after.execute("alter extension wardkey update")
        assert catalog(after) == wanted
        after.execute("alter extension wardkey update")  # nothing to do
        assert catalog(after) == wanted


def test_wards_are_updated_and_data_opens(aged: Aged, updated: Database) -> None:
    _install(updated, aged.version)
    with updated.admin() as admin:
        admin.execute("select ward.set('keeper_socket', %s)", [str(updated.cluster.home.keeper_socket)])
        embedded_issuer(admin, updated.cluster.home)
        admin.execute("create schema clinic")
        admin.execute("create table clinic.patients (id int primary key, name text)")
        admin.execute("select ward.protect('clinic.patients', seal => '{name}')")
        old = f"old{os.getpid()}"
        role = f"tenant_{old}"
        admin.execute("select ward.create_tenant(%s)", [old])
        admin.execute(f"alter role {role} password 'of the test'")
    remember = tenants.passfile_keeper(updated.cluster.home.pgpass)
    remember(role, "of the test")
    with updated.tenant(old, role="ADMIN") as ward:
        ward.execute("insert into patients values (1, 'Ada')")
    with updated.admin() as admin:
        query = "select * from ward_internal.tenant_keys"
        keys = admin.execute(query).fetchall()
        before = admin.execute(_FACE.format(role)).fetchone()
        said = prepare_extension(admin)
        assert said and aged.version in said and wardkey_pg.__version__ in said
        after = admin.execute(_FACE.format(role)).fetchone()
        assert before and after and "COST 7" in before[1] and "COST 7" not in after[1]
        assert prepare_extension(admin) is None
        assert admin.execute(query).fetchall() == keys != []
        new = updated.new_tenant()
    with updated.tenant(old, role="ADMIN") as ward:
        ward.execute("insert into patients values (2, 'Bob')")
        assert ward.execute("select name from patients order by id").fetchall() == [("Ada",), ("Bob",)]
    with updated.tenant(new, role="ADMIN") as ward:
        ward.execute("insert into patients values (1, 'Eve')")
    with updated.admin() as admin:
        admin.execute("select ward.rotate_key(%s, 'first')", [old])
        admin.execute("select ward_internal.reseal(%s, (select id from ward.models), 0, 100)", [old])
        assert admin.execute("select ward.retire_keys(%s)", [old]).fetchone() == ([1],)
    with updated.tenant(old, role="ADMIN") as ward:
        assert ward.execute("select name from patients order by id").fetchall() == [("Ada",), ("Bob",)]
    with updated.admin() as admin:
        admin.execute("select ward.suspend_tenant(%s)", [old])
    with updated.tenant(old) as ward, pytest.raises(psycopg.Error) as refused:
        ward.execute("select ward.login(%s)", [updated.token(old)])
    assert refused.value.sqlstate == "WK005"


def test_migrate_updates_the_extension(aged: Aged, updated: Database) -> None:
    _install(updated, aged.version)
    result = migrations.migrate(updated.dsn())
    assert result.extension == wardkey_pg.__version__
    with updated.admin() as admin:
        assert admin.execute("select count(*) from ward.models").fetchone() == (4,)
