"""An earlier version of the extension, made from today's sources by ``aged``, and a way back to today's."""

from __future__ import annotations

import os
import runpy
import shutil
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


# (file below sql/, what it says today, what it said then). Functions bind today's module: that one runs.
_THEN = (
    # a function with another body, right and comment
    (
        "functions/tenants.sql",
        "set status = 'suspended', key_epoch = key_epoch + 1",
        "set status = 'suspended'",
    ),
    ("functions/tenants.sql", "'undoes ward.suspend_tenant'", "'of old'"),
    ("functions/context.sql", "revoke execute on function ward.logout() from public;", ""),
    # a gate of another owner, a view with fewer columns
    ("privileges.sql", "alter function ward.login(text) owner to ward_owner;", ""),
    ("functions/models.sql", "    m.shape,\n    m.id\n", "    m.shape\n"),
    # what the faces of that version looked like
    ("functions/faces.sql", "security definer '", "security definer cost 7 '"),
    # tables
    ("tables/02_registry.sql", "  reason text not null,\n", "  why text not null,\n"),
    ("functions/tenants.sql", "wrapped, commitment, reason)", "wrapped, commitment, why)"),
    # a function and a view that went, a grant that was one too many
    (
        "privileges.sql",
        "select ward_internal.harden();",
        "create function ward.gone() returns integer language sql return 1;\n"
        "create view ward.also_gone as select 1 as one;\n"
        "grant select on ward_internal.shares to ward_tenant;\n"
        "select ward_internal.harden();",
    ),
)

_DELTA = """\
alter table ward_internal.tenant_keys rename column why to reason;
drop function ward.gone();
drop view ward.also_gone;
revoke all on ward_internal.shares from ward_tenant;
"""


@pytest.fixture
def aged(cluster: Cluster, tmp_path: Path) -> Iterator[Aged]:
    """Install scripts of an earlier version and the update from it; gone afterwards."""
    directory = cluster.software.sharedir / "extension"
    if not os.access(directory, os.W_OK):
        pytest.skip(f"{directory} is not writable for this user")
    old, new = f"0.0.9_{os.getpid()}_{next(_numbers)}", wardkey_pg.__version__
    now, then = tmp_path / "now" / "sql", tmp_path / "then" / "sql"
    for tree in (now, then):
        shutil.copytree(resources.sql(), tree, ignore=shutil.ignore_patterns("dist", "__pycache__"))
        shutil.copytree(Path(wardkey_pg.__path__[0]), tree.parent / "plpython" / "wardkey_pg")
    for name, today, before in _THEN:
        file = then / name
        text = file.read_text()
        assert text.count(today) == 1, f"{name} does not say once: {today}"
        file.write_text(text.replace(today, before))
    (now / "updates").mkdir(exist_ok=True)
    (now / "updates" / f"{old}--{new}.sql").write_text(_DELTA)
    build = runpy.run_path(str(now / "build.py"))
    installed = [directory / f"wardkey--{old}.sql", directory / f"wardkey--{old}--{new}.sql"]
    update = next(path for path in build["build"](tmp_path / "new") if f"{old}--" in path.name)
    first = runpy.run_path(str(then / "build.py"))["build"](tmp_path / "old")[0]
    try:
        shutil.copy(first, installed[0])
        shutil.copy(update, installed[1])
        for path in installed:
            path.chmod(0o644)
        yield Aged(old)
    finally:
        for path in installed:
            path.unlink(missing_ok=True)
