"""``ward.repair_tenant`` makes again what a ward lacks, and leaves its rows and its role's password alone."""

from __future__ import annotations

import pytest

from tests.support.database import Database

DAMAGE = {
    "trigger": "drop trigger patients_write on {ward}.patients",
    "function": "drop function {ward}.patients_write_{slug}() cascade",
    "face": "drop view {ward}.patients",
    "owner of the face": "alter view {ward}.patients owner to postgres",
    "grants": "revoke all on {ward}.patients from {ward}",
    "usage of the schema": "revoke all on schema {ward} from {ward}",
    "membership": "revoke ward_tenant from {ward}",
    "settings": "alter role {ward} in database {database} reset all",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_missing_is_made_again(database: Database, damage: str) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, subject="tester") as inside:
        inside.execute("insert into patients (name) values ('Ann')")
    with database.admin() as admin:
        admin.execute(DAMAGE[damage].format(ward=f"tenant_{slug}", slug=slug, database=database.name))
        admin.execute("select ward.repair_tenant(%s)", [slug])
        owners = admin.execute(
            "select distinct relowner::regrole::text from pg_class where relnamespace = %s::regnamespace",
            [f"tenant_{slug}"],
        ).fetchall()
        open_to_public = admin.execute(
            "select count(*) from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl"
            " where pronamespace = %s::regnamespace and acl.grantee = 0",
            [f"tenant_{slug}"],
        ).fetchone()
        settings = admin.execute(
            "select setconfig from pg_db_role_setting where setrole = %s::regrole", [f"tenant_{slug}"]
        ).fetchone()
    assert owners == [("ward_owner",)]
    assert open_to_public == (0,)
    assert settings is not None and "log_min_messages=fatal" in settings[0]
    with database.tenant(slug, subject="tester") as inside:
        assert inside.execute("select name from patients").fetchall() == [("Ann",)]
        inside.execute("update patients set name = 'Anna'")
        inside.execute("insert into patients (name) values ('Bea')")
        assert inside.execute("select name from patients order by id").fetchall() == [("Anna",), ("Bea",)]
