"""The life of a KEK, asked of every provider: rotated, disabled, destroyed, told of; all of it repeatable."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import UUID, uuid4

import pytest

from wardkey.kms import KekRef, Kms, KmsDenied, KmsError

from .benches import DEK, AwsBench, Bench, GcpBench, Pkcs11Bench

AAD = b"additional data"
# After destroy_all, some KMSes have nothing left to tell by.
REMEMBERS = ("local", "gcpkms", "awskms", "azure")


@pytest.fixture
def tenant() -> UUID:
    return uuid4()


def states(kms: Kms, tenant: UUID) -> dict[str, str]:
    return {version.version: version.state for version in kms.kek_versions(tenant)}


def opens(kms: Kms, kek: KekRef, wrapped: bytes) -> bool:
    try:
        assert kms.unwrap(kek, wrapped, AAD) == DEK
    except KmsDenied:
        return False
    return True


def wraps(kms: Kms, kek: KekRef) -> bool:
    try:
        kms.wrap(kek, DEK, AAD)
    except KmsDenied:
        return False
    return True


def test_a_rotated_kek_is_the_current_one_and_older_ones_go_on(bench: Bench, tenant: UUID) -> None:
    admin, kms = bench.open_admin(), bench.open()
    keks = [admin.create_kek(tenant)]
    wrapped = [kms.wrap(keks[0], DEK, AAD)]
    for _ in range(3):
        keks.append(admin.rotate_kek(tenant))
        wrapped.append(kms.wrap(keks[-1], DEK, AAD))
        assert admin.create_kek(tenant) == keks[-1]
    assert len(set(keks)) == 4 and len({kek.name for kek in keks}) == 1
    for opened in (kms, bench.open()):
        assert all(opens(opened, kek, data) for kek, data in zip(keks, wrapped, strict=True))
        assert all(wraps(opened, kek) for kek in keks)


def test_versions_are_told_oldest_first_with_their_times(bench: Bench, tenant: UUID) -> None:
    admin, started = bench.open_admin(), time.time()
    assert admin.kek_versions(tenant) == []
    keks = [admin.create_kek(tenant), admin.rotate_kek(tenant), admin.rotate_kek(tenant)]
    versions = admin.kek_versions(tenant)
    assert [version.version for version in versions] == [kek.version for kek in keks]
    for version in versions:
        assert version.state == "enabled" and version.destroyed_at is None
        assert version.created_at is not None and started - 2 < version.created_at < time.time() + 2


def test_a_disabled_version_neither_wraps_nor_unwraps(bench: Bench, tenant: UUID) -> None:
    admin, kms = bench.open_admin(), bench.open()
    old = admin.create_kek(tenant)
    wrapped = kms.wrap(old, DEK, AAD)
    new = admin.rotate_kek(tenant)
    after = kms.wrap(new, DEK, AAD)
    for _ in range(2):
        admin.disable_kek(old)
        for opened in (kms, bench.open()):
            assert not opens(opened, old, wrapped) and not wraps(opened, old)
            assert opens(opened, new, after) and wraps(opened, new)
    assert states(admin, tenant) == {old.version: "disabled", new.version: "enabled"}
    assert admin.create_kek(tenant) == new


@pytest.mark.parametrize("disabled_first", [True, False])
def test_a_destroyed_version_is_gone_and_the_others_are_not(
    bench: Bench, tenant: UUID, disabled_first: bool
) -> None:
    admin, kms = bench.open_admin(), bench.open()
    keks = [admin.create_kek(tenant), admin.rotate_kek(tenant), admin.rotate_kek(tenant)]
    wrapped = [kms.wrap(kek, DEK, AAD) for kek in keks]
    if disabled_first:
        admin.disable_kek(keks[0])
    for _ in range(2):
        admin.destroy_kek(keks[0])
        admin.disable_kek(keks[0])  # which is less, and done
        for opened in (kms, bench.open()):
            assert not opens(opened, keks[0], wrapped[0]) and not wraps(opened, keks[0])
            assert opens(opened, keks[1], wrapped[1]) and opens(opened, keks[2], wrapped[2])
            assert wraps(opened, keks[1])
        assert states(admin, tenant).get(keks[0].version) in ("scheduled", "destroyed", None)
        assert states(admin, tenant)[keks[1].version] == states(admin, tenant)[keks[2].version] == "enabled"
    admin.destroy_kek(keks[1])
    assert not opens(kms, keks[1], wrapped[1]) and opens(kms, keks[2], wrapped[2])
    assert admin.create_kek(tenant) == keks[2]


def test_the_current_version_is_neither_disabled_nor_destroyed_alone(bench: Bench, tenant: UUID) -> None:
    admin, kms = bench.open_admin(), bench.open()
    for make in (admin.create_kek, admin.rotate_kek):
        kek = make(tenant)
        wrapped = kms.wrap(kek, DEK, AAD)
        for end in (admin.disable_kek, admin.destroy_kek):
            with pytest.raises(KmsDenied, match="current version"):
                end(kek)
        assert opens(kms, kek, wrapped) and states(admin, tenant)[kek.version] == "enabled"


def test_nothing_of_a_kek_is_left_that_opens(bench: Bench, tenant: UUID) -> None:
    admin, kms, other = bench.open_admin(), bench.open(), uuid4()
    keks = [admin.create_kek(tenant), admin.rotate_kek(tenant), admin.rotate_kek(tenant)]
    wrapped = [kms.wrap(kek, DEK, AAD) for kek in keks]
    another = admin.create_kek(other)
    others = kms.wrap(another, DEK, AAD)
    admin.disable_kek(keks[0])
    for _ in range(2):
        admin.destroy_all(tenant)
        for opened in (kms, bench.open()):
            for kek, data in zip(keks, wrapped, strict=True):
                assert not opens(opened, kek, data) and not wraps(opened, kek)
            assert opens(opened, another, others)
        assert set(states(admin, tenant).values()) <= {"scheduled", "destroyed"}
    for kek in keks:  # what would be less is done
        admin.disable_kek(kek)
        admin.destroy_kek(kek)
    assert states(admin, other) == {another.version: "enabled"}


def test_a_destroyed_kek_is_not_made_again_where_the_kms_knows_of_it(bench: Bench, tenant: UUID) -> None:
    admin = bench.open_admin()
    old = admin.create_kek(tenant)
    admin.destroy_all(tenant)
    if bench.scheme in REMEMBERS:
        assert admin.kek_versions(tenant)
        for make in (admin.create_kek, admin.rotate_kek, bench.open_admin().create_kek):
            with pytest.raises(KmsDenied, match="destroyed"):
                make(tenant)
        return
    assert admin.kek_versions(tenant) == []
    with pytest.raises(KmsDenied):
        admin.rotate_kek(tenant)
    assert not opens(bench.open(), old, bench.open().wrap(admin.create_kek(tenant), DEK, AAD)) or (
        bench.scheme == "vault"  # which counts from 1 again: of the old key nothing opens all the same
    )


def test_what_never_was_is_nothing_to_destroy_and_cannot_be_rotated(bench: Bench, tenant: UUID) -> None:
    admin = bench.open_admin()
    admin.destroy_all(tenant)
    assert admin.kek_versions(tenant) == []
    with pytest.raises(KmsDenied):
        admin.rotate_kek(tenant)
    kek = admin.create_kek(tenant)  # destroy_all left no tombstone of what never was
    assert opens(bench.open(), kek, bench.open().wrap(kek, DEK, AAD))


@pytest.mark.parametrize("end", [Kms.disable_kek, Kms.destroy_kek])
def test_a_kek_that_is_not_one_ends_nothing(
    bench: Bench, tenant: UUID, end: Callable[[Kms, KekRef], None]
) -> None:
    admin, kms, other = bench.open_admin(), bench.open(), uuid4()
    mine = [admin.create_kek(tenant), admin.rotate_kek(tenant), admin.rotate_kek(tenant)]
    theirs = [admin.create_kek(other), admin.rotate_kek(other)]
    wrapped = {kek: kms.wrap(kek, DEK, AAD) for kek in (*mine, *theirs)}
    end = getattr(type(admin), end.__name__)
    wrong = [
        KekRef("", mine[0].version),
        KekRef(f"other{mine[0].name}", mine[0].version),
        KekRef(mine[0].name + "x", mine[0].version),
        KekRef(mine[0].name, ""),
        KekRef(mine[0].name, "1/../2"),
        KekRef(mine[0].name, "0"),
    ]
    for kek in wrong:
        with pytest.raises(KmsDenied):
            end(admin, kek)
    if mine[-1].version != "3":  # where versions are not numbers, another tenant's is to be tried
        for kek in theirs:
            with suppress(KmsDenied):
                end(admin, KekRef(mine[0].name, kek.version))
    assert all(opens(kms, kek, data) and wraps(kms, kek) for kek, data in wrapped.items())


def test_rotations_at_once_lose_no_version(bench: Bench, tenant: UUID) -> None:
    admins, kms = [bench.open_admin() for _ in range(4)], bench.open()
    first = admins[0].create_kek(tenant)

    def rotate(admin: Kms) -> list[KekRef]:
        made = []
        for _ in range(3):
            try:
                made.append(admin.rotate_kek(tenant))
            except KmsError as error:
                assert error.transient
        return made

    with ThreadPoolExecutor(4) as pool:
        made = {kek for keks in pool.map(rotate, admins) for kek in keks}
    assert made and first not in made
    for kek in (first, *made):
        assert opens(kms, kek, kms.wrap(kek, DEK, AAD))
    assert admins[0].create_kek(tenant) in made
    known = states(admins[0], tenant)
    assert {kek.version for kek in (first, *made)} <= known.keys() and set(known.values()) == {"enabled"}
    admins[0].destroy_all(tenant)
    assert not any(wraps(kms, kek) for kek in (first, *made))


def test_the_keepers_credential_manages_no_kek(bench: Bench, tenant: UUID) -> None:
    if bench.directory == bench.admin_directory or bench.scheme in ("pkcs11", "awskms"):
        pytest.skip("one credential for all: a token has one user, moto has no IAM")
    admin, kms = bench.open_admin(), bench.open()
    old, new = admin.create_kek(tenant), admin.rotate_kek(tenant)
    wrapped = kms.wrap(old, DEK, AAD)
    for ask in (
        lambda: kms.create_kek(uuid4()),
        lambda: kms.rotate_kek(tenant),
        lambda: kms.disable_kek(old),
        lambda: kms.destroy_kek(old),
        lambda: kms.destroy_all(tenant),
    ):
        with pytest.raises(KmsDenied, match="allow"):
            ask()
    if isinstance(bench, GcpBench):
        with pytest.raises(KmsDenied, match="allow"):
            kms.kek_versions(tenant)
    assert states(admin, tenant) == {old.version: "enabled", new.version: "enabled"}
    assert opens(kms, old, wrapped)


def test_a_kek_that_is_left_wraps_and_opens_nothing_any_more(bench: Bench, tenant: UUID) -> None:
    admin, kms = bench.open_admin(), bench.open()
    left = [admin.create_kek(tenant), admin.rotate_kek(tenant)]
    wrapped = [kms.wrap(kek, DEK, AAD) for kek in left]
    for _ in range(2):
        admin.leave_kek(tenant, left[1])  # the current one, and so the older one too
    known = states(admin, tenant)
    assert [known[kek.version] for kek in left] == ["disabled"] * 2 and len(known) == 3
    for kek, data in zip(left, wrapped, strict=True):
        assert not opens(kms, kek, data) and not wraps(kms, kek)
    if not isinstance(bench, AwsBench | Pkcs11Bench):  # their versions have no numbers to guess
        with pytest.raises(KmsDenied):
            admin.leave_kek(tenant, KekRef(left[0].name, "99"))
    back = admin.create_kek(tenant)  # the tenant may come back
    assert opens(kms, back, kms.wrap(back, DEK, AAD))
    for kek in left:
        admin.destroy_kek(kek)
    known = states(admin, tenant)
    assert known[back.version] == "enabled" and all(known.get(kek.version) != "disabled" for kek in left)
