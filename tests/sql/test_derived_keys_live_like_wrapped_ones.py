"""Mode derived: data keys of a master secret; tenants rotate, the master rotates and is rewrapped."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire, rotate, states
from tests.support.sqlstate import refused
from wardkey.tenants import provisioning as tenants

_MASTER = "00000000-0000-0000-0000-000000000000"
_KEYS = "select version, state from ward.keys where tenant_id = %s order by version"


@pytest.fixture
def derived(database: Database) -> str:
    slug = f"d{database.name}"
    with database.admin(autocommit=False) as admin:
        admin.execute("select ward.create_tenant(%s, p_mode => 'derived')", [slug])
        tenants.set_password(admin, slug, tenants.passfile_keeper(database.cluster.home.pgpass))
    with database.tenant(slug, role="ADMIN") as ward:
        ward.execute("insert into patients (name) values ('Ada')")
    return slug


def _names(database: Database, slug: str) -> list[str]:
    with database.tenant(slug, role="ADMIN") as ward:
        return [name for (name,) in ward.execute("select name from patients order by id").fetchall()]


def test_rows_open_through_every_rotation(database: Database, postgresql: Connection, derived: str) -> None:
    assert _names(database, derived) == ["Ada"]
    query = "select mode, kek, kek_version from ward.keys where slug = %s"
    assert postgresql.execute(query, [derived]).fetchall() == [("derived", "master", "1")]
    assert rotate(postgresql, derived) == 2
    assert _names(database, derived) == ["Ada"]
    reseal(postgresql, derived)
    assert retire(postgresql, derived) == [1]
    assert _names(database, derived) == ["Ada"]
    assert postgresql.execute("select ward.rotate_master('a year is over')").fetchone() == (2,)
    assert _names(database, derived) == ["Ada"]  # derived of the former master, which is still wrapped
    rotate(postgresql, derived)
    reseal(postgresql, derived)
    assert retire(postgresql, derived) == [2]
    assert _names(database, derived) == ["Ada"]
    assert postgresql.execute(_KEYS, [_MASTER]).fetchall() == [(1, "decrypt-only"), (2, "active")]
    for version in (1, 2):
        postgresql.execute("select ward.destroy_key(%s, %s, true)", [derived, version])
    assert postgresql.execute(_KEYS, [_MASTER]).fetchall() == [(1, "retired"), (2, "active")]
    postgresql.execute("select ward.destroy_key(null, 1, true)")
    assert postgresql.execute(_KEYS, [_MASTER]).fetchall() == [(1, "destroyed"), (2, "active")]
    assert _names(database, derived) == ["Ada"]
    assert states(postgresql, derived) == {1: "destroyed", 2: "destroyed", 3: "active"}


def test_a_derived_key_is_not_rewrapped_its_master_is(
    database: Database, postgresql: Connection, derived: str
) -> None:
    tenant = database.tenant_id(derived)
    assert postgresql.execute("select ward_internal.rewrap_key(%s, 1)", [tenant]).fetchone() == (False,)
    assert postgresql.execute("select ward_internal.rewrap_key(%s, 1)", [_MASTER]).fetchone() == (False,)


def test_a_tenant_that_takes_anothers_salt_gets_nothing(
    database: Database, postgresql: Connection, derived: str
) -> None:
    postgresql.execute(
        "update ward_internal.tenant_keys set wrapped = set_byte(wrapped, 0, get_byte(wrapped, 0) # 1)"
        " where tenant_id = %s",
        [database.tenant_id(derived)],
    )
    postgresql.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")
    with refused("WK105"):
        _names(database, derived)


def test_no_other_mode(postgresql: Connection) -> None:
    for arguments in ("'x1', p_mode => 'plain'", "'x1', p_mode => null", f"'x1', p_id => '{_MASTER}'"):
        with pytest.raises(psycopg.Error) as failed:
            postgresql.execute(f"select ward.create_tenant({arguments})")
        assert failed.value.sqlstate == "WK209"
