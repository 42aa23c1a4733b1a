"""SoftHSM itself: a KEK cannot be had from it, a wrong PIN is tried once, a lost session is opened again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pkcs11
import pytest
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from tests.support.softhsm import LABEL, MODULE
from wardkey.daemon.files import write_atomically
from wardkey.kms import KekRef, KmsConfigurationError, KmsDenied, KmsUnavailable, open_kms
from wardkey.kms.providers.pkcs11 import Pkcs11Kms

from .benches import DEK, Pkcs11Bench

AAD = b"additional data"
# python-pkcs11 closes a search in a destructor, which cannot raise where there is no session any more.
without_session = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def objects(label: str) -> list[Any]:
    """Return the token's objects of this label, as a client that is logged in sees them."""
    session = pkcs11.lib(MODULE).get_token(token_label=LABEL).open(rw=True)
    return list(session.get_objects({Attribute.LABEL: label}))


def test_a_kek_cannot_be_had_from_the_token(pkcs11_bench: Pkcs11Bench) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    kms.create_kek(tenant)
    (key,) = objects(f"wardkey-{tenant}")
    for attribute in (
        Attribute.SENSITIVE,
        Attribute.ALWAYS_SENSITIVE,
        Attribute.NEVER_EXTRACTABLE,
        Attribute.PRIVATE,
    ):
        assert key[attribute] is True
    assert key[Attribute.LOCAL] is True and key[Attribute.VALUE_LEN] == 32
    for attribute in (Attribute.EXTRACTABLE, Attribute.COPYABLE, Attribute.WRAP, Attribute.DERIVE):
        assert key[attribute] is False
    with pytest.raises(pkcs11.AttributeSensitive):
        key[Attribute.VALUE]
    for attribute, value in ((Attribute.EXTRACTABLE, True), (Attribute.SENSITIVE, False)):
        with pytest.raises(pkcs11.PKCS11Error):
            key[attribute] = value
    wrapping = key.session.generate_key(KeyType.AES, 256, template={Attribute.WRAP: True})
    with pytest.raises(pkcs11.PKCS11Error):
        wrapping.wrap_key(key, mechanism=Mechanism.AES_KEY_WRAP)
    with pytest.raises(pkcs11.PKCS11Error):
        key.copy({Attribute.EXTRACTABLE: True})


def test_a_key_that_could_be_had_is_not_used(pkcs11_bench: Pkcs11Bench) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    label, planted = f"wardkey-{tenant}", "9999999999999999999-00000000"
    kek = kms.create_kek(tenant)
    session = objects(label)[0].session
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.AES,
            Attribute.TOKEN: True,
            Attribute.LABEL: label,
            Attribute.ID: planted.encode(),
            Attribute.VALUE: os.urandom(32),
            Attribute.EXTRACTABLE: True,
            Attribute.SENSITIVE: False,
            Attribute.ENCRYPT: True,
        }
    )
    assert len(objects(label)) == 2
    assert kms.create_kek(tenant) == kek
    with pytest.raises(KmsDenied):
        kms.wrap(KekRef(kek.name, planted), DEK, AAD)


def test_a_destroyed_kek_opens_nothing(pkcs11_bench: Pkcs11Bench) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    kek = kms.create_kek(tenant)
    wrapped = kms.wrap(kek, DEK, AAD)
    objects(f"wardkey-{tenant}")[0].destroy()
    with pytest.raises(KmsDenied, match="no such KEK"):
        kms.unwrap(kek, wrapped, AAD)


def test_the_token_itself_refuses_a_disabled_version(pkcs11_bench: Pkcs11Bench) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    kek = kms.create_kek(tenant)
    (key,) = objects(f"wardkey-{tenant}")
    parameters = {"mechanism": Mechanism.AES_GCM, "mechanism_param": pkcs11.GCMParams(bytes(12))}
    assert key.encrypt(DEK, **parameters)
    kms.rotate_kek(tenant)
    kms.disable_kek(kek)
    assert key[Attribute.ENCRYPT] is False and key[Attribute.DECRYPT] is False
    for use in (key.encrypt, key.decrypt):
        with pytest.raises(pkcs11.PKCS11Error, match="0x68"):  # CKR_KEY_FUNCTION_NOT_PERMITTED
            use(DEK, **parameters)


def test_a_destroyed_kek_is_in_the_token_no_more(pkcs11_bench: Pkcs11Bench) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    kek = kms.create_kek(tenant)
    kms.rotate_kek(tenant)
    assert len(objects(f"wardkey-{tenant}")) == 2
    kms.destroy_kek(kek)
    assert len(objects(f"wardkey-{tenant}")) == 1
    kms.destroy_all(tenant)
    assert objects(f"wardkey-{tenant}") == []


def test_a_new_version_is_the_newest_even_by_a_clock_put_back(
    pkcs11_bench: Pkcs11Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, kms = uuid4(), pkcs11_bench.open()
    first = kms.create_kek(tenant)
    monkeypatch.setattr("wardkey.kms.providers.pkcs11.time.time_ns", lambda: 10**18)
    second = kms.rotate_kek(tenant)
    assert second.version > first.version and kms.create_kek(tenant) == second


@without_session
def test_a_lost_session_is_a_passing_trouble(pkcs11_bench: Pkcs11Bench) -> None:
    kms = pkcs11_bench.open()
    assert isinstance(kms, Pkcs11Kms)
    kek = kms.create_kek(uuid4())
    wrapped = kms.wrap(kek, DEK, AAD)
    kms._session.close()
    with pytest.raises(KmsUnavailable):
        kms.unwrap(kek, wrapped, AAD)
    assert kms.unwrap(kek, wrapped, AAD) == DEK


@without_session
def test_a_module_that_was_started_again_is_a_passing_trouble(pkcs11_bench: Pkcs11Bench) -> None:
    kms = pkcs11_bench.open()
    kek = kms.create_kek(uuid4())
    wrapped = kms.wrap(kek, DEK, AAD)
    pkcs11.lib(MODULE).reinitialize()  # every session, object and login of the process is gone
    with pytest.raises(KmsUnavailable):
        kms.unwrap(kek, wrapped, AAD)
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_a_token_that_is_not_there_is_a_passing_trouble(pkcs11_bench: Pkcs11Bench) -> None:
    for wrong in ("token=other", "token=wardkey%20test;serial=0000"):
        kms = open_kms(f"pkcs11:{wrong}?module-path={MODULE}", pkcs11_bench.directory)
        with pytest.raises(KmsUnavailable, match="not there"):
            kms.create_kek(uuid4())
    serial = pkcs11.lib(MODULE).get_token(token_label=LABEL).serial.decode().strip("\0 ")
    uri = f"pkcs11:token=wardkey%20test;serial={serial}?module-path={MODULE}"
    open_kms(uri, pkcs11_bench.directory).create_kek(uuid4())


def test_a_token_held_by_another_thread_is_not_waited_for_long(
    pkcs11_bench: Pkcs11Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kms = pkcs11_bench.open()
    assert isinstance(kms, Pkcs11Kms)
    kek = kms.create_kek(uuid4())
    monkeypatch.setattr("wardkey.kms.providers.pkcs11._WAIT", 0.1)
    with kms._lock, pytest.raises(KmsUnavailable, match="does not answer"):
        kms.wrap(kek, DEK, AAD)
    assert kms.wrap(kek, DEK, AAD)


def test_a_wrong_pin_is_tried_once(pkcs11_bench: Pkcs11Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pkcs11.lib(MODULE).reinitialize()  # no login of another test
    write_atomically(pkcs11_bench.directory / "pkcs11.pin", b"0000\n")
    kms = pkcs11_bench.open()
    assert isinstance(kms, Pkcs11Kms)
    with pytest.raises(KmsDenied, match="PIN"):
        kms.create_kek(uuid4())
    write_atomically(pkcs11_bench.directory / "pkcs11.pin", pkcs11_bench.server.pin.encode())
    pkcs11_bench.open().create_kek(uuid4())  # now the process is logged in, and another try would pass
    with pytest.raises(KmsDenied, match="PIN"):
        kms.create_kek(uuid4())


@pytest.mark.parametrize(
    "uri",
    [
        "pkcs11:",
        "pkcs11:token=x",
        f"pkcs11:?module-path={MODULE}",
        f"pkcs11:serial=1?module-path={MODULE}",
        f"pkcs11:token=x;token=y?module-path={MODULE}",
        f"pkcs11:token=x;pin-value=hunter2?module-path={MODULE}",
        f"pkcs11:token=x?module-path={MODULE}&pin-value=hunter2",
        "pkcs11:token=x?module-path=libsofthsm2.so",
        "pkcs11:token=x?module-path=/nowhere.so",
        f"pkcs11:token=x?module-path={__file__}",
    ],
)
def test_a_wrong_uri_is_refused_and_not_repeated(pkcs11_bench: Pkcs11Bench, uri: str) -> None:
    with pytest.raises(KmsConfigurationError) as caught:
        open_kms(uri, pkcs11_bench.directory)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_a_wrong_pin_file_is_refused(pkcs11_bench: Pkcs11Bench, content: bytes, tmp_path: Path) -> None:
    path = pkcs11_bench.directory / "pkcs11.pin"
    write_atomically(path, content)
    with pytest.raises(KmsConfigurationError, match=r"pkcs11\.pin"):
        pkcs11_bench.open()
    path.chmod(0o644)
    with pytest.raises(KmsConfigurationError, match="chmod 600"):
        pkcs11_bench.open()
    path.unlink()
    with pytest.raises(KmsConfigurationError, match="missing"):
        pkcs11_bench.open()
