"""Cloud KMS over gRPC and REST: IAM on one key, checksums both ways, version states, troubles that pass."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import google_crc32c
import grpc
import pytest

from tests.support.cloud_kms import ADMIN, USER, Refusal, State
from tests.support.cloud_kms_server import PARENT
from wardkey.daemon.files import write_atomically
from wardkey.kms import KekRef, KmsConfigurationError, KmsDenied, KmsUnavailable, open_kms
from wardkey.kms.configured import Entry

from .benches import DEK, GcpBench

AAD = b"additional data"


@pytest.fixture(params=["gcpkms_bench", "gcpkms_rest_bench"])
def bench(request: pytest.FixtureRequest) -> GcpBench:
    """Both transports."""
    made: GcpBench = request.getfixturevalue(request.param)
    return made


def test_a_tenant_has_a_key_ring_and_a_labelled_key_that_rotates(bench: GcpBench) -> None:
    tenant = uuid4()
    kek = bench.open_admin().create_kek(tenant)
    assert kek.name == f"gcpkms:{PARENT}/keyRings/wardkey-{tenant}/cryptoKeys/kek" and kek.version == "1"
    key = bench.kms.keys[bench.key_name(tenant)].resource
    assert key.purpose.name == "ENCRYPT_DECRYPT"
    assert key.version_template.algorithm.name == "GOOGLE_SYMMETRIC_ENCRYPTION"
    assert key.rotation_period == timedelta(days=365)
    left = key.next_rotation_time - datetime.now(UTC)
    assert timedelta(days=364) < left <= timedelta(days=365)
    assert key.destroy_scheduled_duration == timedelta(days=7)
    assert dict(key.labels) == {"managed-by": "wardkey", "wardkey-tenant": str(tenant)}


def test_a_version_that_cloud_kms_made_is_the_current_one(bench: GcpBench) -> None:
    tenant, admin = uuid4(), bench.open_admin()
    first = admin.create_kek(tenant)
    bench.kms.ahead = timedelta(days=366)
    assert admin.create_kek(tenant) == KekRef(first.name, "2")
    assert [version.state for version in admin.kek_versions(tenant)] == ["enabled"] * 2


def test_destruction_is_scheduled_then_done_and_nothing_comes_after_it(bench: GcpBench) -> None:
    tenant, admin, kms = uuid4(), bench.open_admin(), bench.open()
    kek = admin.create_kek(tenant)
    admin.rotate_kek(tenant)
    wrapped, started = kms.wrap(kek, DEK, AAD), time.time()
    admin.destroy_all(tenant)
    week = 7 * 86400
    for version in admin.kek_versions(tenant):
        assert version.state == "scheduled" and version.destroyed_at is not None
        assert started + week - 5 < version.destroyed_at < time.time() + week + 5
    bench.kms.ahead = timedelta(days=800)  # twice past the rotation that the key's schedule had
    destroyed = admin.kek_versions(tenant)
    assert [version.state for version in destroyed] == ["destroyed"] * 2
    for version in destroyed:
        assert version.destroyed_at is not None and version.destroyed_at < time.time() + week + 5
    for ask in (lambda: admin.create_kek(tenant), lambda: kms.unwrap(kek, wrapped, AAD)):
        with pytest.raises(KmsDenied):
            ask()
    admin.destroy_all(tenant)


def test_an_interrupted_destruction_is_made_whole(bench: GcpBench) -> None:
    tenant, admin = uuid4(), bench.open_admin()
    admin.create_kek(tenant)
    admin.rotate_kek(tenant)
    for stop in ("GetCryptoKey", "UpdateCryptoKey", "ListCryptoKeyVersions", "DestroyCryptoKeyVersion"):

        def trouble(method: str, answer: Any, stop: str = stop) -> Any:
            if method == stop:
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        bench.kms.trouble = trouble
        with pytest.raises(KmsUnavailable):
            admin.destroy_all(tenant)
    bench.mend()
    admin.destroy_all(tenant)
    assert {version.state for version in admin.kek_versions(tenant)} == {"scheduled"}


def test_an_interrupted_rotation_is_made_whole(bench: GcpBench) -> None:
    tenant, admin = uuid4(), bench.open_admin()
    first = admin.create_kek(tenant)

    def trouble(method: str, answer: Any) -> Any:
        if method == "CreateCryptoKeyVersion":
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
        return answer

    bench.kms.trouble = trouble
    with pytest.raises(KmsUnavailable):
        admin.rotate_kek(tenant)
    bench.mend()
    assert admin.create_kek(tenant) == first
    assert admin.rotate_kek(tenant) == KekRef(first.name, "3")
    admin.destroy_kek(KekRef(first.name, "2"))
    states = [version.state for version in admin.kek_versions(tenant)]
    assert states == ["enabled", "scheduled", "enabled"]


def test_the_keeper_may_use_this_key_and_nothing_else(bench: GcpBench) -> None:
    tenant, admin, kms = uuid4(), bench.open_admin(), bench.open()
    kek = admin.create_kek(tenant)
    keeper = f"serviceAccount:{bench.keeper['client_email']}"
    policy = bench.kms.keys[bench.key_name(tenant)].policy
    assert [(binding.role, list(binding.members)) for binding in policy.bindings] == [(USER, [keeper])]
    wrapped = kms.wrap(kek, DEK, AAD)
    for ask in (lambda: kms.create_kek(tenant), lambda: kms.create_kek(uuid4())):
        with pytest.raises(KmsDenied):
            ask()
    with pytest.raises(KmsDenied):  # who makes keys does not use them
        admin.unwrap(kek, wrapped, AAD)
    other = open_kms(bench.uri, bench.admin_directory).create_kek(uuid4())  # without keeper=
    with pytest.raises(KmsDenied):
        kms.wrap(other, DEK, AAD)


def test_a_binding_is_added_once_and_others_stay(bench: GcpBench) -> None:
    tenant, admin = uuid4(), bench.open_admin()
    open_kms(bench.uri, bench.admin_directory).create_kek(tenant)
    key = bench.kms.keys[bench.key_name(tenant)]
    key.policy.bindings.add(role=USER, members=["user:backup@example.com"])
    key.policy.bindings.add(role="roles/viewer", members=["user:auditor@example.com"])
    before = bench.kms.calls["SetIamPolicy"]
    for _ in range(3):
        admin.create_kek(tenant)
    assert bench.kms.calls["SetIamPolicy"] == before + 1
    assert {binding.role: sorted(binding.members) for binding in key.policy.bindings} == {
        USER: [f"serviceAccount:{bench.keeper['client_email']}", "user:backup@example.com"],
        "roles/viewer": ["user:auditor@example.com"],
    }


def test_a_policy_changed_meanwhile_is_not_overwritten(bench: GcpBench) -> None:
    def change(method: str, answer: Any) -> Any:
        if method == "GetIamPolicy":
            for key in bench.kms.keys.values():
                key.policy.etag = uuid4().bytes
            copy = type(answer)(etag=b"old")
            copy.bindings.extend(answer.bindings)
            return copy
        return answer

    bench.kms.trouble = change
    with pytest.raises(KmsUnavailable, match="same time"):
        bench.open_admin().create_kek(uuid4())


def test_what_was_interrupted_is_made_whole(bench: GcpBench) -> None:
    tenant, admin, kms = uuid4(), bench.open_admin(), bench.open()
    for stop in ("CreateKeyRing", "CreateCryptoKey", "GetIamPolicy"):

        def trouble(method: str, answer: Any, stop: str = stop) -> Any:
            if method == stop:
                raise Refusal(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        bench.kms.trouble = trouble
        with pytest.raises(KmsUnavailable):
            admin.create_kek(tenant)
    bench.mend()
    kek = admin.create_kek(tenant)
    assert kms.unwrap(kek, kms.wrap(kek, DEK, AAD), AAD) == DEK


@pytest.mark.parametrize(
    "change",
    [
        {"verified_plaintext_crc32c": False},
        {"verified_additional_authenticated_data_crc32c": False},
        {"ciphertext_crc32c": 1},
        {"ciphertext_crc32c": None},
        {"ciphertext": b"other"},
        {"name": f"{PARENT}/keyRings/other/cryptoKeys/kek/cryptoKeyVersions/1"},
    ],
    ids=lambda change: "-".join(map(str, change.items())),
)
def test_a_wrapped_key_that_is_not_what_was_asked_is_refused(
    bench: GcpBench, change: dict[str, object]
) -> None:
    kek, kms = bench.open_admin().create_kek(uuid4()), bench.open()

    def trouble(method: str, answer: Any) -> Any:
        for name, value in change.items():
            setattr(answer, name, value)
        return answer

    bench.kms.trouble = trouble
    with pytest.raises(KmsUnavailable):
        kms.wrap(kek, DEK, AAD)


@pytest.mark.parametrize(
    "change", [{"plaintext_crc32c": 1}, {"plaintext_crc32c": None}, {"plaintext": b"k" * 32}], ids=str
)
def test_a_key_with_a_wrong_checksum_is_refused(bench: GcpBench, change: dict[str, object]) -> None:
    kek, kms = bench.open_admin().create_kek(uuid4()), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)

    def trouble(method: str, answer: Any) -> Any:
        for name, value in change.items():
            setattr(answer, name, value)
        return answer

    bench.kms.trouble = trouble
    with pytest.raises(KmsUnavailable, match="checksum"):
        kms.unwrap(kek, wrapped, AAD)
    bench.mend()
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_what_arrives_changed_is_refused_by_the_service(
    bench: GcpBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kek, kms = bench.open_admin().create_kek(uuid4()), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    true = google_crc32c.value
    monkeypatch.setattr("tests.support.cloud_kms.google_crc32c.value", lambda data: true(data + b"flipped"))
    checked = type("Crc", (), {"value": staticmethod(true)})
    monkeypatch.setattr("wardkey.kms.providers.gcpkms.google_crc32c", checked)
    for ask in (lambda: kms.unwrap(kek, wrapped, AAD), lambda: kms.wrap(kek, DEK, AAD)):
        with pytest.raises(KmsDenied):
            ask()


def test_a_disabled_or_destroyed_version_is_refused(bench: GcpBench) -> None:
    tenant, kms = uuid4(), bench.open()
    kek = bench.open_admin().create_kek(tenant)
    wrapped = kms.wrap(kek, DEK, AAD)
    version = bench.kms.keys[bench.key_name(tenant)].versions[f"{bench.key_name(tenant)}/cryptoKeyVersions/1"]
    for state in (State.DISABLED, State.DESTROY_SCHEDULED, State.DESTROYED):
        version.state = state
        for ask in (lambda: kms.unwrap(kek, wrapped, AAD), lambda: kms.wrap(kek, DEK, AAD)):
            with pytest.raises(KmsDenied):
                ask()
    version.state = State.ENABLED
    assert kms.unwrap(kek, wrapped, AAD) == DEK


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, KmsUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, KmsUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, KmsUnavailable),
        (grpc.StatusCode.INTERNAL, KmsUnavailable),
        (grpc.StatusCode.UNKNOWN, KmsUnavailable),
        (grpc.StatusCode.ABORTED, KmsUnavailable),
        (grpc.StatusCode.PERMISSION_DENIED, KmsDenied),
        (grpc.StatusCode.UNAUTHENTICATED, KmsDenied),
        (grpc.StatusCode.NOT_FOUND, KmsDenied),
        (grpc.StatusCode.INVALID_ARGUMENT, KmsDenied),
        (grpc.StatusCode.FAILED_PRECONDITION, KmsDenied),
    ],
    ids=lambda value: getattr(value, "name", value.__class__.__name__),
)
def test_errors_are_told_apart(bench: GcpBench, code: grpc.StatusCode, error: type[Exception]) -> None:
    kek, kms = bench.open_admin().create_kek(uuid4()), bench.open()
    wrapped, before = kms.wrap(kek, DEK, AAD), bench.kms.calls["Decrypt"]

    def trouble(method: str, answer: Any) -> Any:
        raise Refusal(code, "hunter2")

    bench.kms.trouble = trouble
    with pytest.raises(error) as caught:
        kms.unwrap(kek, wrapped, AAD)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    # The caller of the provider repeats, and nobody else; but Google's session asks with a new token itself.
    repeats = 2 if code == grpc.StatusCode.UNAUTHENTICATED and "rest" in bench.uri else 0
    assert bench.kms.calls["Decrypt"] == before + 1 + repeats


def test_a_service_that_hangs_is_given_up(bench: GcpBench, monkeypatch: pytest.MonkeyPatch) -> None:
    kek, kms = bench.open_admin().create_kek(uuid4()), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    bench.kms.trouble = lambda method, answer: time.sleep(1.5) or answer
    monkeypatch.setattr("wardkey.kms.providers.gcpkms._TIMEOUT", 0.3)
    started = time.monotonic()
    with pytest.raises(KmsUnavailable):
        kms.unwrap(kek, wrapped, AAD)
    assert time.monotonic() - started < 1


def test_a_server_that_was_down_is_found_again_soon(gcpkms_bench: GcpBench) -> None:
    kek, kms = gcpkms_bench.open_admin().create_kek(uuid4()), gcpkms_bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    gcpkms_bench.server.stop_grpc()
    try:
        started = time.monotonic()
        for opened in (kms, gcpkms_bench.open()):
            with pytest.raises(KmsUnavailable):
                opened.unwrap(kek, wrapped, AAD)
        assert time.monotonic() - started < 4
    finally:
        gcpkms_bench.server.start_grpc()
    until = time.monotonic() + 3
    while True:
        try:
            assert kms.unwrap(kek, wrapped, AAD) == DEK
            break
        except KmsUnavailable:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_only_a_server_with_a_known_certificate_is_asked(bench: GcpBench) -> None:
    kek = bench.open_admin().create_kek(uuid4())
    (bench.directory / "gcp-ca.pem").unlink()
    before = bench.kms.calls["Encrypt"]
    with pytest.raises(KmsUnavailable):
        bench.open().wrap(kek, DEK, AAD)
    assert bench.kms.calls["Encrypt"] == before


def test_another_accounts_token_is_refused(bench: GcpBench) -> None:
    kek = bench.open_admin().create_kek(uuid4())
    impostor = {**bench.kms.make_account("impostor", ADMIN), "client_email": bench.keeper["client_email"]}
    write_atomically(bench.directory / "gcp.json", json.dumps(impostor).encode())
    with pytest.raises(KmsDenied):
        bench.open().wrap(kek, DEK, AAD)


@pytest.mark.parametrize(
    "uri",
    [
        "gcpkms:",
        "gcpkms://",
        "gcpkms://projects/x",
        "gcpkms://projects/x/locations/y/keyRings/z",
        f"gcpkms://hunter2@{PARENT}",
        f"gcpkms://{PARENT}?key=hunter2",
        f"gcpkms://{PARENT}?transport=hunter2",
        f"gcpkms://{PARENT}?keeper=hunter2",
        f"gcpkms://{PARENT}?endpoint=https://me:hunter2@localhost:1",
    ],
)
def test_a_wrong_uri_is_refused_and_not_repeated(gcpkms_bench: GcpBench, uri: str) -> None:
    with pytest.raises(KmsConfigurationError) as caught:
        open_kms(uri, gcpkms_bench.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda credential: {},
        lambda credential: {"type": "service_account"},
        lambda credential: {**credential, "private_key": "hunter2"},
        lambda credential: {**credential, "client_email": None, "private_key": None},
    ],
)
def test_a_wrong_credential_is_refused(
    gcpkms_bench: GcpBench, change: Callable[[dict[str, str]], dict[str, Any]]
) -> None:
    path = gcpkms_bench.directory / "gcp.json"
    write_atomically(path, json.dumps(change(gcpkms_bench.keeper)).encode())
    with pytest.raises(KmsConfigurationError, match=r"gcp\.json") as caught:
        gcpkms_bench.open()
    assert "hunter2" not in str(caught.value)


def test_without_its_file_googles_own_credentials_are_used(
    gcpkms_bench: GcpBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kek, path = gcpkms_bench.open_admin().create_kek(uuid4()), gcpkms_bench.directory / "gcp.json"
    path.rename(path.with_name("elsewhere.json"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(gcpkms_bench.directory))
    with pytest.raises(KmsConfigurationError, match=r"gcp\.json"):
        gcpkms_bench.open()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path.with_name("elsewhere.json")))
    assert gcpkms_bench.open().wrap(kek, DEK, AAD)


def test_each_region_has_its_key_rings_in_its_own_location(gcpkms_bench: GcpBench) -> None:
    places = {"eu-de": PARENT, "us": PARENT.replace("europe-west3", "us-east1")}
    used = Entry(gcpkms_bench.uri, regions=places, admin=gcpkms_bench.admin_uri).within("us")
    assert used and used.admin
    tenant = uuid4()
    kek = open_kms(used.admin, gcpkms_bench.admin_directory).create_kek(tenant)
    assert kek.name == f"gcpkms:{places['us']}/keyRings/wardkey-{tenant}/cryptoKeys/kek"
    kms = open_kms(used.uri, gcpkms_bench.directory)
    wrapped = kms.wrap(kek, DEK, AAD)
    assert kms.unwrap(kek, wrapped, AAD) == DEK
    with pytest.raises(KmsDenied):  # in the other region's location
        gcpkms_bench.open().unwrap(kek, wrapped, AAD)
