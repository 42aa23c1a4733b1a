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

_PREFIX = "wardkey-test-"


def make_directory(packages: Path | None = None) -> Path:
    """Return a new directory; ``packages``: a filled ``python`` directory to begin its home with."""
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir="/tmp"))
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
    for directory in Path("/tmp").glob(f"{_PREFIX}*"):
        pid = directory.name.removeprefix(_PREFIX).split("-")[0]
        with suppress(FileNotFoundError):  # another run has just thrown it away
            if directory.owner() == Path("/proc/self").owner() and pid.isdigit() and not Process.of(int(pid)):
                throw_away(directory)
