"""An earlier version, made of today's script: every function altered, comments and privileges changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest
import wardkey_pg

from tests.support import extension_script
from wardkey.embedded import Cluster

_numbers = count(1)
_CHANGES = (
    (r"(?:cost \d+ )?security (definer|invoker)", r"security \1 cost 7"),
    (r"(comment on function \S+ is)\s+'", r"\1 'Earlier: "),
    (r"alter function ward\.request_rotation\S+ owner to ward_owner;", ""),
    (r"grant select on pg_replication_slots to ward_owner;", ""),
)


@dataclass(frozen=True)
class Aged:
    """An installed earlier version: its name."""

    version: str


@pytest.fixture
def aged(cluster: Cluster) -> Iterator[Aged]:
    """Install an earlier version under a name of this test's own, and the update from it; gone afterwards.

    Faces are marked (``cost 7``), so that remaking them can be seen.
    """
    directory = cluster.software.sharedir / "extension"
    if not os.access(directory, os.W_OK):
        pytest.skip(f"{directory} is not writable for this user")
    old, new = f"0.0.9_{os.getpid()}_{next(_numbers)}", wardkey_pg.__version__
    script = extension_script.scripts()[f"wardkey--{new}.sql"]
    for pattern, replacement in _CHANGES:
        script, changed = re.subn(pattern, replacement, script)
        assert changed
    installed = {
        directory / f"wardkey--{old}.sql": script,
        directory / f"wardkey--{old}--{new}.sql": extension_script.update_script(),
    }
    try:
        for path, text in installed.items():
            path.write_text(text)
            path.chmod(0o644)
        yield Aged(old)
    finally:
        for path in installed:
            path.unlink(missing_ok=True)
