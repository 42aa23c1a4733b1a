"""``--accessed-by`` reads what the keeper wrote, no matter who else is in the log and however it was cut."""

from __future__ import annotations

import errno
import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from wardkey_core.tokens import Claims

from wardkey.keeper.journal import Peer, ReleaseLog
from wardkey.keys.release_log import accessed_by, files

ACME, GLOBEX = UUID(int=10), UUID(int=11)
PEER = Peer(0, 1)


def claims(tenant: UUID, subject: str, token: str = "t") -> Claims:
    return Claims(
        issuer="https://issuer",
        subject=subject,
        tenant_id=str(tenant),
        role="ADMIN",
        token_id=token,
        expires_at=0.0,
        issued_at=0.0,
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """As the keeper writes it."""
    path = tmp_path / "release.log"
    journal = ReleaseLog(path)

    def released(tenant: UUID, version: int, subject: str, outcome: str = "released", **more: str) -> None:
        journal.write(
            "release",
            outcome,
            PEER,
            tenant=str(tenant),
            version=version,
            claims=claims(tenant, subject, **more),
        )

    released(ACME, 1, "mallory")
    released(ACME, 2, "mallory")
    released(GLOBEX, 1, "mallory", token="stolen")
    released(GLOBEX, 5, "mallory", outcome="refused")
    released(GLOBEX, 7, "victor", token="other")
    journal.write("provision", "provisioned", PEER, tenant=str(GLOBEX), version=9)
    return path


def test_only_what_was_released_to_the_subject(log):
    assert accessed_by([log], "mallory").versions == {ACME: {1, 2}, GLOBEX: {1}}
    assert accessed_by([log], "victor").versions == {GLOBEX: {7}}
    assert accessed_by([log], "mal").versions == {}


def test_token_is_known_by_its_id(log):
    assert accessed_by([log], "stolen").versions == {GLOBEX: {1}}


def test_only_since_then(log):
    now = datetime.now(UTC)
    assert accessed_by([log], "mallory", now - timedelta(minutes=1)).versions == {ACME: {1, 2}, GLOBEX: {1}}
    assert accessed_by([log], "mallory", now + timedelta(minutes=1)).versions == {}


def test_logs_that_were_moved_away_are_read_too(log, tmp_path):
    text = log.read_bytes()
    (tmp_path / "release.log.2.gz").write_bytes(gzip.compress(text.replace(b'"version":1', b'"version":3')))
    (tmp_path / "release.log.1").write_bytes(text.replace(b'"version":1', b'"version":4'))
    assert len(files(tmp_path)) == 3
    assert accessed_by(files(tmp_path), "mallory").versions == {ACME: {1, 2, 3, 4}, GLOBEX: {1, 3, 4}}


def test_damaged_lines_hide_nothing_and_are_counted(log):
    whole = log.read_bytes()
    log.write_bytes(whole[:40] + b"\n[]\n\xff\n" + whole)
    accesses = accessed_by([log], "mallory")
    assert (accesses.versions, accesses.damaged) == ({ACME: {1, 2}, GLOBEX: {1}}, 3)


def test_a_flush_reaches_every_file_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that was moved away since, and each once."""
    path, flushed = tmp_path / "release.log", []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    journal = ReleaseLog(path)
    for _ in range(2):
        journal.write("release", "released", PEER)
    path.rename(tmp_path / "release.log.1")
    journal.write("release", "released", PEER)
    journal.flush()
    written = [file.stat().st_ino for file in (tmp_path / "release.log.1", path)]
    assert flushed == written
    journal.flush()
    assert flushed == written
    journal.write("release", "released", PEER)
    journal.flush()
    assert flushed == [*written, written[1]]


def test_nothing_is_released_after_a_flush_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = ReleaseLog(tmp_path / "release.log")
    journal.write("release", "released", PEER)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _fail)
        journal.flush()
    with pytest.raises(OSError, match="Input/output error"):
        journal.write("release", "released", PEER)
    journal.write("release", "released", PEER)  # the next one is tried again


def _fail(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
