"""The registry has no foreign keys (pg_restore loads it in any order): what belongs to a row goes with it."""

from __future__ import annotations

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
