"""Azure Key Vault: challenge, tokens, throttling, soft delete; who has the public key gets nothing in."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from azure.keyvault.keys._shared import http_challenge_cache
from wardkey_core.envelope import class_key, commitment, key_aad
from wardkey_core.errors import KeyRefused
from wardkey_core.wire import to_base64

from tests.support.certificates import make_certificate
from tests.support.keepers import ACME, Keeper
from tests.support.key_vault import OAEP_256, OFFICER, RETENTION, KeyVault, Refusal
from wardkey.kms import KekRef, KmsConfigurationError, KmsDenied, KmsUnavailable, open_kms
from wardkey.kms.providers.azure import _digest

from .benches import DEK, AzureBench

AAD = key_aad(UUID(ACME).bytes, 1, "default")
UNCHECKED = """
import sys
from wardkey.kms.providers.azure import AzureKms
AzureKms.is_asymmetric = False
from wardkey.keeper.__main__ import SERVICE
sys.exit(SERVICE.main(sys.argv[1:]))
"""


@pytest.fixture
def tenant() -> UUID:
    return uuid4()


def refuse(operation: str, refusal: Refusal) -> Callable[[str], None]:
    def trouble(asked: str) -> None:
        if asked == operation:
            raise refusal

    return trouble


# Tokens


def test_one_token_serves_until_it_is_not_taken(azure_bench: AzureBench, tenant: UUID) -> None:
    server, admin = azure_bench.server, azure_bench.open_admin()
    before = server.calls["token"]
    kek = admin.create_kek(tenant)
    assert admin.create_kek(tenant) == kek and server.calls["token"] == before + 1
    server.forget_tokens()  # as when Entra revokes them: azure-identity itself goes on with the one it has
    with pytest.raises(KmsUnavailable, match="token"):
        admin.create_kek(tenant)
    assert admin.create_kek(tenant) == kek


@pytest.mark.parametrize("change", [{"client_secret": "wrong"}, {"client_id": str(uuid4())}])
def test_a_wrong_credential_is_refused_and_not_told(
    azure_bench: AzureBench, tenant: UUID, change: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    credential = {**azure_bench.admin, **change}
    (azure_bench.admin_directory / "azure.json").write_text(json.dumps(credential))
    with pytest.raises(KmsDenied, match="Entra does not take") as caught:
        azure_bench.open_admin().create_kek(tenant)
    assert credential["client_secret"] not in f"{caught.value!r}{capfd.readouterr()}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_entra_that_cannot_answer_now_is_asked_again(
    azure_bench: AzureBench, tenant: UUID, status: int
) -> None:
    azure_bench.server.trouble = refuse("token", Refusal(status, "busy"))
    admin = azure_bench.open_admin()
    with pytest.raises(KmsUnavailable, match="Entra"):
        admin.create_kek(tenant)
    azure_bench.mend()
    assert admin.create_kek(tenant)


def test_a_machine_has_an_identity_without_a_credential(
    azure_bench: AzureBench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    (azure_bench.admin_directory / "azure.json").unlink()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"https://{azure_bench.server.host}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", azure_bench.admin["client_id"])
    assert azure_bench.open_admin().create_kek(tenant)


def test_no_token_is_got_for_another_domain(
    azure_bench: AzureBench, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = azure_bench.server.calls["token"]
    monkeypatch.setattr(KeyVault, "resource", "https://vault.example")
    http_challenge_cache.clear()
    with pytest.raises(KmsUnavailable, match="not Azure Key Vault"):
        azure_bench.open_admin().create_kek(tenant)
    assert azure_bench.server.calls["token"] == before


def test_a_certificate_that_is_not_trusted_gets_no_request(azure_bench: AzureBench, tenant: UUID) -> None:
    (azure_bench.admin_directory / "azure-ca.pem").write_bytes(make_certificate()[0])
    before = azure_bench.server.calls.total()
    with pytest.raises(KmsUnavailable):
        azure_bench.open_admin().create_kek(tenant)
    assert azure_bench.server.calls.total() == before


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "//",
        "//a b",
        "//u@x",
        "//x/y",
        "//x?token=1",
        "//x?hsm=yes",
        "//x?authority=https://y",
    ],
)
def test_a_uri_that_makes_no_sense_is_refused(azure_bench: AzureBench, rest: str) -> None:
    with pytest.raises(KmsConfigurationError):
        open_kms(f"azure:{rest}", azure_bench.directory)


@pytest.mark.parametrize(
    "credential",
    [
        {"tenant_id": "t"},
        {"client_id": ""},
        {"client_id": 1},
        {"tenant_id": "/", "client_id": "c", "client_secret": "s"},
        {"tenant_id": "t", "client_id": "c", "client_secret": "s", "more": "x"},
    ],
)
def test_a_credential_that_is_not_whole_is_refused(
    azure_bench: AzureBench, credential: dict[str, Any]
) -> None:
    (azure_bench.directory / "azure.json").write_text(json.dumps(credential))
    with pytest.raises(KmsConfigurationError, match="azure"):
        azure_bench.open()


# Answers


@pytest.mark.parametrize("wait", [0.4, 3600])
def test_it_waits_as_long_as_key_vault_says(azure_bench: AzureBench, tenant: UUID, wait: float) -> None:
    admin, kms = azure_bench.open_admin(), azure_bench.open()
    kek = admin.create_kek(tenant)
    wrapped = kms.wrap(kek, DEK, AAD)
    azure_bench.server.trouble = refuse("unwrapKey", Refusal(429, "Throttled", {"Retry-After": str(wait)}))
    with pytest.raises(KmsUnavailable) as caught:
        kms.unwrap(kek, wrapped, AAD)
    assert caught.value.retry_after == min(wait, 60)
    azure_bench.mend()
    if wait > 60:
        asked = azure_bench.server.calls["unwrapKey"]
        with pytest.raises(KmsUnavailable, match="said to wait"):
            kms.unwrap(kek, wrapped, AAD)
        assert azure_bench.server.calls["unwrapKey"] == asked
        return
    time.sleep(wait + 0.01)  # what the server asked for
    assert kms.unwrap(kek, wrapped, AAD) == DEK


@pytest.mark.parametrize("status", [400, 403, 408, 409, 429, 500, 503])
def test_answers_are_told_apart(azure_bench: AzureBench, tenant: UUID, status: int) -> None:
    kms, kek = azure_bench.open(), azure_bench.open_admin().create_kek(tenant)
    azure_bench.server.trouble = refuse("wrapKey", Refusal(status, "hunter2"))
    with pytest.raises(KmsUnavailable if status in (408, 429, 500, 503) else KmsDenied) as caught:
        kms.wrap(kek, DEK, AAD)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "https://x/keys/a/" + "0" * 32},
        {"kid": None},
        {"value": 1},
        {"value": "A"},
        {"value": "é"},
    ],
)
def test_an_answer_that_is_of_something_else_is_not_taken(
    azure_bench: AzureBench, tenant: UUID, change: dict[str, Any]
) -> None:
    kms, kek = azure_bench.open(), azure_bench.open_admin().create_kek(tenant)
    wrapped = kms.wrap(kek, DEK, AAD)
    azure_bench.server.change = lambda operation, answer: {**answer, **change}
    with pytest.raises((KmsUnavailable, KmsDenied)):
        kms.unwrap(kek, wrapped, AAD)


def test_a_deleted_key_is_told_with_the_time_until_which_it_can_be_recovered(
    azure_bench: AzureBench, tenant: UUID
) -> None:
    admin, kms = azure_bench.open_admin(), azure_bench.open()
    old = admin.create_kek(tenant)
    wrapped = kms.wrap(old, DEK, AAD)
    admin.rotate_kek(tenant)
    admin.destroy_kek(old)
    told = admin.kek_versions(tenant)[0]
    assert told.state == "scheduled" and told.destroyed_at is not None and told.created_at is not None
    assert abs(told.destroyed_at - time.time() - RETENTION) < 300
    azure_bench.server.recover(f"wardkey-{tenant}-{old.version.partition('-')[0]}")
    assert kms.unwrap(old, wrapped, AAD) == DEK
    admin.destroy_kek(old)
    with pytest.raises(KmsDenied):
        kms.unwrap(old, wrapped, AAD)


def test_a_key_that_is_being_deleted_is_not_told_as_destroyed(azure_bench: AzureBench, tenant: UUID) -> None:
    admin = azure_bench.open_admin()
    admin.create_kek(tenant)
    azure_bench.server.deleting = 2
    admin.destroy_all(tenant)
    assert [each.state for each in admin.kek_versions(tenant)] == ["scheduled"]


def test_purge_destroys_at_once_and_purge_protection_refuses(azure_bench: AzureBench, tenant: UUID) -> None:
    admin = azure_bench.admin
    azure_bench.server.identities[admin["client_id"]] = (admin["client_secret"], OFFICER | {"purge"})
    purging = open_kms(f"{azure_bench.uri}&purge=on", azure_bench.admin_directory)
    purging.create_kek(tenant)
    azure_bench.server.is_protected = True
    with pytest.raises(KmsDenied, match="allow"):
        purging.destroy_all(tenant)
    assert [each.state for each in purging.kek_versions(tenant)] == ["scheduled"]
    azure_bench.server.is_protected = False
    for _ in range(2):
        purging.destroy_all(tenant)
        assert [each.state for each in purging.kek_versions(tenant)] == ["destroyed"]
    with pytest.raises(KmsDenied, match="destroyed"):
        purging.create_kek(tenant)


def test_an_interrupted_making_leaves_the_next_one_whole(azure_bench: AzureBench, tenant: UUID) -> None:
    admin, kms = azure_bench.open_admin(), azure_bench.open()
    first = admin.create_kek(tenant)

    def once(operation: str) -> None:
        if operation == "create":
            azure_bench.server.trouble = refuse("create", Refusal(503, "busy"))

    azure_bench.server.trouble = once
    with pytest.raises(KmsUnavailable):
        admin.rotate_kek(tenant)
    azure_bench.mend()
    current = admin.create_kek(tenant)
    states = [each.state for each in admin.kek_versions(tenant)]
    assert current != first and states == ["enabled", "destroyed", "enabled"]  # of the second there is no key
    assert kms.unwrap(current, kms.wrap(current, DEK, AAD), AAD) == DEK


# Who has the public key


@pytest.fixture
def kek(azure_bench: AzureBench) -> KekRef:
    return azure_bench.open_admin().create_kek(UUID(ACME))


@pytest.fixture
def keeper(azure_bench: AzureBench) -> Iterator[Keeper]:
    keeper = Keeper()
    shutil.copytree(azure_bench.directory, keeper.directory, dirs_exist_ok=True)
    keeper.start("--kms", azure_bench.uri)
    yield keeper
    keeper.remove()


@pytest.fixture
def forged(azure_bench: AzureBench, kek: KekRef) -> bytes:
    """A DEK of an outsider's choice, wrapped with nothing but the public key."""
    number, _, version = kek.version.partition("-")
    public_key = azure_bench.server.public_key(f"{kek.name.rpartition('/')[2]}-{number}", version)
    return bytes(public_key.encrypt(DEK + _digest(kek, AAD), OAEP_256))


def release(keeper: Keeper, kek: KekRef, wrapped: bytes, committed: bytes) -> bytes:
    """Return the key of class clinical."""
    about = {"tenant": ACME, "version": 1, "kek": kek.name, "kek_version": kek.version}
    texts = {"wrapped": to_base64(wrapped), "commitment": to_base64(committed)}
    answer = keeper.ask(op="release", classes=["clinical"], token=keeper.token(), **about, **texts)
    return base64.b64decode(answer["classes"]["clinical"])


def provision(keeper: Keeper, kek: KekRef) -> tuple[bytes, bytes]:
    about = {"tenant": ACME, "version": 1, "kek": kek.name, "kek_version": kek.version}
    made = keeper.ask(op="provision", **about)
    return base64.b64decode(made["wrapped"]), base64.b64decode(made["commitment"])


def test_what_an_outsider_wrapped_is_not_released(
    azure_bench: AzureBench, keeper: Keeper, kek: KekRef, forged: bytes
) -> None:
    wrapped, committed = provision(keeper, kek)
    assert release(keeper, kek, wrapped, committed)
    asked = azure_bench.server.calls["unwrapKey"]
    for attempt in (forged, os.urandom(64) + forged, wrapped[:64] + forged, wrapped[:63], b"x"):
        with pytest.raises(KeyRefused):
            release(keeper, kek, attempt, committed)
    assert azure_bench.server.calls["unwrapKey"] == asked  # the signature is checked before
    keeper.stop()
    keeper.start("--kms", azure_bench.uri, program=("-c", UNCHECKED))
    of_forged = commitment(DEK, UUID(ACME).bytes, 1)
    assert release(keeper, kek, forged, of_forged) == class_key(DEK, UUID(ACME).bytes, 1, "clinical")


def test_a_signature_is_of_its_tenant_and_kek(azure_bench: AzureBench, keeper: Keeper, kek: KekRef) -> None:
    wrapped, committed = provision(keeper, kek)
    asked = azure_bench.server.calls["unwrapKey"]
    with pytest.raises(KeyRefused):
        release(keeper, azure_bench.open_admin().rotate_kek(UUID(ACME)), wrapped, committed)
    assert azure_bench.server.calls["unwrapKey"] == asked


def test_keys_outlive_the_signing_key_by_its_public_key(
    azure_bench: AzureBench, keeper: Keeper, kek: KekRef
) -> None:
    wrapped, committed = provision(keeper, kek)
    public_key = keeper.status()["public_key"]
    keeper.stop()
    (keeper.directory / "signing.key").unlink()
    keeper.start("--kms", azure_bench.uri)
    with pytest.raises(KeyRefused):
        release(keeper, kek, wrapped, committed)
    former = keeper.directory / "signing.former"
    former.write_text(f"{public_key}\n")
    former.chmod(0o600)
    assert release(keeper, kek, wrapped, committed)
    assert provision(keeper, kek)[0][:64] != wrapped[:64] and keeper.status()["public_key"] != public_key
