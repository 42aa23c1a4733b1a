"""Keys of mode derived rotate, their master secret is rewrapped and replaced, and rows read on.

On a server of its own: the master secret's KEK is one for all databases of a keeper.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.database import Database
from wardkey.errors import KeyInUse
from wardkey.keys.orchestrator import Orchestrator, Request
from wardkey.keys.policy import TenantKeys
from wardkey.keys.run import Throttle
from wardkey.tenants import provisioning as tenants

from .wards import Ward


@pytest.fixture
def orchestrator(own_database: Database) -> Iterator[Orchestrator]:
    directory = own_database.cluster.home.orchestrator
    with Orchestrator(own_database.admin, directory, threading.Event()) as orchestrator:
        yield orchestrator


@pytest.fixture
def ward(own_database: Database, request: pytest.FixtureRequest) -> Ward:
    slug = f"derived_{abs(hash(request.node.name)) % 10**6}"
    with own_database.admin() as connection:
        passwords = tenants.passfile_keeper(own_database.cluster.home.pgpass)
        tenants.create(connection, slug, None, passwords, mode="derived")
    return Ward(own_database, slug).fill(300)


def test_rows_read_on_when_the_master_is_rewrapped(ward, orchestrator):
    before = master(orchestrator).active
    results: list[Any] = []
    orchestrator.rewrap([master(orchestrator)], "master", results.append)
    after = master(orchestrator).active
    assert [result.trouble for result in results] == [None]
    assert before and after and int(after.kek_version) > int(before.kek_version)
    forget(ward)
    assert ward.read() == ward.rows


def test_tenant_rotates_under_the_same_master(ward, orchestrator):
    ward.rotate()
    assert ward.reseal().retired == (1,)
    assert ward.is_whole()


def test_old_master_goes_when_no_key_derives_from_it(ward, orchestrator):
    old = master(orchestrator).active
    assert old
    new = orchestrator.rotate(master(orchestrator), Request("test"))
    forget(ward)
    assert ward.read() == ward.rows
    for tenant in orchestrator.tenants():
        if tenant.mode == "derived":
            orchestrator.rotate(tenant, Request("test"))
            orchestrator.reseal(str(tenant.slug), Throttle(share=1.0), 5, lambda progress: None)
    assert ward.is_whole()
    with pytest.raises(KeyInUse):
        orchestrator.destroy(master(orchestrator), old.version, now=True)
    for tenant in orchestrator.tenants():
        for key in tenant.keys:
            if key.kek == "master" and key.kek_version == str(old.version) and key.state != "destroyed":
                orchestrator.destroy(tenant, key.version, now=True)
    states = {key.version: key.state for key in master(orchestrator).keys}
    assert (states[old.version], states[new]) == ("retired", "active")
    orchestrator.destroy(master(orchestrator), old.version, now=True)
    forget(ward)
    assert ward.read() == ward.rows


def master(orchestrator: Orchestrator) -> TenantKeys:
    (facts,) = orchestrator.tenants([], master=True)
    return facts


def forget(ward: Ward) -> None:
    """Let no key be known but to the KMS."""
    assert ward.database.cluster.restart_keeper()
