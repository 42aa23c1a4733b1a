"""A COPY through a face that fills the disk ends with one clear error, and everything is as it was before."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import errors

from tests.support.database import Connection, Database

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

SIZE = "4m"
ROWS = 50_000  # some 8 MB as a leaf


@pytest.fixture
def small_disk(database: Database) -> Iterator[str]:
    """A tablespace on a disk of its own. Goes with its directory; tables must have left it by then."""
    directory = Path(tempfile.mkdtemp(prefix="wardkey-small-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", directory], check=True)
    try:
        shutil.chown(directory, "postgres")
        directory.chmod(0o700)
        with database.admin() as admin:
            admin.execute(f"create tablespace wardkey_small location '{directory}'")
            yield "wardkey_small"
            admin.execute("drop tablespace wardkey_small")
    finally:
        subprocess.run(["umount", directory], check=True)
        directory.rmdir()


def _load(connection: Connection, rows: int) -> None:
    with connection.cursor().copy("copy patients (name, ssn) from stdin") as copy:
        for number in range(rows):
            copy.write_row((f"Patient {number}", f"999-00-{number:04}"))


def test_copy_into_a_full_disk(database: Database, small_disk: str) -> None:
    slug, other = database.new_tenant(), database.new_tenant()
    leaf = f"sealed_{slug}.patients"
    with database.admin() as admin:
        admin.execute(f"alter table {leaf} set tablespace {small_disk}")
        try:
            with database.tenant(slug, subject="loader") as loader:
                with pytest.raises(errors.DiskFull) as failed:
                    _load(loader, ROWS)
                assert "Patient" not in str(failed.value.diag.message_primary)
                assert loader.execute("select count(*) from patients").fetchone() == (0,)
            with database.tenant(other, subject="neighbour") as neighbour:
                _load(neighbour, 10)
        finally:
            admin.execute(f"alter table {leaf} set tablespace pg_default")
        with database.tenant(slug, subject="loader") as loader:
            _load(loader, ROWS)
            assert loader.execute("select count(*), max(name) from patients").fetchone() == (
                ROWS,
                "Patient 9999",
            )
