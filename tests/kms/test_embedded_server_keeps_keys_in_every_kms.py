"""An embedded server with each KMS, as a user has it: chosen, checked, written to, restarted, read again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from wardkey_core import keeper_client as client
from wardkey_core.errors import KeyRefused

from tests.support.kms_servers import KmsServer, choice_of
from wardkey.daemon.programs import OsUser
from wardkey.embedded import Home
from wardkey.keys.kek import Keks

from .benches import Bench, Pkcs11Bench


@pytest.fixture(params=["vault", "gcpkms", "awskms", "pkcs11", "azure"])
def bench(request: pytest.FixtureRequest) -> Bench:
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()


@pytest.fixture
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
    before = server.sql("select xmin, ctid from tenant_acme.notes_sealed")
    old = server.sql("select kek_version from ward.keys where slug = 'acme'")
    server("keys", "rewrap", "acme")
    new = server.sql("select kek_version from ward.keys where slug = 'acme'")
    assert new != old
    server.restart()
    assert server.read("acme") == ["of acme"] and server.read("globex") == ["of globex"]
    assert server.sql("select xmin, ctid from tenant_acme.notes_sealed") == before
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
