"""AWS KMS, as moto serves it: keys with alias, tags and rotation; which errors pass and which do not."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.support.moto import answering
from tests.support.ports import free_port
from wardkey.daemon.files import write_atomically
from wardkey.kms import KekRef, KmsConfigurationError, KmsDenied, KmsUnavailable, open_kms
from wardkey.kms.providers.awskms import AwsKms

from .benches import DEK, AwsBench

AAD = b"additional data"
KEK = KekRef(f"awskms:alias/wardkey-{uuid4()}", str(uuid4()))


def test_a_kek_has_alias_tags_and_rotation(awskms_bench: AwsBench) -> None:
    tenant, client = uuid4(), awskms_bench.client()
    kek = awskms_bench.open_admin().create_kek(tenant)
    assert kek.name == f"awskms:alias/wardkey-{tenant}"
    tags = client.list_resource_tags(KeyId=kek.version)["Tags"]
    assert {tag["TagKey"]: tag["TagValue"] for tag in tags} == {
        "managed-by": "wardkey",
        "wardkey-tenant": str(tenant),
    }
    assert client.get_key_rotation_status(KeyId=kek.version)["KeyRotationEnabled"] is True
    aliases = client.list_aliases(KeyId=kek.version)["Aliases"]
    assert [alias["AliasName"] for alias in aliases] == [f"alias/wardkey-{tenant}"]


def keys_of(bench: AwsBench, tenant: UUID) -> list[dict[str, Any]]:
    client = bench.client()
    described = [client.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in client.list_keys()["Keys"]]
    return [key for key in described if str(tenant) in key["Description"]]


def test_the_encryption_context_is_the_additional_data(awskms_bench: AwsBench) -> None:
    kek, client = awskms_bench.open_admin().create_kek(uuid4()), awskms_bench.client()
    wrapped = awskms_bench.open().wrap(kek, DEK, AAD)
    context = {"wardkey-kek": kek.name.partition(":")[2], "wardkey-aad": AAD.hex()}
    assert client.decrypt(CiphertextBlob=wrapped, EncryptionContext=context)["Plaintext"] == DEK
    with pytest.raises(client.exceptions.InvalidCiphertextException):
        client.decrypt(CiphertextBlob=wrapped)


def test_a_key_made_at_the_same_time_is_not_left_over(
    awskms_bench: AwsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, kms = uuid4(), awskms_bench.open_admin()
    first = kms.create_kek(tenant)
    # The other's key is not there yet when it is looked for.
    monkeypatch.setattr(AwsKms, "_find", lambda self, name: None)
    assert kms.create_kek(tenant) == first
    monkeypatch.undo()
    assert sorted(key["KeyState"] for key in keys_of(awskms_bench, tenant)) == ["Enabled", "PendingDeletion"]


def test_a_rotated_kek_is_a_numbered_key_behind_the_same_alias(awskms_bench: AwsBench) -> None:
    tenant, admin, client = uuid4(), awskms_bench.open_admin(), awskms_bench.client()
    keks = [admin.create_kek(tenant), admin.rotate_kek(tenant), admin.rotate_kek(tenant)]
    for number, kek in enumerate(keks, 1):
        key = client.describe_key(KeyId=f"alias/wardkey-{tenant}-{number}")["KeyMetadata"]
        assert key["KeyId"] == kek.version
        assert key["Description"] == f"wardkey KEK of {tenant}, version {number}"
        tags = client.list_resource_tags(KeyId=kek.version)["Tags"]
        assert {tag["TagKey"] for tag in tags} == {"managed-by", "wardkey-tenant"}
        assert client.get_key_rotation_status(KeyId=kek.version)["KeyRotationEnabled"] is True


def test_a_key_of_wardkey_0_1_is_the_first(awskms_bench: AwsBench) -> None:
    tenant, admin, client = uuid4(), awskms_bench.open_admin(), awskms_bench.client()
    made = client.create_key(Description=f"wardkey KEK of {tenant}")["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName=f"alias/wardkey-{tenant}", TargetKeyId=made)
    first = admin.create_kek(tenant)
    second = admin.rotate_kek(tenant)
    assert [version.version for version in admin.kek_versions(tenant)] == [made, second.version]
    admin.destroy_kek(first)
    assert [version.state for version in admin.kek_versions(tenant)] == ["scheduled", "enabled"]


def test_an_interrupted_rotation_is_made_whole(
    awskms_bench: AwsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, admin = uuid4(), awskms_bench.open_admin()
    first, ask = admin.create_kek(tenant), AwsKms._ask

    def stopping(self: AwsKms, operation: str, **parameters: object) -> dict[str, object]:
        if operation == "update_alias":
            raise KmsUnavailable("killed")
        return ask(self, operation, **parameters)

    for _ in range(2):
        monkeypatch.setattr(AwsKms, "_ask", stopping)
        with pytest.raises(KmsUnavailable):
            admin.rotate_kek(tenant)
        monkeypatch.undo()
    assert admin.create_kek(tenant) == first
    _, left = admin.kek_versions(tenant)  # one, not two, and known
    assert admin.rotate_kek(tenant).version == left.version
    admin.destroy_all(tenant)
    assert {version.state for version in admin.kek_versions(tenant)} == {"scheduled"}


def test_what_a_rotation_left_and_was_destroyed_is_passed_over(
    awskms_bench: AwsBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, admin = uuid4(), awskms_bench.open_admin()
    first = admin.create_kek(tenant)
    number_two = admin._make(f"alias/wardkey-{tenant}-2", tenant, 2)["KeyId"]  # type: ignore[attr-defined]
    admin.destroy_kek(KekRef(first.name, number_two))
    third = admin.rotate_kek(tenant)
    versions = [(version.version, version.state) for version in admin.kek_versions(tenant)]
    assert versions == [(first.version, "enabled"), (number_two, "scheduled"), (third.version, "enabled")]


def test_destruction_is_as_soon_as_aws_allows(awskms_bench: AwsBench) -> None:
    tenant, admin, started = uuid4(), awskms_bench.open_admin(), time.time()
    admin.create_kek(tenant)
    admin.destroy_all(tenant)
    (version,) = admin.kek_versions(tenant)
    assert version.state == "scheduled" and version.destroyed_at is not None
    assert abs(version.destroyed_at - started - 7 * 86400) < 60


def test_another_tenants_key_is_not_ended(awskms_bench: AwsBench) -> None:
    admin, client = awskms_bench.open_admin(), awskms_bench.client()
    acme, globex = admin.create_kek(uuid4()), admin.create_kek(uuid4())
    for end in (admin.disable_kek, admin.destroy_kek):
        with pytest.raises(KmsDenied, match="of this tenant"):
            end(KekRef(acme.name, globex.version))
    assert client.describe_key(KeyId=globex.version)["KeyMetadata"]["KeyState"] == "Enabled"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "ThrottlingException"),
        (429, "TooManyRequestsException"),
        (500, "KMSInternalException"),
        (500, "DependencyTimeoutException"),
        (500, "KeyUnavailableException"),
        (503, "ServiceUnavailable"),
        (502, "whatever"),
    ],
)
def test_troubles_that_pass(awskms_bench: AwsBench, status: int, code: str) -> None:
    with answering(status, code) as uri, pytest.raises(KmsUnavailable):
        open_kms(uri, awskms_bench.directory).unwrap(KEK, b"wrapped", AAD)


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "DisabledException",
        "ExpiredTokenException",
        "IncorrectKeyException",
        "InvalidCiphertextException",
        "KMSInvalidStateException",
        "NotFoundException",
        "UnrecognizedClientException",
    ],
)
def test_refusals_that_do_not(awskms_bench: AwsBench, code: str) -> None:
    with answering(400, code) as uri:
        kms = open_kms(uri, awskms_bench.directory)
        for ask in (lambda: kms.unwrap(KEK, b"wrapped", AAD), lambda: kms.create_kek(uuid4())):
            with pytest.raises(KmsDenied) as caught:
                ask()
            assert "as asked" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"Plaintext": 1}', b'{"Plaintext": "AAAA", "KeyId": "other"}'],
    ids=repr,
)
def test_garbage_is_never_a_key(awskms_bench: AwsBench, body: bytes) -> None:
    with answering(200, "", body) as uri, pytest.raises(KmsUnavailable):
        open_kms(uri, awskms_bench.directory).unwrap(KEK, b"wrapped", AAD)


def test_a_server_that_is_down_is_a_passing_trouble(awskms_bench: AwsBench) -> None:
    endpoint, started = f"http://127.0.0.1:{free_port()}", time.monotonic()
    kms = open_kms(f"awskms://eu-central-1?endpoint={endpoint}", awskms_bench.directory)
    with pytest.raises(KmsUnavailable):
        kms.unwrap(KEK, b"wrapped", AAD)
    assert time.monotonic() - started < 2


def test_a_credential_of_the_environment_does_too(
    awskms_bench: AwsBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    kek = awskms_bench.open_admin().create_kek(uuid4())
    (awskms_bench.directory / "aws.json").unlink()
    with pytest.raises(KmsConfigurationError, match=r"aws\.json"):
        awskms_bench.open().wrap(kek, DEK, AAD)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWARDKEYTESTS0000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    kms = awskms_bench.open()
    assert kms.unwrap(kek, kms.wrap(kek, DEK, AAD), AAD) == DEK


@pytest.mark.parametrize(
    "uri",
    [
        "awskms:",
        "awskms://",
        "awskms://Frankfurt",
        "awskms://hunter2@eu-central-1",
        "awskms://eu-central-1?secret_access_key=hunter2",
        "awskms://eu-central-1?endpoint=http://kms.example.com",
        "awskms://eu-central-1?endpoint=https://me:hunter2@127.0.0.1:1",
        "awskms://eu-central-1?endpoint=hunter2",
        "awskms://eu-central-1?endpoint=http://[hunter2",
    ],
)
def test_a_wrong_uri_is_refused_and_not_repeated(awskms_bench: AwsBench, uri: str) -> None:
    with pytest.raises(KmsConfigurationError) as caught:
        open_kms(uri, awskms_bench.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [{}, {"access_key_id": "x"}, {"access_key_id": "x", "secret_access_key": 1}]
)
def test_a_wrong_credential_is_refused(awskms_bench: AwsBench, content: dict[str, object]) -> None:
    write_atomically(awskms_bench.directory / "aws.json", json.dumps(content).encode())
    with pytest.raises(KmsConfigurationError, match=r"aws\.json"):
        awskms_bench.open()


@pytest.mark.parametrize("form", ["endless", "chunked", "dripping"])
def test_an_answer_without_end_costs_neither_memory_nor_time(tmp_path: Path, form: str) -> None:
    answers = {"endless": _endless, "chunked": _chunked, "dripping": _dripping}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sent: list[int] = []
        serving = threading.Thread(target=_serve, args=(listener, answers[form], sent))
        serving.start()
        write_atomically(tmp_path / "aws.json", b'{"access_key_id": "A", "secret_access_key": "S"}')
        host, port = listener.getsockname()
        began = time.monotonic()
        with pytest.raises(KmsUnavailable):
            open_kms(f"awskms://eu-central-1?endpoint=http://{host}:{port}", tmp_path).unwrap(KEK, b"x", AAD)
        assert time.monotonic() - began < 10
        serving.join(10)
        assert not serving.is_alive()
        assert sum(sent) < 64 * 1024 * 1024  # what the kernel's buffers took, too


def _serve(
    listener: socket.socket, answer: Callable[[Callable[[bytes], None]], None], sent: list[int]
) -> None:
    connection, _ = listener.accept()

    def send(data: bytes) -> None:
        connection.sendall(data)
        sent.append(len(data))

    with connection, suppress(OSError):
        connection.settimeout(10)
        connection.recv(65536)
        answer(send)


def _endless(send: Callable[[bytes], None]) -> None:
    send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n\r\n{")
    while True:
        send(b" " * 1_000_000)


def _chunked(send: Callable[[bytes], None]) -> None:
    send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        send(b"f4240\r\n" + b" " * 1_000_000 + b"\r\n")


def _dripping(send: Callable[[bytes], None]) -> None:
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    for _ in range(1000):
        send(b" ")
        time.sleep(0.3)
