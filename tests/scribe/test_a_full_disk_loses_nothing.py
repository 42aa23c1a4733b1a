"""A full disk under the log's tables or the keeper's memory is told; nothing is lost or made twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from tests.scribe.scribes import (
    Scribe,
    emit,
    new_tenant,
    read,
    sealed_ids,
    verified,
    wait_for,
    wait_sealed,
    wait_signed,
    write,
)
from tests.support.database import Connection

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
PAGE = os.sysconf("SC_PAGESIZE")
ENTRIES = 4_000  # 600 kB

Small = Callable[[str], Path]


@pytest.fixture
def small(scribe: Scribe) -> Iterator[Small]:
    """Makes disks of a size; they go when the scribe and what it wrote have left them."""
    made: list[Path] = []

    def make(size: str) -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="wardkey-small-disk-")))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", made[-1]], check=True)
        return made[-1]

    yield make
    for directory in made:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


def wait_until(holds: Callable[[], bool], scribe: Scribe) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, (scribe.errors, scribe.status())
        time.sleep(0.05)


def test_under_the_tables(scribe: Scribe, small: Small) -> None:
    directory = small("1m")
    shutil.chown(directory, "postgres")
    directory.chmod(0o700)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        scribe.start()
        wait_for(connection, 1, "select count(*) from ward_internal.scribe_state")
        (month,) = connection.execute(
            "select inhrelid::regclass::text from pg_inherits"
            " where inhparent = ward_internal.audit_leaf(%s)::regclass order by 1 limit 1",
            [tenant],
        ).fetchone() or ("",)
        connection.execute(f"create tablespace wardkey_small location '{directory}'")
        try:
            connection.execute(f"alter table {month} set tablespace wardkey_small")
            _fill(scribe, connection, tenant, directory)
            connection.execute(f"alter table {month} set tablespace pg_default")
        finally:
            scribe.kill()
            connection.execute("drop tablespace wardkey_small")
    report = verified(scribe.database, tenant)
    assert report.ok and report.entries == ENTRIES and report.unsealed == 0, report


def _fill(scribe: Scribe, connection: Connection, tenant: UUID, directory: Path) -> None:
    filler = directory / "filler"
    with suppress(OSError), filler.open("wb") as file:
        file.write(b"\0" * (1 << 20))
    os.truncate(filler, filler.stat().st_size - (96 << 10))
    emit(connection, *(read(tenant, number) for number in range(ENTRIES)))
    wait_until(lambda: "disk is full" in str(scribe.status().get("trouble")), scribe)
    assert len(sealed_ids(connection, tenant)) < ENTRIES
    subprocess.run(["mount", "-o", "remount,size=64m", directory], check=True)
    wait_sealed(connection, tenant, ENTRIES, seconds=60)
    assert scribe.stop() == 0
    wait_signed(connection, tenant, ENTRIES)
    assert len(set(sealed_ids(connection, tenant))) == ENTRIES
    rows = connection.execute(
        "select count(*), count(distinct row_id) from ward_internal.audit_log where tenant_id = %s", [tenant]
    ).fetchone()
    assert rows == (ENTRIES, ENTRIES), "nothing lost, nothing twice"


def test_under_the_keepers_memory(scribe: Scribe, small: Small) -> None:
    """Half a line fits: no checkpoint is signed, no half line stays, and later the same one is signed."""
    scribe.start()
    directory, memory = small(str(4 * PAGE)), scribe.keeper.directory / "checkpoints.jsonl"
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        write(connection, tenant, 1)
        wait_signed(connection, tenant, 1)
        assert scribe.stop() == 0  # with nothing left to be signed
        lines = memory.read_bytes()
        last = next(line for line in lines.splitlines(keepends=True) if str(tenant).encode() in line)
        kept = directory / memory.name
        kept.write_bytes(lines + last * ((PAGE - len(lines) - 1) // len(last)))
        size = kept.stat().st_size
        assert size + len(last) > PAGE
        (directory / "filler").write_bytes(b"\0" * 3 * PAGE)
        scribe.keeper.stop()
        subprocess.run(["mount", "--bind", kept, memory], check=True)
        try:
            scribe.keeper.start()
            write(connection, tenant, 1)
            scribe.start()
            wait_until(
                lambda: "cannot remember the checkpoint" in str(scribe.status().get("trouble")), scribe
            )
            assert kept.stat().st_size == size, "half a line was left"
            query = "select checkpoint from ward_internal.audit_unsigned where tenant_id = %s"
            waiting = connection.execute(query, [tenant]).fetchone()
            assert waiting
            (directory / "filler").unlink()
            wait_signed(connection, tenant, 2, seconds=30)
            query = "select checkpoint from ward_internal.audit_checkpoints where tenant_id = %s and size = 2"
            assert connection.execute(query, [tenant]).fetchone() == waiting, "it is the one that was stored"
            assert scribe.stop() == 0
            whole = memory.read_bytes()
            scribe.keeper.stop()
        finally:
            subprocess.run(["umount", memory], check=True)
        memory.write_bytes(whole)
        scribe.keeper.start()
        assert scribe.keeper.ask(op="checkpoint", tenant=str(tenant))["size"] == 2
    assert verified(scribe.database, tenant).ok
