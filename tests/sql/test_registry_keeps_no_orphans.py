"""The registry has no foreign keys (pg_restore loads it in any order): what belongs to a row goes with it."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.database import Database

_ORPHANS = """
    select
      (select count(*) from ward_internal.tenant_keys
        where tenant_id not in (select id from ward_internal.tenants)),
      (select count(*) from ward_internal.sealed_columns
        where model_id not in (select id from ward_internal.models))"""


def test_keys_go_with_their_tenant(database: Database) -> None:
    slug = database.new_tenant()
    with database.admin() as admin:
        keys = admin.execute("select count(*) from ward_internal.tenant_keys").fetchone()
        admin.execute("select ward.drop_tenant(%s, %s)", [slug, slug])
        assert keys == (3,)
        assert admin.execute("select count(*) from ward_internal.tenant_keys").fetchone() == (2,)
        assert admin.execute(_ORPHANS).fetchone() == (0, 0)


def test_sealed_columns_go_with_their_model_or_column(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("alter table clinic.patients drop column ssn cascade")
        names = admin.execute(
            "select array_agg(name order by name) from ward_internal.sealed_columns"
        ).fetchone()
        assert names == (["birth_date", "name"],)
        admin.execute("select ward.unprotect('clinic.patients')")
        assert admin.execute("select count(*) from ward_internal.sealed_columns").fetchone() == (0,)
        assert admin.execute(_ORPHANS).fetchone() == (0, 0)


def test_a_dropped_model_table_leaves_nothing_and_tenants_are_made_without_it(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("drop schema clinic cascade")
        assert admin.execute("select count(*) from ward_internal.models").fetchone() == (0,)
        assert admin.execute("select count(*) from ward_internal.shares").fetchone() == (0,)
        assert admin.execute(_ORPHANS).fetchone() == (0, 0)
        left = admin.execute(
            "select array_agg(relname) from pg_class where relnamespace = 'ward_model'::regnamespace"
        ).fetchone()
        assert left == (None,)
    slug = database.new_tenant()
    with database.admin() as admin:
        assert admin.execute(
            "select count(*) from pg_class where relnamespace = %s::regnamespace and relname !~ '^audit_log'",
            [f"tenant_{slug}"],
        ).fetchone() == (0,)


def test_a_shape_is_not_dropped_under_its_model(database: Database) -> None:
    with database.admin() as admin:
        with pytest.raises(psycopg.Error) as refused:
            admin.execute("drop table ward_model.clinic__patients")
        assert refused.value.sqlstate == "WK209"
        assert "ward.unprotect" in str(refused.value.diag.message_hint)
