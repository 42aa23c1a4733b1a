"""Files with keys are their owner's alone, and are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from wardkey.daemon.files import UnsafeFileError, read_guarded, write_atomically
from wardkey.kms import KmsConfigurationError, KmsDenied, KmsUnavailable
from wardkey.kms.providers.local import LocalKms

TENANT = UUID(int=10)


def test_files_and_directories_are_the_owners_alone(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        LocalKms("local:", tmp_path / "new").create_kek(TENANT)
    finally:
        os.umask(previous)
    for path in (tmp_path / "new").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert len((tmp_path / "new" / "root.key").read_bytes()) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_root_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    LocalKms("local:", tmp_path)
    (tmp_path / "root.key").chmod(mode)
    with pytest.raises(KmsConfigurationError, match="chmod 600"):
        LocalKms("local:", tmp_path)
    (tmp_path / "root.key").chmod(0o600)
    LocalKms("local:", tmp_path)


def test_a_kek_that_others_may_read_is_refused(tmp_path: Path) -> None:
    kms = LocalKms("local:", tmp_path)
    kek = kms.create_kek(TENANT)
    (tmp_path / "kek" / f"{TENANT}.json").chmod(0o644)
    with pytest.raises(KmsDenied):
        kms.wrap(kek, bytes(32), b"")


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)], ids=len)
def test_a_damaged_root_key_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    write_atomically(tmp_path / "root.key", content)
    with pytest.raises(KmsConfigurationError):
        LocalKms("local:", tmp_path)
    assert (tmp_path / "root.key").read_bytes() == content


def test_a_lost_root_key_is_not_replaced(tmp_path: Path) -> None:
    LocalKms("local:", tmp_path).create_kek(TENANT)
    (tmp_path / "root.key").unlink()
    with pytest.raises(KmsConfigurationError, match="missing"):
        LocalKms("local:", tmp_path)
    assert not (tmp_path / "root.key").exists()


@pytest.mark.parametrize("dangling", [False, True])
def test_a_root_key_behind_a_symlink_is_refused(tmp_path: Path, dangling: bool) -> None:
    if not dangling:
        write_atomically(tmp_path / "elsewhere", bytes(32))
    (tmp_path / "root.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KmsConfigurationError):
        LocalKms("local:", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"x", owner=(65534, 65534))
    assert (tmp_path / "file").stat().st_uid == 65534
    with pytest.raises(UnsafeFileError):
        read_guarded(tmp_path / "file", secret=True)
    os.chown(tmp_path, 65534, 65534)  # root looks after a directory that is that user's
    assert read_guarded(tmp_path / "file", secret=True) == b"x"


def test_no_regular_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(OSError):
            read_guarded(path, secret=True)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    kms_directory = tmp_path / "kms"
    monkeypatch.undo()
    kms = LocalKms("local:", kms_directory)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KmsUnavailable):
        kms.create_kek(TENANT)
    monkeypatch.undo()
    assert list((kms_directory / "kek").iterdir()) == []
    assert [present.name for present in tmp_path.iterdir() if present.is_file()] == ["file"]


def test_an_exclusive_write_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1
