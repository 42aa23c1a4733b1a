"""Temporary homes where the server's OS user can reach them (pytest's own are private to root)."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from wardkey.daemon.processes import Process
from wardkey.embedded import Cluster, Home
from wardkey.errors import WardError

__all__ = ["BASE", "make_directory", "remove_abandoned", "throw_away"]

_PREFIX = "wk-test-"
_NOEXEC = 8  # ST_NOEXEC of statvfs(3)
_ROOM = 6 << 30  # bytes


def _base() -> Path:
    """Return where temporary files are: in memory where there is room and programs can be mapped from it.

    A database is 300 files. On some disks each costs 0.5 ms of CPU to make and remove, in memory 0.02 ms.
    """
    memory = Path("/dev/shm")
    with suppress(OSError):
        status = os.statvfs(memory)
        if status.f_blocks * status.f_frsize > _ROOM and not status.f_flag & _NOEXEC:
            return memory
    return Path("/tmp")


BASE = _base()
"""Where temporary files of a run are, homes among them."""


def make_directory(packages: Path | None = None) -> Path:
    """Return a new directory; ``packages``: a filled ``python`` directory to begin its home with."""
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=BASE))
    directory.chmod(0o755)
    if packages:
        shutil.copytree(packages, directory / "home" / "python", copy_function=os.link)
    return directory


def throw_away(directory: Path) -> None:
    """Stop what runs in the directory's home and remove it."""
    with suppress(WardError):
        Cluster(Home(directory / "home")).stop()
    shutil.rmtree(directory, ignore_errors=True)


def remove_abandoned() -> None:
    """Throw away what runs left that were killed."""
    for directory in BASE.glob(f"{_PREFIX}*"):
        pid = directory.name.removeprefix(_PREFIX).split("-")[0]
        with suppress(FileNotFoundError):  # another run has just thrown it away
            if directory.owner() == Path("/proc/self").owner() and pid.isdigit() and not Process.of(int(pid)):
                throw_away(directory)
