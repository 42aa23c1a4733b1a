"""KEKs rotate, data keys are wrapped again, old versions are disabled; an interrupted run continues."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.embedded import Cluster
from wardkey.errors import KeyRefused, RotationRunning
from wardkey.keys import rewrap
from wardkey.keys.kek import Keks
from wardkey.keys.orchestrator import Orchestrator
from wardkey.kms import KekRef


class Killed(BaseException):
    """As kill -9 would: nothing catches it on its way."""


class Wards:
    """Three tenants of one database, and their KEKs as the KMS knows them."""

    def __init__(self, database: Database, cluster: Cluster) -> None:
        self.database, self.cluster = database, cluster
        self.slugs = [database.new_tenant() for _ in range(3)]
        self.ids = {slug: database.tenant_id(slug) for slug in self.slugs}
        self.keks = Keks(cluster.home.orchestrator, cluster.home.keeper_socket)
        for slug in self.slugs:
            with database.tenant(slug, subject="me", role="ADMIN") as connection:
                connection.execute("insert into patients (name, ssn) values ('Ann', '999')")

    @contextmanager
    def orchestrator(self) -> Iterator[Orchestrator]:
        stop = threading.Event()
        with Orchestrator(self.database.admin, self.cluster.home.orchestrator, stop) as orchestrator:
            yield orchestrator

    def rewrap(self, scope: str = "all", slugs: list[str] | None = None) -> list[rewrap.Result]:
        results: list[rewrap.Result] = []
        with self.orchestrator() as orchestrator:
            orchestrator.rewrap(orchestrator.tenants(slugs or self.slugs), scope, results.append)
        return results

    def versions(self) -> dict[str, list[tuple[str, str]]]:
        """Return number and state of each KEK version, by slug."""
        return {
            slug: [(version.version, version.state) for version in self.keks.versions(tenant)]
            for slug, tenant in self.ids.items()
        }

    def wrapped_under(self) -> set[str]:
        with self.database.admin() as connection:
            query = (
                "select distinct kek_version from ward.keys where slug = any (%s) and state <> 'destroyed'"
            )
            return {version for (version,) in connection.execute(query, [self.slugs]).fetchall()}

    def all_read(self) -> bool:
        """Whether every tenant reads its row, with keys that no backend and no keeper remembers."""
        self.forget()
        for slug in self.slugs:
            with self.database.tenant(slug, subject="me", role="ADMIN") as connection:
                if connection.execute("select name, ssn from patients").fetchall() != [("Ann", "999")]:
                    return False
        return True

    def forget(self) -> None:
        self.cluster.restart_keeper()
        self.cluster.start()


@pytest.fixture
def wards(database: Database, cluster: Cluster) -> Wards:
    return Wards(database, cluster)


NEVER_ROTATED = [("1", "enabled")]
ROTATED_ONCE = [("1", "disabled"), ("2", "enabled")]


def test_every_key_is_under_the_new_version_and_the_old_one_is_disabled(wards):
    before = stored(wards)
    results = wards.rewrap()
    assert [(result.keys, len(result.disabled), result.trouble) for result in results] == [(1, 1, None)] * 3
    assert wards.versions() == dict.fromkeys(wards.slugs, ROTATED_ONCE)
    assert wards.wrapped_under() == {"2"}
    assert stored(wards) == before
    assert wards.all_read()


def test_keys_of_every_state_but_destroyed_are_taken_along(wards):
    slug = wards.slugs[0]
    with wards.database.admin() as connection:
        connection.execute("select ward.rotate_key(%s, 'test')", [slug])
        model = "select id from ward_internal.models where face = 'patients'"
        connection.execute(f"select ward_internal.reseal(%s, ({model}), 0, 99)", [slug])
        connection.execute("select ward.retire_keys(%s)", [slug])
        connection.execute("select ward.rotate_key(%s, 'test')", [slug])
    wards.rewrap(slugs=[slug])
    assert wards.versions()[slug] == ROTATED_ONCE
    with wards.database.admin() as connection:
        query = "select state, kek_version from ward.keys where slug = %s order by version"
        assert connection.execute(query, [slug]).fetchall() == [
            ("retired", "2"),
            ("decrypt-only", "2"),
            ("active", "2"),
        ]
    assert wards.all_read()


def test_next_run_rotates_again(wards):
    wards.rewrap()
    wards.rewrap()
    expected = [("1", "disabled"), ("2", "disabled"), ("3", "enabled")]
    assert wards.versions() == dict.fromkeys(wards.slugs, expected)


@pytest.mark.parametrize("place", ["rotate", "disable"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_run_continues_and_rotates_no_kek_twice(wards, monkeypatch, place, moment):
    """Killed at the second tenant's KEK, just before or just after the KMS did it."""
    monkeypatch.setattr(rewrap, "WORKERS", 1)
    original, calls = getattr(Keks, place), []

    def killed(self: Keks, tenant: UUID, *args: Any) -> Any:
        calls.append(tenant)
        if len(calls) == 2:
            if moment == "after":
                original(self, tenant, *args)
            raise Killed
        return original(self, tenant, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Keks, place, killed)
        with pytest.raises(Killed):
            wards.rewrap()
    assert wards.all_read()
    wards.rewrap()
    assert wards.versions() == dict.fromkeys(wards.slugs, ROTATED_ONCE)
    assert wards.all_read()


def test_run_that_is_over_does_not_continue(wards):
    with wards.orchestrator() as orchestrator:
        tenants = orchestrator.tenants(wards.slugs)
        assert orchestrator.rewrap(tenants, "all", lambda result: None) is False
        assert orchestrator.rewrap(tenants, "all", lambda result: None) is False


def test_trouble_with_one_tenant_is_told_and_the_others_are_done(wards, monkeypatch):
    original = Keks.rotate

    def refused(self: Keks, tenant: UUID, region: str) -> KekRef:
        if tenant == wards.ids[wards.slugs[1]]:
            raise KeyRefused("the KMS of this tenant says no")
        return original(self, tenant, region)

    with monkeypatch.context() as patch:
        patch.setattr(Keks, "rotate", refused)
        results = {result.tenant.slug: result for result in wards.rewrap()}
    assert [str(results[slug].trouble) for slug in wards.slugs] == [
        "None",
        "the KMS of this tenant says no",
        "None",
    ]
    assert wards.versions()[wards.slugs[1]] == NEVER_ROTATED
    wards.rewrap()  # goes on: the run is not over while a tenant is not done
    assert wards.versions() == dict.fromkeys(wards.slugs, ROTATED_ONCE)


def test_key_that_another_made_meanwhile_keeps_its_kek_version_enabled(wards):
    """A data key came to be under the old version after the others had left it: it must go on to open."""
    slug = wards.slugs[0]
    tenant = wards.ids[slug]
    old, new = wards.keks.create(tenant), wards.keks.rotate(tenant)
    with wards.database.admin() as connection:
        connection.execute("select ward_internal.rewrap_key(%s, 1, %s, %s)", [tenant, new.name, new.version])
        connection.execute(
            "select ward.rotate_key(%s, 'test', null, false, %s, %s)", [slug, old.name, old.version]
        )
        assert rewrap.disable_unused(connection, wards.keks, tenant, {old}) == ()
    assert wards.versions()[slug] == [("1", "enabled"), ("2", "enabled")]
    assert wards.all_read()


def test_two_runs_at_once_are_refused(wards):
    with (
        wards.database.admin() as connection,
        rewrap.begin(connection, "all", 3),
        pytest.raises(RotationRunning),
    ):
        wards.rewrap()
    assert wards.versions() == dict.fromkeys(wards.slugs, NEVER_ROTATED)


def test_each_step_is_an_event(wards):
    slug = wards.slugs[0]
    wards.rewrap(slugs=[slug])
    with wards.database.admin() as connection:
        query = "select kind from ward.events where slug = %s order by id"
        kinds = [kind for (kind,) in connection.execute(query, [slug]).fetchall()]
    assert kinds[-3:] == ["kek rotated", "rewrapped", "kek disabled"]


def test_command_killed_amid_many_tenants_continues(cluster, template):
    """kill -9 of the process, as soon as the first tenants are done."""
    with clone(cluster, template) as database, database.admin() as connection:
        slugs = [f"many{os.getpid()}_{number}" for number in range(120)]
        for slug in slugs:
            connection.execute("select ward.create_tenant(%s)", [slug])
        command = Wardkey(cluster.home.path)
        # not --all: acme and globex, with their KEKs, are of every clone
        arguments = ("keys", "rewrap", *slugs, "--dsn", database.dsn())
        process = subprocess.Popen(command.command(*arguments), stdout=subprocess.DEVNULL)
        moved = "select count(*) filter (where kek_version = '2') from ward.keys where slug = any (%s)"
        while connection.execute(moved, [slugs]).fetchone() == (0,):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
        ((done,),) = connection.execute(moved, [slugs]).fetchall()
        assert 0 < done < 120
        command(*arguments)
        keks = Keks(cluster.home.orchestrator, cluster.home.keeper_socket)
        ids = connection.execute("select id from ward.tenants where slug = any (%s)", [slugs]).fetchall()
        for (tenant,) in ids:
            assert [(known.version, known.state) for known in keks.versions(tenant)] == ROTATED_ONCE


def stored(wards: Wards) -> list[tuple[Any, ...]]:
    """Return the rows as they lie on disk, with the transactions that wrote them."""
    with wards.database.admin() as connection:
        return [
            row
            for slug in wards.slugs
            for row in connection.execute(f"select xmin::text, * from sealed_{slug}.patients").fetchall()
        ]
