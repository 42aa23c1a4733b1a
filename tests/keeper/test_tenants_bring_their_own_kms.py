"""One keeper, several KMSs: each tenant's keys are in its own, and the trouble of one is nobody else's."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from wardkey_core.errors import KeeperUnavailable, KeyRefused

from tests.support.keepers import ACME, GLOBEX, Keeper, new_tenant
from tests.support.openbao import ORCHESTRATOR, OpenBao
from tests.support.softhsm import SoftHsm, the_token
from wardkey.daemon.files import write_atomically
from wardkey.kms import open_kms
from wardkey.kms.configured import Configuration, Entry, directory_of, write

INITECH = new_tenant()


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    server = OpenBao()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def hsm() -> SoftHsm:
    return the_token()


@pytest.fixture
def several(new_keeper: Keeper, bao: OpenBao, hsm: SoftHsm) -> Keeper:
    """Acme brings an OpenBao, Initech an HSM; Globex is with the cell's local KMS."""
    configure(new_keeper, bao, hsm)
    return new_keeper.start()


def configure(keeper: Keeper, bao: OpenBao, hsm: SoftHsm) -> None:
    own = {UUID(ACME): bao.uri, UUID(INITECH): hsm.uri}
    for tenant in own:
        directory_of(keeper.directory, tenant).mkdir(mode=0o700, parents=True, exist_ok=True)
    bao.give_credential(directory_of(keeper.directory, UUID(ACME)), ORCHESTRATOR)
    allow(bao)
    write_atomically(directory_of(keeper.directory, UUID(INITECH)) / "pkcs11.pin", hsm.pin.encode())
    environment = {"SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}
    write(keeper.directory, configuration(own, environment))


def configuration(own: dict[UUID, str], environment: dict[str, str] | None = None) -> Configuration:
    entries = (Entry("local:"), *(Entry(uri, tenant) for tenant, uri in own.items()))
    return Configuration(entries, environment or {})


def allow(bao: OpenBao) -> None:
    """Let the orchestrator's credential, which is the keeper's here, also use Acme's KEK."""
    rule = 'path "transit/%s/wardkey-%s" { capabilities = ["update"] }\n'
    policy = "".join(rule % (op, ACME) for op in ("encrypt", "decrypt"))
    bao.ask("PUT", "sys/policies/acl/use-acme", {"policy": policy})
    bao.ask("POST", f"auth/approle/role/{ORCHESTRATOR}", {"token_policies": [ORCHESTRATOR, "use-acme"]})


def test_each_tenants_keys_are_in_its_own(several: Keeper) -> None:
    keys = {tenant: several.key(tenant) for tenant in (ACME, INITECH, GLOBEX)}
    schemes = [key["kek"].partition(":")[0] for key in keys.values()]
    assert schemes == ["vault", "pkcs11", "local"]
    assert len({several.class_key(key, tenant) for tenant, key in keys.items()}) == 3
    status = several.status()
    assert set(status["providers"]) == {"local", "vault", "pkcs11"} and status["provider"] == "local"
    assert status["kms_calls_by_provider"] == {"local": 3, "vault": 3, "pkcs11": 3}
    assert not several.kek_file(ACME).exists()
    with pytest.raises(KeyRefused):
        several.class_key(keys[ACME], GLOBEX)
    with pytest.raises(KeyRefused):  # Globex has no vault to look in
        several.ask(op="provision", tenant=GLOBEX, kek=keys[ACME]["kek"], kek_version="1")


def test_a_tenant_moves_to_its_own_by_rewrap(new_keeper: Keeper, bao: OpenBao, hsm: SoftHsm) -> None:
    keeper = new_keeper.start("--ttl", "0.3")
    key = keeper.key(INITECH)
    dek = keeper.class_key(key, INITECH)
    configure(keeper, bao, hsm)  # while it runs: the file is read again
    time.sleep(1.5)
    assert keeper.class_key(key, INITECH) == dek
    moved = {**key, **keeper.ask(op="rewrap", tenant=INITECH, **key)}
    assert moved["kek"].startswith("pkcs11:")
    keeper.kek_file(INITECH).unlink()
    time.sleep(1.5)
    assert keeper.class_key(moved, INITECH) == dek
    with pytest.raises(KeyRefused):
        keeper.class_key(key, INITECH)


def test_a_cell_moves_by_rewrap(new_keeper: Keeper, hsm: SoftHsm) -> None:
    keeper = new_keeper.start()
    key, master = keeper.key(), keeper.key(str(UUID(int=0)))
    dek = keeper.class_key(key)
    keeper.stop()
    write_atomically(keeper.directory / "pkcs11.pin", hsm.pin.encode())
    write(keeper.directory, Configuration((Entry(hsm.uri), Entry("local:", state="left"))))
    keeper.start()
    assert keeper.class_key(key) == dek
    for tenant, old in ((ACME, key), (str(UUID(int=0)), master)):
        assert keeper.ask(op="rewrap", tenant=tenant, **old)["kek"].startswith("pkcs11:")
    keeper.ask(op="shred", tenant=ACME, name="acme")
    keeper.ask(op="kek", tenant=ACME, action="destroy_all")  # in both
    assert json.loads(keeper.kek_file().read_text())["keys"]["1"].get("sealed") is None
    keeper.stop()
    (keeper.directory / "ledger.jsonl").unlink()
    keeper.start()
    with pytest.raises(KeyRefused):  # with the ledger gone, the KMS refuses
        keeper.class_key(key)


def test_one_that_hangs_holds_up_no_other(several: Keeper, bao: OpenBao) -> None:
    own, cells = several.key(ACME), [several.provision(new_tenant()) for _ in range(30)]
    assert bao._process
    bao._process.send_signal(signal.SIGSTOP)
    try:
        failures: list[float] = []

        def ask() -> None:
            begin = time.monotonic()
            with pytest.raises((KeeperUnavailable, KeyRefused)):
                several.class_key(own)
            failures.append(time.monotonic() - begin)

        def provision() -> None:
            with pytest.raises((KeeperUnavailable, KeyRefused)):
                several.key(ACME, version=2)

        threads = [threading.Thread(target=work) for work in (ask, provision) for _ in range(20)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        for request in cells:  # each a call of the cell's KMS, none in the cache
            begin = time.monotonic()
            assert several.ask(**request)
            assert time.monotonic() - begin < 1
        assert several.class_key(several.key(INITECH), INITECH)
        assert not failures
        for thread in threads:
            thread.join()
        assert len(failures) == 20 and max(failures) < 8
    finally:
        bao._process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert several.class_key(own)
            break
        except KeeperUnavailable:
            assert time.monotonic() < deadline
    assert "internal" not in several.errors


def test_one_that_cannot_be_had_is_its_tenants_trouble_alone(new_keeper: Keeper, bao: OpenBao) -> None:
    own = {UUID(ACME): "nosuch://x", UUID(INITECH): bao.uri}
    write(new_keeper.directory, configuration(own))
    keeper = new_keeper.start()
    assert "cannot be used: unknown KMS" in keeper.errors
    for tenant in (ACME, INITECH):  # no such KMS, and no credential for it
        with pytest.raises(KeyRefused):
            keeper.key(tenant)
    assert keeper.ask(**keeper.provision(GLOBEX))
    directory_of(keeper.directory, UUID(INITECH)).mkdir(mode=0o700, parents=True)
    bao.give_credential(directory_of(keeper.directory, UUID(INITECH)), ORCHESTRATOR)
    assert keeper.ask(op="kek", tenant=INITECH, action="create")["kek"].startswith("vault:")
    assert "internal" not in keeper.errors


def test_a_cells_kms_that_cannot_be_had_keeps_the_keeper_from_starting(new_keeper: Keeper) -> None:
    uris = ("nosuch:", "pkcs11:token=x?module-path=/nosuch.so")
    for content in ("{", *(json.dumps({"kms": [{"uri": uri}]}) for uri in uris)):
        (new_keeper.directory / "kms.json").write_text(content)
        (new_keeper.directory / "kms.json").chmod(0o600)
        assert new_keeper.launch().wait(20) == 1
    assert new_keeper.start("--kms", "local:")  # which overrides what the file says of the cell


def test_a_configuration_that_breaks_later_changes_nothing(keeper: Keeper) -> None:
    request = keeper.provision()
    (keeper.directory / "kms.json").write_text("{")
    assert keeper.ask(**keeper.provision(GLOBEX)) and keeper.ask(**request)
    assert "what kms.json said before still holds" in keeper.errors
    write(keeper.directory, configuration({UUID(GLOBEX): "local:"}))
    moved = keeper.key(GLOBEX)
    assert (directory_of(keeper.directory, UUID(GLOBEX)) / "kek" / f"{GLOBEX}.json").exists()
    assert keeper.class_key(moved, GLOBEX)


def test_the_kms_asks_for_the_orchestrators_credential(new_keeper: Keeper, bao: OpenBao) -> None:
    bao.give_credential(new_keeper.directory)
    keeper = new_keeper.start("--kms", bao.uri)
    with pytest.raises(KeyRefused) as caught:
        keeper.ask(op="kek", tenant=GLOBEX, action="create")
    assert "orchestrator" in str(caught.value.hint)
    admin = keeper.base / "orchestrator"
    admin.mkdir(mode=0o700)
    bao.give_credential(admin, ORCHESTRATOR)
    kek = open_kms(f"{bao.uri}&keeper=wardkey-keeper", admin).create_kek(UUID(GLOBEX))
    assert keeper.ask(op="provision", tenant=GLOBEX, kek=kek.name, kek_version=kek.version)["version"] == 1
    for action in ("rotate", "destroy"):
        members = {} if action == "rotate" else {"kek": kek.name, "kek_version": kek.version}
        with pytest.raises(KeyRefused, match="refused"):
            keeper.ask(op="kek", tenant=GLOBEX, action=action, **members)
