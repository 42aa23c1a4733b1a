"""OpenBao itself: policies per tenant, tokens that end, a server sealed, killed and started again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.openbao import KEEPER, OpenBao
from tests.support.ports import free_port
from wardkey.daemon.files import write_atomically
from wardkey.kms import KekRef, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable, open_kms
from wardkey.kms.providers.vault import VaultKms

from .benches import DEK, VaultBench

AAD = b"additional data"


@pytest.fixture
def short_tokens(openbao: OpenBao) -> Iterator[OpenBao]:
    """The keeper's tokens live for 2 seconds, 5 with renewals."""
    openbao.ask("POST", f"auth/approle/role/{KEEPER}", {"token_ttl": "2s", "token_max_ttl": "5s"})
    yield openbao
    openbao.ask("POST", f"auth/approle/role/{KEEPER}", {"token_ttl": "1h", "token_max_ttl": "2h"})


def token(kms: Kms) -> str:
    assert isinstance(kms, VaultKms)
    return kms._login.token()


def test_a_kek_never_leaves_and_is_rotated_within_a_year(vault_bench: VaultBench) -> None:
    tenant = uuid4()
    vault_bench.open_admin().create_kek(tenant)
    key = vault_bench.server.ask("GET", f"transit/keys/wardkey-{tenant}")["data"]
    assert key["type"] == "aes256-gcm96" and key["auto_rotate_period"] == 365 * 86400
    assert not key["exportable"] and not key["allow_plaintext_backup"] and not key["deletion_allowed"]


def test_the_keeper_may_use_a_kek_and_nothing_else(vault_bench: VaultBench) -> None:
    kms, tenant = vault_bench.open(), uuid4()
    with pytest.raises(KmsDenied):
        kms.create_kek(tenant)
    first = token(kms)
    kek = vault_bench.open_admin().create_kek(tenant)
    wrapped = kms.wrap(kek, DEK, AAD)  # the token it already had is enough
    assert token(kms) == first
    assert kms.create_kek(tenant) == kek
    paths = {
        f"transit/keys/wardkey-{tenant}": ["read"],
        f"transit/encrypt/wardkey-{tenant}": ["update"],
        f"transit/decrypt/wardkey-{tenant}": ["update"],
        **{
            path: ["deny"]
            for path in (
                "transit/keys",
                f"transit/keys/wardkey-{tenant}/rotate",
                f"transit/keys/wardkey-{tenant}/config",
                f"transit/keys/wardkey-{tenant}/trim",
                f"transit/export/encryption-key/wardkey-{tenant}",
                f"transit/backup/wardkey-{tenant}",
                f"transit/rewrap/wardkey-{tenant}",
                f"transit/decrypt/wardkey-{uuid4()}",
                f"sys/policies/acl/wardkey-{tenant}",
                f"identity/group/name/wardkey-{tenant}",
            )
        },
    }
    asked = {"token": first, "paths": list(paths)}
    capabilities = vault_bench.server.ask("POST", "sys/capabilities", asked)["data"]
    assert {path: capabilities[path] for path in paths} == paths
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_without_its_policy_a_tenants_kek_is_denied_and_others_are_not(vault_bench: VaultBench) -> None:
    admin, kms, tenant = vault_bench.open_admin(), vault_bench.open(), uuid4()
    acme, globex = admin.create_kek(tenant), admin.create_kek(uuid4())
    wrapped, others = kms.wrap(acme, DEK, AAD), kms.wrap(globex, DEK, AAD)
    vault_bench.server.ask("DELETE", f"identity/group/name/wardkey-{tenant}")
    before = token(kms)
    with pytest.raises(KmsDenied):
        kms.unwrap(acme, wrapped, AAD)
    assert token(kms) == before  # no new token for each refusal
    assert kms.unwrap(globex, others, AAD) == DEK
    admin.create_kek(tenant)
    assert kms.unwrap(acme, wrapped, AAD) == DEK


def test_the_orchestrator_cannot_use_keks(vault_bench: VaultBench) -> None:
    admin = vault_bench.open_admin()
    with pytest.raises(KmsDenied):
        admin.wrap(admin.create_kek(uuid4()), DEK, AAD)


def test_tokens_are_renewed_then_replaced(vault_bench: VaultBench, short_tokens: OpenBao) -> None:
    kek, kms = vault_bench.open_admin().create_kek(uuid4()), vault_bench.open()
    wrapped, seen, until = kms.wrap(kek, DEK, AAD), [token(kms)], time.monotonic() + 6.5
    while time.monotonic() < until:
        assert kms.unwrap(kek, wrapped, AAD) == DEK
        if token(kms) != seen[-1]:
            seen.append(token(kms))
            assert time.monotonic() > until - 4.5, "the token was replaced where it could be renewed"
        time.sleep(0.1)
    assert len(seen) == 2


def test_a_revoked_token_is_replaced_at_once(vault_bench: VaultBench) -> None:
    kek, kms = vault_bench.open_admin().create_kek(uuid4()), vault_bench.open()
    wrapped, first = kms.wrap(kek, DEK, AAD), token(kms)
    vault_bench.server.ask("POST", "auth/token/revoke", {"token": first})
    assert kms.unwrap(kek, wrapped, AAD) == DEK
    assert token(kms) != first


def test_an_expired_token_after_silence_is_replaced(vault_bench: VaultBench, short_tokens: OpenBao) -> None:
    kek, kms = vault_bench.open_admin().create_kek(uuid4()), vault_bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    time.sleep(2.2)
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_a_given_token_is_used_until_it_ends(
    vault_bench: VaultBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kek, given = vault_bench.open_admin().create_kek(uuid4()), vault_bench.server.token_of(KEEPER)
    (tmp_path / "other").mkdir(mode=0o700)
    with pytest.raises(KmsConfigurationError, match="VAULT_TOKEN"):
        open_kms(vault_bench.uri, tmp_path / "other")
    monkeypatch.setenv("VAULT_TOKEN", given)
    from_environment = open_kms(vault_bench.uri, tmp_path / "other")
    monkeypatch.delenv("VAULT_TOKEN")
    write_atomically(vault_bench.directory / "vault.json", json.dumps({"token": given}).encode())
    kms = vault_bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    assert from_environment.unwrap(kek, wrapped, AAD) == DEK
    vault_bench.server.ask("POST", "auth/token/revoke", {"token": given})
    for opened in (kms, from_environment):
        with pytest.raises(KmsDenied, match="give the keeper another"):
            opened.unwrap(kek, wrapped, AAD)


def test_a_wrong_secret_id_is_denied(vault_bench: VaultBench) -> None:
    credential = json.loads((vault_bench.directory / "vault.json").read_text())
    write_atomically(
        vault_bench.directory / "vault.json", json.dumps({**credential, "secret_id": str(uuid4())}).encode()
    )
    with pytest.raises(KmsDenied):
        vault_bench.open().create_kek(uuid4())


def test_a_sealed_server_is_a_passing_trouble(vault_bench: VaultBench) -> None:
    kek, kms = vault_bench.open_admin().create_kek(uuid4()), vault_bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    vault_bench.server.seal()
    try:
        for opened in (kms, vault_bench.open()):  # with a token, and without one yet
            with pytest.raises(KmsUnavailable, match="503"):
                opened.unwrap(kek, wrapped, AAD)
    finally:
        vault_bench.server.unseal()
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_a_killed_server_is_a_passing_trouble_and_keeps_its_keys(vault_bench: VaultBench) -> None:
    kek, kms = vault_bench.open_admin().create_kek(uuid4()), vault_bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    vault_bench.server.kill()
    try:
        started = time.monotonic()
        for opened in (kms, vault_bench.open()):
            with pytest.raises(KmsUnavailable, match="reached"):
                opened.unwrap(kek, wrapped, AAD)
        assert time.monotonic() - started < 2
    finally:
        vault_bench.server.restart()
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_rotations_at_once_leave_no_version_that_a_crash_would_lose(vault_bench: VaultBench) -> None:
    tenant, admins, kms = uuid4(), [vault_bench.open_admin() for _ in range(4)], vault_bench.open()
    admins[0].create_kek(tenant)
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            made = set(pool.map(lambda admin: admin.rotate_kek(tenant), admins))
        made.add(admins[0].create_kek(tenant))
        wrapped = {kek: kms.wrap(kek, DEK, AAD) for kek in made}
        vault_bench.server.kill()
        vault_bench.server.restart()
        assert all(kms.unwrap(kek, data, AAD) == DEK for kek, data in wrapped.items())


def test_a_version_that_the_server_made_is_the_current_one(vault_bench: VaultBench) -> None:
    tenant, admin = uuid4(), vault_bench.open_admin()
    first = admin.create_kek(tenant)
    vault_bench.server.ask("POST", f"transit/keys/wardkey-{tenant}/rotate")
    assert admin.create_kek(tenant) == KekRef(first.name, "2")


def test_versions_end_from_the_oldest_on(vault_bench: VaultBench) -> None:
    tenant, admin, kms = uuid4(), vault_bench.open_admin(), vault_bench.open()
    first = admin.create_kek(tenant)
    second, _ = admin.rotate_kek(tenant), admin.rotate_kek(tenant)
    wrapped = {kek: kms.wrap(kek, DEK, AAD) for kek in (first, second)}
    for end in (admin.disable_kek, admin.destroy_kek):
        with pytest.raises(KmsDenied, match="older version comes first"):
            end(second)
    assert all(kms.unwrap(kek, data, AAD) == DEK for kek, data in wrapped.items())
    admin.disable_kek(first)
    with pytest.raises(KmsDenied, match="older version comes first"):
        admin.destroy_kek(second)
    admin.disable_kek(second)
    admin.destroy_kek(first)
    assert [version.state for version in admin.kek_versions(tenant)] == ["destroyed", "disabled", "enabled"]
    admin.destroy_kek(second)
    assert [version.state for version in admin.kek_versions(tenant)] == ["destroyed"] * 2 + ["enabled"]


def test_a_destroyed_kek_leaves_neither_policy_nor_group(vault_bench: VaultBench) -> None:
    tenant, admin = uuid4(), vault_bench.open_admin()
    admin.create_kek(tenant)
    admin.destroy_all(tenant)
    names = [
        *vault_bench.server.ask("GET", "sys/policies/acl?list=true")["data"]["keys"],
        *vault_bench.server.ask("GET", "identity/group/name?list=true")["data"]["keys"],
        *vault_bench.server.ask("GET", "transit/keys?list=true")["data"]["keys"],
    ]
    assert names and not [name for name in names if str(tenant) in name]


def test_only_a_server_with_a_known_certificate_is_asked(
    vault_bench: VaultBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kek, server = vault_bench.open_admin().create_kek(uuid4()), vault_bench.server
    wrapped = vault_bench.open().wrap(kek, DEK, AAD)
    with pytest.raises(KmsUnavailable):
        open_kms(server.tls_uri, vault_bench.directory).unwrap(kek, wrapped, AAD)
    (vault_bench.directory / "vault-ca.pem").write_bytes(server.certificate)
    assert open_kms(server.tls_uri, vault_bench.directory).unwrap(kek, wrapped, AAD) == DEK
    (vault_bench.directory / "vault-ca.pem").rename(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert open_kms(server.tls_uri, vault_bench.directory).unwrap(kek, wrapped, AAD) == DEK


def test_a_host_that_does_not_answer_is_a_passing_trouble(vault_bench: VaultBench) -> None:
    kek = vault_bench.open_admin().create_kek(uuid4())
    kms = open_kms(f"vault://127.0.0.1:{free_port()}/transit?tls=off", vault_bench.directory)
    with pytest.raises(KmsUnavailable):
        kms.unwrap(kek, b"wrapped", AAD)
    # TLS spoken to a server that speaks none
    with pytest.raises(KmsUnavailable):
        open_kms(f"vault://{vault_bench.server.address}", vault_bench.directory).unwrap(kek, b"wrapped", AAD)


@pytest.mark.parametrize(
    "uri",
    [
        "vault:",
        "vault://",
        "vault:///transit",
        "vault://hunter2@127.0.0.1:8200/transit",
        "vault://me:hunter2@127.0.0.1:8200/transit",
        "vault://127.0.0.1:8200/transit?token=hunter2",
        "vault://127.0.0.1:8200/transit?tls=off&tls=on",
        "vault://127.0.0.1:8200/transit?tls=hunter2",
        "vault://127.0.0.1:8200/hunter2/../sys",
        "vault://127.0.0.1:hunter2/transit",
        "vault://[hunter2/transit",
        "vault://vault.example.com:8200/transit?tls=off",
    ],
)
def test_a_wrong_uri_is_refused_and_not_repeated(vault_bench: VaultBench, uri: str) -> None:
    with pytest.raises(KmsConfigurationError) as caught:
        open_kms(uri, vault_bench.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"role_id": "x"}',
        '{"token": 1}',
        '{"token": "x", "role_id": "y"}',
        '{"token": ""}',
        '{"role_id": "x", "secret_id": "y", "mount": "../sys"}',
    ],
    ids=str,
)
def test_a_wrong_credential_is_refused(vault_bench: VaultBench, content: str) -> None:
    write_atomically(vault_bench.directory / "vault.json", content.encode())
    with pytest.raises(KmsConfigurationError, match=r"vault\.json"):
        vault_bench.open()


def test_a_credential_that_others_may_read_is_refused(vault_bench: VaultBench) -> None:
    (vault_bench.directory / "vault.json").chmod(0o640)
    with pytest.raises(KmsConfigurationError, match="chmod 600"):
        vault_bench.open()
