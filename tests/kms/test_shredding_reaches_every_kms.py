"""A shredded tenant's KEK ends in whichever KMS it is, and the certificate has what that KMS says of it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from tests.support.homes import make_directory, throw_away
from tests.support.kms_servers import KmsServer, choice_of
from wardkey.embedded import Cluster, Home
from wardkey.embedded.kms_choice import sides
from wardkey.keys.kek import Keks
from wardkey.tenants.certificate import Certificate

from .benches import VaultBench
from .shredding import GONE, shred


@pytest.fixture(scope="module")
def cell(cluster: Cluster) -> Iterator[KmsServer]:
    """One server that keeps keys locally, for tenants with a KMS of their own."""
    directory = make_directory(cluster.home.python)
    server = KmsServer(directory / "home")
    server.start()
    yield server
    throw_away(directory)


def test_a_tenants_own_kms_and_the_cells_both_forget_it(cell: KmsServer, vault_bench: VaultBench) -> None:
    """It moved from the one to the other: its KEK is in both, its credential in the home."""
    server, home = cell, Home(cell.home)
    server("tenant", "create", "moved")
    server.write("moved", "of moved")
    uri, *options = choice_of(vault_bench)
    server("kms", "use", uri, "--tenant", "moved", *options)
    tenant = server.sql("select id from ward.tenants where slug = 'moved'")
    kek = Keks(home.orchestrator, home.keeper_socket).create(UUID(tenant))
    query = f"select ward_internal.rewrap_key('{tenant}', 1, '{kek.name}', '{kek.version}')"
    assert server.sql(query) == "t"
    assert len(list(home.keeper.glob(f"tenants/{tenant}"))) == 1
    certificate = shred(server, "moved")
    assert [kek["state"] for kek in certificate.statement["keks"]] == [GONE]
    assert ["keeper's directory" in text for text in certificate.statement["remains"]] == [True, False]
    assert '"state": "enabled"' not in (home.keeper / "kek" / f"{tenant}.json").read_text()
    for side in sides(home):
        assert not side.read().owned(UUID(tenant))
    assert list(home.keeper.glob(f"tenants/{tenant}")) == []


def test_while_the_kms_is_away_nothing_is_certified_and_a_rerun_ends_well(
    cell: KmsServer, vault_bench: VaultBench
) -> None:
    server = cell
    uri, *options = choice_of(vault_bench)
    server("tenant", "create", "away", "--kms", uri, *options)
    server("tenant", "create", "acme")
    for slug in ("away", "acme"):
        server.write(slug, f"of {slug}")
    code = server.json("tenant", "shred", "away")["code"]
    vault_bench.server.seal()
    try:
        refused = server("tenant", "shred", "away", "--confirm", code, code=1)
        assert refused.stdout == "" and "does not answer" in refused.stderr
        assert "not permitted to log in" in server.try_to_read("away", code=3).stderr
        assert server.read("acme") == ["of acme"]
    finally:
        vault_bench.server.unseal()
    done = server("tenant", "shred", "away", "--confirm", code)
    Certificate.parse(done.stdout.encode()).verify()
    assert server.sql("select status from ward.tenants where slug = 'away'") == "shredded"


def test_a_kms_that_is_gone_for_good_is_told_in_the_certificate(
    cell: KmsServer, vault_bench: VaultBench
) -> None:
    server, home = cell, Home(cell.home)
    uri, *options = choice_of(vault_bench)
    server("tenant", "create", "lost", "--kms", uri, *options)
    server.write("lost", "of lost")
    gone = ("--kms-gone", "the clinic's provider closed in March")
    vault_bench.server.seal()
    try:
        assert server("tenant", "shred", "lost", code=1).stdout == ""
        server("tenant", "shred", "lost", "--kms-gone", " ", code=2)
        code = server.json("tenant", "shred", "lost", *gone)["code"]
        assert server("tenant", "shred", "lost", "--confirm", code, code=1).stdout == ""
        done = server("tenant", "shred", "lost", "--confirm", code, *gone)
    finally:
        vault_bench.server.unseal()
    certificate = Certificate.parse(done.stdout.encode())
    certificate.verify()
    said = certificate.statement
    assert said["kms_gone"]["reason"] == gone[1] and "does not answer" in said["kms_gone"]["answer"]
    assert [kek["state"] for kek in said["keks"]] == ["unknown: the KMS could not be asked"]
    assert any("KEK may still exist" in text for text in said["remains"])
    assert "may still exist" in done.stderr
    tenant = said["tenant"]["id"]
    assert server.sql("select status from ward.tenants where slug = 'lost'") == "shredded"
    keys = f"ward_internal.tenant_keys where tenant_id = '{tenant}' and wrapped is not null"
    assert server.sql(f"select count(*) from {keys}") == "0"
    assert tenant in (home.keeper / "ledger.jsonl").read_text()
    assert all(not side.read().owned(UUID(tenant)) for side in sides(home))
    # It does still exist: what the certificate did not rule out.
    assert [each.state for each in vault_bench.open_admin().kek_versions(UUID(tenant))] == ["enabled"]
    assert server("tenant", "shred", "lost").stdout == done.stdout


def test_a_kms_that_answers_after_all_is_certified_as_ever(cell: KmsServer, vault_bench: VaultBench) -> None:
    server = cell
    uri, *options = choice_of(vault_bench)
    server("tenant", "create", "returned", "--kms", uri, *options)
    gone = ("--kms-gone", "so it seems")
    code = server.json("tenant", "shred", "returned", *gone)["code"]
    said = Certificate.parse(server("tenant", "shred", "returned", "--confirm", code, *gone).stdout.encode())
    assert "kms_gone" not in said.statement
    assert [kek["state"] for kek in said.statement["keks"]] == [GONE]
    assert vault_bench.open_admin().kek_versions(UUID(said.statement["tenant"]["id"])) == []
