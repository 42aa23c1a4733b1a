"""An embedded server with each KMS, as a user has it: chosen, written to, restarted, a tenant shredded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from wardkey_core import keeper_client as client
from wardkey_core.errors import KeyRefused

from tests.support.dumps import run
from tests.support.homes import make_directory, throw_away
from tests.support.kms_servers import KmsServer, choice_of
from wardkey.daemon.programs import OsUser
from wardkey.embedded import Cluster, Home
from wardkey.keys.kek import Keks

from .benches import AwsBench, AzureBench, Bench, GcpBench, Pkcs11Bench, VaultBench
from .shredding import GONE, shred

_BENCHES: dict[str, tuple[str, Callable[[Path, Any], Bench]]] = {
    "vault": ("openbao", VaultBench),
    "gcpkms": ("cloud_kms", lambda base, server: GcpBench(base, server, "grpc")),
    "awskms": ("moto", AwsBench),
    "pkcs11": ("softhsm", Pkcs11Bench),
    "azure": ("key_vault", AzureBench),
}
_DESTROYED = {
    "vault": GONE,
    "pkcs11": GONE,
    "gcpkms": "scheduled",
    "awskms": "scheduled",
    "azure": "scheduled",
}


@pytest.fixture(scope="module", params=_BENCHES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    kms, make = _BENCHES[request.param]
    return make(tmp_path_factory.mktemp(request.param), request.getfixturevalue(kms))


@pytest.fixture(scope="module")
def home(cluster: Cluster, bench: Bench) -> Iterator[Home]:
    directory = make_directory(cluster.home.python)
    yield Home(directory / "home")
    throw_away(directory)


@pytest.fixture(scope="module")
def server(home: Home, bench: Bench) -> KmsServer:
    """Started with its KMS from the first."""
    server = KmsServer(home.path)
    home.make_directories()
    bench.give_to(home.keeper_user().uid)
    variables = {"SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]} if isinstance(bench, Pkcs11Bench) else {}
    server("kms", "use", *choice_of(bench, variables))
    server.start()
    return server


def test_rows_outlive_restarts_and_a_new_kek_version(server: KmsServer, home: Home, bench: Bench) -> None:
    server("tenant", "create", "acme", "globex")
    for slug in ("acme", "globex"):
        server.write(slug, f"of {slug}")
    assert [kek.partition(":")[0] for kek in server.keks("acme")] == [bench.scheme]
    rows = server.check()
    assert [(row["tenant"], row["keeper"], row["orchestrator"]) for row in rows] == [
        ("acme", "ok", "ok"),
        ("globex", "ok", "ok"),
    ]
    # a new version is made by the orchestrator, and no row is touched
    before = server.sql("select xmin, ctid from sealed_acme.notes")
    old = server.sql("select kek_version from ward.keys where slug = 'acme'")
    server("keys", "rewrap", "acme")
    new = server.sql("select kek_version from ward.keys where slug = 'acme'")
    assert new != old
    server.restart()
    assert server.read("acme") == ["of acme"] and server.read("globex") == ["of globex"]
    assert server.sql("select xmin, ctid from sealed_acme.notes") == before
    tenant = UUID(server.sql("select id from ward.tenants where slug = 'acme'"))
    keks = Keks(home.orchestrator, home.keeper_socket)
    states = {v.version: v.state for v in keks.versions(tenant)}
    assert states[new] == "enabled" and states[old] != "enabled"

    pid = server.json("status")["keeper"]["pid"]
    user = OsUser.named("wardkey") if os.geteuid() == 0 else OsUser.current()
    assert user is not None
    assert f"Uid:\t{user.uid}\t{user.uid}\t{user.uid}" in Path(f"/proc/{pid}/status").read_text()
    assert server.json("keeper", "status")["provider"] == bench.scheme
    for secret in bench.secrets():
        for log in home.log.iterdir():
            assert secret not in log.read_text()
    if bench.scheme in ("vault", "gcpkms", "azure"):
        the_keepers_credential_manages_no_kek(home, keks)


def the_keepers_credential_manages_no_kek(home: Home, keks: Keks) -> None:
    tenant = uuid4()

    def keeper_may_not(action: str) -> None:
        with pytest.raises(KeyRefused, match="allow"):
            client.ask(home.keeper_socket, {"op": "kek", "tenant": str(tenant), "action": action})

    keeper_may_not("create")
    assert keks.versions(tenant) == []
    first = keks.create(tenant)
    keeper_may_not("rotate")
    assert [(v.version, v.state) for v in keks.versions(tenant)] == [(first.version, "enabled")]
    client.ask(home.keeper_socket, {"op": "shred", "tenant": str(tenant), "name": "gone"})
    keeper_may_not("destroy_all")
    assert keks.rotate(tenant) != first
    keks.destroy_all(tenant)
    assert "enabled" not in [v.state for v in keks.versions(tenant)]


def bring_back(server: KmsServer, home: Home, backup: Path, slug: str) -> None:
    """Put the backup in the place of the database."""
    Cluster(home).scribe.stop()
    server("psql", "-qc", "select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    run(Cluster(home), "dropdb", f"--maintenance-db={Cluster(home).dsn('postgres')}", "--force", "wardkey")
    run(Cluster(home), "createdb", f"--maintenance-db={Cluster(home).dsn('postgres')}", "wardkey")
    server("psql", "-qc", f"create role tenant_{slug}")
    run(Cluster(home), "pg_restore", "--exit-on-error", f"--dbname={Cluster(home).dsn()}", str(backup))
    server("psql", "-qc", "select ward.repair_tenant(slug) from ward.tenants")
    server("tenant", "reset-password", slug)
    server("up")  # the scribe makes its slot again: without it nobody logs in


def test_backup_stays_shut_with_and_without_the_ledger(
    server: KmsServer, home: Home, bench: Bench, tmp_path: Path
) -> None:
    server("tenant", "create", "gone", "stays")
    for slug in ("gone", "stays"):
        server.write(slug, f"of {slug}")
    run(Cluster(home), "pg_dump", "-Fc", f"--file={tmp_path / 'backup'}", Cluster(home).dsn())

    certificate = shred(server, "gone")
    assert [(kek["kek"].split(":")[0], kek["state"]) for kek in certificate.statement["keks"]] == [
        (bench.scheme, _DESTROYED[bench.scheme])
    ]
    remains = " ".join(certificate.statement["remains"])
    assert ("bring it back" in remains) == (_DESTROYED[bench.scheme] == "scheduled")
    if _DESTROYED[bench.scheme] == "scheduled":
        assert certificate.statement["keks"][0]["destroyed_at"] > certificate.statement["certified_at"]
    assert server.read("stays") == ["of stays"]

    bring_back(server, home, tmp_path / "backup", "gone")
    assert server.read("stays") == ["of stays"]
    assert "tenant gone was shredded on" in server.try_to_read("gone", code=1).stderr
    server("down")
    (home.keeper / "ledger.jsonl").unlink()
    server("up")
    assert server.read("stays") == ["of stays"]
    refused = server.try_to_read("gone", code=1).stderr
    assert "shredded" not in refused and "refused" in refused
