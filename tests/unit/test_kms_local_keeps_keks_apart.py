"""The local KMS: a KEK per tenant, sealed under the root key; what was wrapped opens in its place only."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from wardkey.kms import KekRef, KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable, open_kms
from wardkey.kms.providers.local import LocalKms

ACME, GLOBEX = UUID(int=10), UUID(int=11)
DEK, AAD = bytes(range(32)), b"additional data"


@pytest.fixture
def kms(tmp_path: Path) -> LocalKms:
    return LocalKms("local:", tmp_path)


def kek_file(directory: Path, tenant: UUID = ACME) -> Path:
    return directory / "kek" / f"{tenant}.json"


def test_a_wrapped_key_opens(kms: LocalKms) -> None:
    kek = kms.create_kek(ACME)
    assert kek == KekRef(f"local:{ACME}", "1")
    wrapped = kms.wrap(kek, DEK, AAD)
    assert kms.unwrap(kek, wrapped, AAD) == DEK
    assert DEK not in wrapped
    assert kms.wrap(kek, DEK, AAD) != wrapped


def test_creating_a_kek_again_keeps_it(kms: LocalKms, tmp_path: Path) -> None:
    kek = kms.create_kek(ACME)
    wrapped, content = kms.wrap(kek, DEK, AAD), kek_file(tmp_path).read_bytes()
    assert kms.create_kek(ACME) == kek
    assert kek_file(tmp_path).read_bytes() == content
    again = LocalKms("local:", tmp_path)
    assert again.create_kek(ACME) == kek
    assert again.unwrap(kek, wrapped, AAD) == DEK


def test_many_threads_create_one_kek(kms: LocalKms, tmp_path: Path) -> None:
    wrapped: list[bytes] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        wrapped.append(kms.wrap(kms.create_kek(ACME), DEK, AAD))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [kms.unwrap(kms.create_kek(ACME), each, AAD) for each in wrapped] == [DEK] * 8
    assert [path.name for path in kek_file(tmp_path).parent.iterdir()] == [f"{ACME}.json"]


@pytest.mark.parametrize("place", range(61))
def test_every_changed_byte_is_refused(kms: LocalKms, place: int) -> None:
    kek = kms.create_kek(ACME)
    wrapped = bytearray(kms.wrap(kek, DEK, AAD))
    assert len(wrapped) == 61
    wrapped[place] ^= 0x80
    with pytest.raises(KmsDenied):
        kms.unwrap(kek, bytes(wrapped), AAD)


def test_what_does_not_belong_together_is_refused(kms: LocalKms) -> None:
    acme, globex = kms.create_kek(ACME), kms.create_kek(GLOBEX)
    wrapped = kms.wrap(acme, DEK, AAD)
    for kek, data, aad in (
        (globex, wrapped, AAD),
        (acme, wrapped, AAD + b"x"),
        (acme, wrapped, b""),
        (acme, wrapped[:-1], AAD),
        (acme, wrapped + b"\0", AAD),
        (acme, b"", AAD),
        (acme, b"\1", AAD),
        (acme, b"\2" + wrapped[1:], AAD),
        (KekRef(acme.name, "2"), wrapped, AAD),
        (KekRef(acme.name, ""), wrapped, AAD),
        (KekRef(f"local:{uuid4()}", "1"), wrapped, AAD),
        (KekRef(f"gcpkms:{ACME}", "1"), wrapped, AAD),
        (KekRef(str(ACME), "1"), wrapped, AAD),
        (KekRef("local:../root.key", "1"), wrapped, AAD),
        (KekRef(f"local:{{{ACME}}}", "1"), wrapped, AAD),
        (KekRef("local:" + str(ACME).upper().replace("0A", "0a"), "1\ud800"), wrapped, AAD),
    ):
        with pytest.raises(KmsDenied):
            kms.unwrap(kek, data, aad)
    assert kms.unwrap(acme, wrapped, AAD) == DEK


def test_a_kek_of_another_tenant_in_its_place_is_refused(kms: LocalKms, tmp_path: Path) -> None:
    acme, globex = kms.create_kek(ACME), kms.create_kek(GLOBEX)
    wrapped = kms.wrap(globex, DEK, AAD)
    kek_file(tmp_path, ACME).write_bytes(kek_file(tmp_path, GLOBEX).read_bytes())
    with pytest.raises(KmsDenied):
        kms.unwrap(acme, wrapped, AAD)


def test_another_root_key_opens_nothing(kms: LocalKms, tmp_path: Path) -> None:
    kek = kms.create_kek(ACME)
    wrapped = kms.wrap(kek, DEK, AAD)
    (tmp_path / "root.key").write_bytes(os.urandom(32))
    with pytest.raises(KmsDenied, match=r"root\.key"):
        LocalKms("local:", tmp_path).unwrap(kek, wrapped, AAD)


def test_one_version_in_the_place_of_another_is_refused(kms: LocalKms, tmp_path: Path) -> None:
    first, second = kms.create_kek(ACME), kms.rotate_kek(ACME)
    assert second == KekRef(first.name, "2")
    document = json.loads(kek_file(tmp_path).read_text())
    document["keys"]["1"] = document["keys"]["2"]
    kek_file(tmp_path).write_text(json.dumps(document))
    with pytest.raises(KmsDenied):
        kms.wrap(first, DEK, AAD)


def test_what_is_destroyed_is_in_the_file_no_more(kms: LocalKms, tmp_path: Path) -> None:
    first = kms.create_kek(ACME)
    kms.rotate_kek(ACME)
    sealed = json.loads(kek_file(tmp_path).read_text())["keys"]
    kms.destroy_kek(first)
    assert sealed["1"]["sealed"] not in kek_file(tmp_path).read_text()
    kms.destroy_all(ACME)
    text = kek_file(tmp_path).read_text()
    assert sealed["2"]["sealed"] not in text and json.loads(text)["active"] is None
    for made in (kms, LocalKms("local:", tmp_path)):
        with pytest.raises(KmsDenied, match="destroyed"):
            made.create_kek(ACME)


def test_rotations_of_several_instances_lose_no_version(kms: LocalKms, tmp_path: Path) -> None:
    keks = [kms.create_kek(ACME)]

    def rotate() -> None:
        own = LocalKms("local:", tmp_path)
        keks.extend(own.rotate_kek(ACME) for _ in range(10))

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(kek.version) for kek in keks) == list(range(1, 42))
    assert all(kms.unwrap(kek, kms.wrap(kek, DEK, AAD), AAD) == DEK for kek in keks)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1}',
        b'{"format": 1, "active": "1", "keys": {"1": {}}}',
        b'{"format": 1, "active": "1", "keys": {"1": {"sealed": "*"}}}',
        b'{"format": 1, "active": "1", "keys": {"1": {"sealed": ""}}}',
        b'{"format": 1, "active": "1", "keys": {"1": {"sealed": 1}}}',
        b'{"format": 1, "active": "1", "keys": []}',
        b'{"format": 1, "active": "1", "keys": {"1": {"destroyed": 1}}}',
        b'{"format": 1, "active": null, "keys": {"1": {"sealed": "*"}}}',
        b'{"format": 1, "active": "x", "keys": {"x": {"sealed": "*"}}}',
        b'{"format": 1, "keys": {}}',
        b"[" * 100_000,
    ],
    ids=lambda content: repr(content[:60]),
)
def test_a_damaged_kek_is_an_error_and_stays_as_it_is(kms: LocalKms, tmp_path: Path, content: bytes) -> None:
    kek = kms.create_kek(ACME)
    kek_file(tmp_path).write_bytes(content)
    with pytest.raises(KmsError):
        kms.unwrap(kek, bytes(61), AAD)
    with suppress(KmsError):
        kms.create_kek(ACME)
    assert kek_file(tmp_path).read_bytes() == content


def test_errors_say_whether_to_try_again(kms: LocalKms, tmp_path: Path) -> None:
    assert KmsUnavailable.transient and not KmsDenied.transient and not KmsConfigurationError.transient
    kek = kms.create_kek(ACME)
    kek_file(tmp_path).rename(tmp_path / "away")
    kek_file(tmp_path).symlink_to(tmp_path / "away")
    with pytest.raises(KmsUnavailable):
        kms.wrap(kek, DEK, AAD)
    kek_file(tmp_path).unlink()
    with pytest.raises(KmsDenied):
        kms.wrap(kek, DEK, AAD)


@pytest.mark.parametrize(
    "uri", ["", "local", "vaults://x", "gcpkms+x://projects", "local:x", "LOCAL:", "file:///x?k=s"]
)
def test_an_unknown_kms_is_said_so(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KmsConfigurationError, match="local:"):
        open_kms(uri, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_known_one_opens(tmp_path: Path) -> None:
    assert open_kms("local:", tmp_path).create_kek(ACME).name == f"local:{ACME}"
