"""What wardkey asks of a KMS, asked of every provider: what was wrapped opens in its place only."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from wardkey_core.envelope import key_aad

from wardkey.kms import KekRef, Kms, KmsDenied, KmsError

from .benches import DEK, Bench

AAD = key_aad(UUID(int=10).bytes, 1, "default")


def test_a_wrapped_key_opens_and_shows_nothing(bench: Bench) -> None:
    kek = bench.open_admin().create_kek(uuid4())
    assert (
        kek.name.startswith(f"{bench.scheme}:")
        and kek.version
        and max(map(len, (kek.name, kek.version))) < 250
    )
    kms = bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    assert DEK not in wrapped and len(wrapped) < 400
    assert kms.unwrap(kek, wrapped, AAD) == DEK
    assert bench.open().unwrap(kek, wrapped, AAD) == DEK
    assert kms.wrap(kek, DEK, AAD) != wrapped


def test_creating_a_kek_again_keeps_it(bench: Bench) -> None:
    tenant, admin = uuid4(), bench.open_admin()
    kek = admin.create_kek(tenant)
    wrapped = bench.open().wrap(kek, DEK, AAD)
    assert admin.create_kek(tenant) == kek
    assert bench.open_admin().create_kek(tenant) == kek
    assert bench.open().unwrap(kek, wrapped, AAD) == DEK


def test_keks_of_two_tenants_differ(bench: Bench) -> None:
    admin = bench.open_admin()
    assert admin.create_kek(uuid4()) != admin.create_kek(uuid4())


def test_additional_data_of_another_tenant_or_version_is_refused(bench: Bench) -> None:
    kek, kms = bench.open_admin().create_kek(UUID(int=10)), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    for aad in (
        key_aad(UUID(int=11).bytes, 1, "default"),
        key_aad(UUID(int=10).bytes, 2, "default"),
        AAD[:-1],
        AAD + b"\0",
        b"",
    ):
        with pytest.raises(KmsDenied):
            kms.unwrap(kek, wrapped, aad)
    assert kms.unwrap(kek, wrapped, AAD) == DEK


def test_another_tenants_kek_is_refused(bench: Bench) -> None:
    admin, kms = bench.open_admin(), bench.open()
    acme, globex = admin.create_kek(uuid4()), admin.create_kek(uuid4())
    wrapped = kms.wrap(acme, DEK, AAD)
    with pytest.raises(KmsDenied):
        kms.unwrap(globex, wrapped, AAD)
    assert kms.unwrap(acme, wrapped, AAD) == DEK


def test_versions_of_a_kek_live_side_by_side(bench: Bench) -> None:
    tenant, admin, kms = uuid4(), bench.open_admin(), bench.open()
    first = admin.create_kek(tenant)
    old = kms.wrap(first, DEK, AAD)
    second = admin.rotate_kek(tenant)
    assert second.name == first.name and second.version != first.version
    assert admin.create_kek(tenant) == bench.open_admin().create_kek(tenant) == second
    new = kms.wrap(second, DEK, AAD)
    assert kms.unwrap(first, old, AAD) == kms.unwrap(second, new, AAD) == DEK
    for kek, wrapped in ((first, new), (second, old)):
        with pytest.raises(KmsDenied):
            kms.unwrap(kek, wrapped, AAD)
    assert kms.unwrap(first, kms.wrap(first, DEK, AAD), AAD) == DEK  # not silently under the newer one


@pytest.mark.parametrize(
    "change",
    [
        lambda wrapped: b"",
        lambda wrapped: wrapped[:1],
        lambda wrapped: wrapped[:-1],
        lambda wrapped: wrapped + b"\0",
        lambda wrapped: bytes((wrapped[0] ^ 1,)) + wrapped[1:],
        lambda wrapped: wrapped[:-20] + bytes((wrapped[-20] ^ 1,)) + wrapped[-19:],
        lambda wrapped: wrapped[:-1] + bytes((wrapped[-1] ^ 1,)),
        lambda wrapped: os.urandom(len(wrapped)),
    ],
    ids=["empty", "cut to one byte", "cut", "longer", "first byte", "ciphertext", "tag", "random"],
)
def test_a_changed_wrapped_key_is_refused(bench: Bench, change: Callable[[bytes], bytes]) -> None:
    kek, kms = bench.open_admin().create_kek(UUID(int=12)), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    with pytest.raises(KmsDenied):
        kms.unwrap(kek, change(wrapped), AAD)


def test_a_kek_that_is_not_one_is_refused(bench: Bench) -> None:
    kek, kms = bench.open_admin().create_kek(UUID(int=12)), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    missing = kek.name.replace(str(UUID(int=12)), str(uuid4()))
    assert missing != kek.name
    names = (
        "",
        ":",
        f"{bench.scheme}:",
        missing,
        kek.name + "/..",
        kek.name + "x",
        f"other{kek.name}",
        kek.name[:-1],
    )
    names += (kek.name.replace(str(UUID(int=12)), f"{{{UUID(int=12)}}}"), f"{bench.scheme}:{kek.name}")
    versions = ("", "0", "-1", "999999", "1\ud800", "1/../2", kek.version + "0", f" {kek.version}", "x" * 250)
    for wrong in [KekRef(name, kek.version) for name in names] + [
        KekRef(kek.name, text) for text in versions
    ]:
        with pytest.raises(KmsDenied):
            kms.unwrap(wrong, wrapped, AAD)
        with suppress(KmsDenied):  # or it is not made where it could be taken for the other's
            made = kms.wrap(wrong, DEK, AAD)
            with pytest.raises(KmsDenied):
                kms.unwrap(kek, made, AAD)


def test_many_threads_may_ask_at_once(bench: Bench) -> None:
    kek, kms = bench.open_admin().create_kek(UUID(int=12)), bench.open()
    deks = [os.urandom(32) for _ in range(48)]

    def there_and_back(dek: bytes) -> bytes:
        return kms.unwrap(kek, kms.wrap(kek, dek, AAD), AAD)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(there_and_back, deks)) == deks


def test_many_threads_make_one_kek(bench: Bench) -> None:
    tenant = uuid4()
    admins = [bench.open_admin() for _ in range(4)]

    def create(admin: Kms) -> KekRef | None:
        for _ in range(4):
            try:
                return admin.create_kek(tenant)
            except KmsError as error:
                assert error.transient
        return None

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(create, admins))
    assert len({kek.name for kek in made if kek}) == 1 and None not in made
    current, kms = bench.open_admin().create_kek(tenant), bench.open()
    assert kms.unwrap(current, kms.wrap(current, DEK, AAD), AAD) == DEK


def test_texts_tell_nothing(bench: Bench) -> None:
    kek, kms = bench.open_admin().create_kek(UUID(int=12)), bench.open()
    wrapped = kms.wrap(kek, DEK, AAD)
    texts = [repr(kms), str(kms), repr(kek)]
    for ref, data in ((kek, wrapped[:-1]), (KekRef(kek.name + "x", kek.version), wrapped), (kek, DEK)):
        with pytest.raises(KmsDenied) as caught:
            kms.unwrap(ref, data, AAD)
        error: BaseException | None = caught.value
        while error:
            texts += [str(error), repr(error)]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    tell = [DEK.hex(), repr(DEK)[2:20], repr(wrapped[-20:])[2:-1], wrapped.hex()[-16:], *bench.secrets()]
    assert not [text for text in texts for secret in tell if secret in text]
