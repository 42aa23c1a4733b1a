"""A tenant that brings its own KMS to a cell that keeps keys locally: moved there, alone with its trouble."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.kms_servers import KmsServer, choice_of
from tests.support.openbao import KEEPER, OpenBao
from wardkey.embedded import Home
from wardkey.embedded.kms_choice import sides

from .benches import Bench, LocalBench, VaultBench

SECOND = "second"


@pytest.fixture
def bao(openbao: OpenBao, tmp_path: Path) -> VaultBench:
    """The tenant's own."""
    return VaultBench(tmp_path, openbao)


@pytest.fixture
def other(openbao: OpenBao, tmp_path: Path) -> Iterator[VaultBench]:
    """Another one of the tenant's own: a mount of its own, which no credential for the first is for."""
    (tmp_path / "other").mkdir()
    bench = VaultBench(tmp_path / "other", openbao)
    bench.uri = openbao.mount(SECOND)
    bench.admin_uri = f"{bench.uri}&keeper={KEEPER}"
    yield bench
    openbao.unmount(SECOND)


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()


@pytest.fixture
def server(home: Home, bao: VaultBench) -> Iterator[KmsServer]:
    """Tenant acme is with the cell's KMS, own with its OpenBao."""
    server = KmsServer(home.path)
    server.start()
    server("tenant", "create", "acme")
    uri, *options = choice_of(bao)
    server("tenant", "create", "own", "--kms", uri, *options)
    for slug in ("acme", "own"):
        server.write(slug, f"of {slug}")
    yield server
    bao.server.unseal()


def states(bench: Bench, tenant: UUID) -> list[str]:
    """Return how the versions of the tenant's KEK are, oldest first."""
    return [version.state for version in bench.open_admin().kek_versions(tenant)]


def destroy_keks(server: KmsServer) -> None:
    """Destroy what is disabled, without its grace."""
    server("psql", "-qc", "select ward.set('grace', '0')")
    server("keys", "destroy", "--due")


def test_its_trouble_touches_nobody_else(server: KmsServer, bao: VaultBench) -> None:
    assert [kek.partition(":")[0] for kek in server.keks("own") + server.keks("acme")] == ["vault", "local"]
    server.restart()
    assert server.read("own") == ["of own"] and server.read("acme") == ["of acme"]
    bao.server.seal()
    server.restart()  # an own KMS that is away does not keep the cell from starting
    began = time.monotonic()
    assert "does not answer" in server.try_to_read("own", code=1).stderr
    failed = time.monotonic()
    assert server.read("acme") == ["of acme"]
    assert time.monotonic() - failed < max(2.0, failed - began)
    server("tenant", "create", "later")
    server.write("later", "of later")
    rows = {
        row["tenant"]: (row["keeper"] == "ok", row["orchestrator"] == "ok") for row in server.check(code=1)
    }
    assert rows == {"acme": (True, True), "later": (True, True), "own": (False, False)}
    bao.server.unseal()
    assert server.read("own") == ["of own"]


def test_a_tenant_moves_to_its_own_kms_by_rewrap(server: KmsServer, bao: VaultBench) -> None:
    uri, *options = choice_of(bao)
    before = server.sql("select xmin, ctid from sealed_acme.notes")
    server("kms", "use", uri, "--tenant", "acme", *options)
    assert server.read("acme") == ["of acme"]  # not moved yet: its key is where it was
    server.restart()
    assert server.read("acme") == ["of acme"]
    server("keys", "rewrap", "acme")
    (kek,) = server.keks("acme")
    assert kek.startswith("vault:")
    assert server.sql("select xmin, ctid from sealed_acme.notes") == before
    server.restart()
    assert server.read("acme") == ["of acme"]
    bao.server.seal()
    server.restart()
    assert "does not answer" in server.try_to_read("acme", code=1).stderr
    bao.server.unseal()
    assert server.read("acme") == ["of acme"]
    assert server.check("acme")[0]["orchestrator"] == "ok"


def test_a_tenant_moves_from_own_to_own_and_back_to_the_cells(
    server: KmsServer, home: Home, bao: VaultBench, other: VaultBench
) -> None:
    local = LocalBench.of(home)
    tenant = UUID(server.sql("select id from ward.tenants where slug = 'acme'"))
    first, second = choice_of(bao), choice_of(other)
    server("kms", "use", first[0], "--tenant", "acme", *first[1:])
    server("keys", "rewrap", "acme")
    assert states(bao, tenant) == ["enabled"]
    assert states(local, tenant) == ["disabled", "enabled"]

    said = server("kms", "use", second[0], "--tenant", "acme", *second[1:]).stdout
    assert "still wrapped under vault" in said
    server.restart()
    assert server.read("acme") == ["of acme"]  # in the first still
    assert server.check("acme")[0]["keeper"] == "ok"
    server("keys", "rotate", "acme", "--reason", "while it is under way")
    assert len(server.keks("acme")) == 2
    server("keys", "rewrap", "acme")
    assert server.keks("acme") == [f"vault:{SECOND}/wardkey-{tenant}"]
    server.restart()
    assert server.read("acme") == ["of acme"]
    assert states(bao, tenant) == ["disabled", "enabled"]

    server("kms", "use", "cell", "--tenant", "acme")
    assert server.read("acme") == ["of acme"]
    other.server.allow()  # the second does not let the orchestrator in any more
    said = server("keys", "rewrap", "acme").stdout
    assert f"of vault:{SECOND}/wardkey-{tenant} is still enabled" in said and "rewrap" in said
    assert server.keks("acme") == [f"local:{tenant}"]
    other.server.allow(SECOND)
    assert states(other, tenant) == ["disabled", "enabled"]
    assert "still enabled" not in server("keys", "rewrap", "acme").stdout
    server.restart()
    assert server.read("acme") == ["of acme"] and server.read("own") == ["of own"]
    # two, because a key that was made under the first of them was there before the others came
    assert states(other, tenant) == ["disabled", "disabled", "enabled"]
    assert [[own.is_left for own in side.read().owned(tenant)] for side in sides(home)] == [[True] * 2] * 2

    destroy_keks(server)
    assert states(bao, tenant) == ["destroyed", "enabled"]
    assert states(other, tenant) == ["destroyed", "destroyed", "enabled"]
    server("kms", "use", "cell", "--tenant", "acme")  # nothing is left to do there: they are forgotten
    for side in sides(home):
        assert not side.read().owned(tenant)
        assert not list((side.directory / "tenants" / str(tenant)).rglob("*.json"))
    server.restart()
    assert server.read("acme") == ["of acme"]


def test_a_cell_moves_to_another_kms_by_rewrap(server: KmsServer, home: Home, bao: VaultBench) -> None:
    uri, *options = choice_of(bao)
    said = server("kms", "use", uri, *options).stdout
    assert "wardkey keys rewrap --all" in said
    assert [each.uri for each in sides(home)[0].read().kms if each.is_left] == ["local:"]
    server.restart()
    assert server.read("acme") == ["of acme"]
    server("tenant", "create", "new")
    assert server.keks("new")[0].startswith("vault:")
    server("keys", "rewrap", "--all")
    assert server.keks("acme")[0].startswith("vault:")
    server("kms", "use", uri)  # backups are still wrapped under what was before
    assert [each.uri for each in sides(home)[0].read().kms if each.is_left] == ["local:"]
    destroy_keks(server)
    server("kms", "use", uri)  # it is forgotten
    assert not [each for each in sides(home)[0].read().kms if each.is_left]
    server.restart()
    assert server.read("acme") == ["of acme"] and server.read("own") == ["of own"]


def test_a_tenant_that_is_not_made_or_dropped_leaves_no_kms_and_no_kek(
    server: KmsServer, home: Home, bao: VaultBench
) -> None:
    uri, *options = choice_of(bao)
    before = [side.read() for side in sides(home)], bao.server.ask("LIST", "transit/keys")["data"]["keys"]
    server("tenant", "create", "acme", "--kms", uri, *options, code=1)  # there is one
    after = [side.read() for side in sides(home)], bao.server.ask("LIST", "transit/keys")["data"]["keys"]
    assert after == before
    assert [len(list((side.directory / "tenants").iterdir())) for side in sides(home)] == [1, 1]
    server("tenant", "drop", "own", "--yes", "own", "--force")  # takes its credentials along
    for side in sides(home):
        assert all(each.tenant is None for each in side.read().kms)
        assert list((side.directory / "tenants").iterdir()) == []
    server.restart()
    assert server.read("acme") == ["of acme"]


def test_derived_keys_are_the_cells(server: KmsServer, bao: VaultBench) -> None:
    server("tenant", "create", "derived", "--mode", "derived")
    server.write("derived", "of derived")
    server.restart()
    assert server.read("derived") == ["of derived"]
    assert server.check()[0]["tenant"] == "master"
    server("tenant", "create", "x", "--mode", "derived", "--kms", bao.uri, code=2)


def test_derived_keys_with_a_master_only_the_orchestrator_can_make(
    server: KmsServer, home: Home, bao: VaultBench
) -> None:
    uri, *options = choice_of(bao)
    server("kms", "use", uri, *options)
    server("tenant", "create", "derived", "--mode", "derived")
    server.write("derived", "of derived")
    server.restart()
    assert server.read("derived") == ["of derived"]
    rows = json.loads(server("--json", "kms", "check").stdout)
    assert rows[0]["kek"].startswith("vault:") and rows[0]["orchestrator"] == "ok"
