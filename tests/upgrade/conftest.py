"""The released 0.1.0, as it was installed then, and today's update from it."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
import wardkey_pg

from wardkey import resources
from wardkey.server import Cluster

_numbers = count(1)


@dataclass(frozen=True)
class Aged:
    """An installed earlier version: its name."""

    version: str


@pytest.fixture
def aged(cluster: Cluster) -> Iterator[Aged]:
    """Install 0.1.0 under a name of this test's own, and the update from it; gone afterwards.

    Functions bind today's module: that one runs. Faces are marked, so that remaking them can be seen.
    """
    directory = cluster.software.sharedir / "extension"
    if not os.access(directory, os.W_OK):
        pytest.skip(f"{directory} is not writable for this user")
    old, new = f"0.1.0_{os.getpid()}_{next(_numbers)}", wardkey_pg.__version__
    script = lzma.decompress(Path(__file__).with_name("wardkey--0.1.0.sql.xz").read_bytes()).decode()
    for then, now in (('bind("0.1.0"', f'bind("{new}"'), ("security definer '", "security definer cost 7 '")):
        assert then in script
        script = script.replace(then, now)
    update = resources.extension_files()[f"wardkey--0.1.0--{new}.sql"]
    installed = {
        directory / f"wardkey--{old}.sql": script.encode(),
        directory / f"wardkey--{old}--{new}.sql": update,
    }
    try:
        for path, data in installed.items():
            path.write_bytes(data)
            path.chmod(0o644)
        yield Aged(old)
    finally:
        for path in installed:
            path.unlink(missing_ok=True)
