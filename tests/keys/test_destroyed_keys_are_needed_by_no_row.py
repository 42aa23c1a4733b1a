"""A key is destroyed when it is retired, its grace is over and no row needs it; then nobody releases it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from wardkey_core import keeper_client as client

from wardkey.embedded import Cluster
from wardkey.errors import KeyDestroyed, KeyInUse, KeyRefused
from wardkey.keys import destroy
from wardkey.keys.kek import Keks
from wardkey.keys.orchestrator import Orchestrator
from wardkey.keys.policy import TenantKeys

from .wards import Ward


@pytest.fixture
def orchestrator(ward: Ward, cluster: Cluster) -> Iterator[Orchestrator]:
    stop = threading.Event()
    with Orchestrator(ward.database.admin, cluster.home.orchestrator, stop) as orchestrator:
        yield orchestrator


@pytest.fixture
def old_rows(ward: Ward) -> list[tuple[Any, ...]]:
    """Rows under version 1, which is retired: what a backup would bring back."""
    saved = ward.query("select id, name, ssn, birth_date from sealed_{slug}.patients where id <= 3")
    ward.rotate()
    assert ward.reseal().retired == (1,)
    return saved


def restore(ward: Ward, rows: list[tuple[Any, ...]]) -> None:
    for row, name, ssn, birth_date in rows:
        ward.query(
            "update sealed_{slug}.patients set name = %s, ssn = %s, birth_date = %s"
            " where id = %s returning id",
            name,
            ssn,
            birth_date,
            row,
        )


def release(ward: Ward, wrapped: dict[str, Any]) -> dict[str, Any]:
    token = ward.database.token(ward.slug)
    return client.ask(
        ward.database.cluster.home.keeper_socket,
        {"op": "release", "token": token, "classes": ["clinical"], **wrapped},
    )


def wrapped_key(ward: Ward, version: int) -> dict[str, Any]:
    """Return what a backup has of a version."""
    ((tenant, kek, kek_version, wrapped, committed),) = ward.query(
        "select k.tenant_id::text, k.kek, k.kek_version, translate(encode(k.wrapped, 'base64'), E'\\n', ''),"
        " encode(k.commitment, 'base64')"
        " from ward_internal.tenant_keys as k join ward_internal.tenants as t on t.id = k.tenant_id"
        " where t.slug = '{slug}' and k.version = %s",
        version,
    )
    key = {"version": version, "kek": kek, "kek_version": kek_version, "wrapped": wrapped}
    return {"tenant": tenant, **key, "commitment": committed}


def tenant_of(orchestrator: Orchestrator, ward: Ward) -> TenantKeys:
    (tenant,) = orchestrator.tenants([ward.slug])
    return tenant


def test_key_that_is_not_retired_is_not_destroyed(ward, orchestrator):
    ward.rotate()
    for version in (1, 2):
        with pytest.raises(KeyInUse):
            orchestrator.destroy(tenant_of(orchestrator, ward), version, now=True)
    assert ward.read() == ward.rows


def test_grace_is_kept_unless_told_otherwise(ward, orchestrator, old_rows):
    tenant = tenant_of(orchestrator, ward)
    with pytest.raises(KeyInUse, match="kept until"):
        orchestrator.destroy(tenant, 1)
    ward.query(
        "update ward_internal.tenant_keys set retired_at = retired_at - interval '30 days' returning version"
    )
    (due,) = orchestrator.due(tenant_of(orchestrator, ward))
    assert (due.action, due.version) == ("destroy", 1)
    orchestrator.destroy(tenant, 1)
    assert ward.states() == {1: "destroyed", 2: "active"}


def test_destroyed_key_is_released_by_nobody_even_from_a_backup(ward, orchestrator, old_rows):
    backup = wrapped_key(ward, 1)
    assert release(ward, backup)["classes"]["clinical"]
    orchestrator.destroy(tenant_of(orchestrator, ward), 1, now=True)
    with pytest.raises(KeyDestroyed):
        release(ward, backup)
    assert (
        ward.query(
            "select wrapped from ward_internal.tenant_keys where version = 1 and wrapped is not null"
            " and tenant_id = (select id from ward_internal.tenants where slug = '{slug}')"
        )
        == []
    )
    assert ward.is_whole()
    assert [kind for kind, _ in ward.events("destroyed")] == ["destroyed"]


def test_rows_that_came_back_from_a_backup_hold_their_key(ward, orchestrator, old_rows):
    restore(ward, old_rows)
    with pytest.raises(KeyInUse):
        orchestrator.destroy(tenant_of(orchestrator, ward), 1, now=True)
    ward.query("select ward.readmit_key('{slug}', 1, 'rows were restored')")
    assert ward.read() == ward.rows
    assert ward.reseal().retired == (1,)
    assert ward.is_whole()
    orchestrator.destroy(tenant_of(orchestrator, ward), 1, now=True)
    assert ward.read() == ward.rows


def test_destroying_is_repeated_without_harm_when_it_was_cut_short(ward, orchestrator, old_rows, monkeypatch):
    """Killed between the keeper's tombstone and the commit."""

    class Killed(BaseException):
        pass

    ask = client.ask

    def killed(*arguments: Any) -> dict[str, Any]:
        ask(*arguments)
        raise Killed

    tenant = tenant_of(orchestrator, ward)
    with monkeypatch.context() as patch:
        patch.setattr(destroy.client, "ask", killed)
        with pytest.raises(Killed):
            orchestrator.destroy(tenant, 1, now=True)
    assert ward.states()[1] == "retired"
    assert ward.read() == ward.rows
    orchestrator.destroy(tenant, 1, now=True)
    orchestrator.destroy(tenant, 1, now=True)
    assert ward.states()[1] == "destroyed"
    assert ward.is_whole()


def test_keeper_that_refuses_leaves_the_key_as_it_was(ward, orchestrator, old_rows, monkeypatch):
    def refuse(*arguments: Any) -> dict[str, Any]:
        raise KeyRefused("you may not")

    tenant = tenant_of(orchestrator, ward)
    with monkeypatch.context() as patch:
        patch.setattr(destroy.client, "ask", refuse)
        with pytest.raises(KeyRefused):
            orchestrator.destroy(tenant, 1, now=True)
    assert ward.states()[1] == "retired"
    assert release(ward, wrapped_key(ward, 1))["classes"]["clinical"]


def test_kek_versions_are_destroyed_after_their_grace_and_backups_open_until_then(
    ward, orchestrator, cluster
):
    backup, tenant = wrapped_key(ward, 1), tenant_of(orchestrator, ward)
    orchestrator.rewrap([tenant], ward.slug, lambda result: None)
    keks = Keks(cluster.home.orchestrator, cluster.home.keeper_socket)

    def states() -> list[str]:
        return [version.state for version in keks.versions(tenant.id)]

    assert orchestrator.destroy_keks(tenant.id) == ()
    assert states() == ["disabled", "enabled"]
    assert tenant.id not in orchestrator.keks_to_destroy()
    ward.query("select ward.set('grace', '0')")
    with Orchestrator(ward.database.admin, cluster.home.orchestrator, threading.Event()) as later:
        assert tenant.id in later.keks_to_destroy()
    (kek,) = orchestrator.destroy_keks(tenant.id, now=True)
    assert (kek.version, states()) == ("1", ["destroyed", "enabled"])
    assert orchestrator.destroy_keks(tenant.id, now=True) == ()
    cluster.restart_keeper()
    with pytest.raises(KeyRefused):
        release(ward, backup)
    assert ward.read() == ward.rows


def test_kek_version_in_use_is_never_destroyed(ward, orchestrator):
    """Whatever was noted of it: the registry decides."""
    tenant = tenant_of(orchestrator, ward)
    key = tenant.keys[0]
    ward.query(
        "select ward_internal.register_kek(%s, %s, %s, 'disabled')", tenant.id, key.kek, key.kek_version
    )
    with ward.database.admin() as connection:
        keks = Keks(ward.database.cluster.home.orchestrator, ward.database.cluster.home.keeper_socket)
        assert destroy.destroy_keks(connection, keks, tenant.id, timedelta()) == ()
    assert ward.read() == ward.rows
