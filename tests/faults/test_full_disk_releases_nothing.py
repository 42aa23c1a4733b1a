"""The keeper's disk is full: what cannot be accounted for in the release log is not released."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wardkey_core.errors import KeeperUnavailable

from .cells import KEEPER_TTL, SECRET, Cell, fails, read, recovers

PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * PAGE}", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def unmount(path: Path) -> None:
    """Unmount ``path``; what was written last there is still being put on the disk, for some milliseconds."""
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", path], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_line_that_does_not_fit_whole_releases_nothing(local_cell: Cell, small_disk: Path) -> None:
    cell, log = local_cell, local_cell.keeper.directory / "release.log"
    slug = cell.new_tenant()
    filler, small = small_disk / "filler", small_disk / "release.log"
    # The log has some bytes left in its last page, and the disk no other: the kernel writes half a line.
    small.write_bytes(b"x" * (PAGE - 101) + b"\n")
    filler.write_bytes(b"\0" * 3 * PAGE)
    with cell.connect(slug) as warm, cell.connect(slug) as cold:
        assert read(warm) == SECRET
        log.unlink()
        mounted = cell.keeper.directory / "release.log"
        mounted.touch(mode=0o600)
        subprocess.run(["mount", "--bind", small, mounted], check=True)
        try:
            for _ in range(2):
                assert "free space on its disk" in fails(cold, "WK102")
                fails(cold, "WK102", query="insert into patients (id, name, ssn) values (2, 'x', '2')")
            with pytest.raises(KeeperUnavailable, match="release log"):
                cell.keeper.ask(op="provision", tenant=str(cell.id(slug)), version=7)
            with pytest.raises(KeeperUnavailable, match="release log"):
                cell.keeper.ask(op="rewrap", tenant=str(cell.id(slug)), **cell.key(slug))
            assert small.stat().st_size == PAGE - 100, "half a line was left"
            assert cell.keeper.status()["pid"] == cell.keeper.pid
            filler.unlink()
            assert recovers(cold) == SECRET
            lines = small.read_bytes().splitlines()[1:]
            assert {json.loads(line)["outcome"] for line in lines} <= {"released", "refused"}
            assert json.loads(lines[-1])["tenant"] == str(cell.id(slug))
        finally:
            unmount(mounted)
    assert KEEPER_TTL < 60  # what the keeper had in memory was not released either
