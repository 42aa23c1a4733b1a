"""pg_dump, pg_restore and pg_dumpall of the server under test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from psycopg import sql

from tests.support.database import Database, temporary
from wardkey.embedded import Cluster
from wardkey.tenants import provisioning as tenants

_numbers = count(1)


@contextmanager
def empty_database(cluster: Cluster) -> Iterator[Database]:
    """Make a database with nothing in it; its tenants' roles go with it unless another database has them."""
    with temporary(cluster, f"empty_{os.getpid()}_{next(_numbers)}", "template0") as database:
        yield database


def dump(database: Database, file: Path, *options: str) -> Path:
    run(database.cluster, "pg_dump", "--format=custom", f"--file={file}", *options, database.dsn())
    return file


def restore(database: Database, file: Path, *options: str) -> None:
    """Restore without a single error."""
    run(database.cluster, "pg_restore", "--exit-on-error", f"--dbname={database.dsn()}", *options, str(file))


def bring_back(database: Database, file: Path, slug: str) -> None:
    """Restore a backup from before a tenant was shredded: its role first, then each ward is put right."""
    with database.admin() as admin:
        admin.execute(sql.SQL("create role {}").format(sql.Identifier(f"tenant_{slug}")))
    restore(database, file)
    with database.admin() as admin:
        admin.execute("delete from ward_internal.settings where name = 'audit_slot'")  # it has no scribe
        admin.execute("select ward.repair_tenant(slug) from ward.tenants where status = 'active'")
        tenants.set_password(admin, slug, tenants.passfile_keeper(database.cluster.home.pgpass))


def run(cluster: Cluster, program: str, *arguments: str) -> str:
    done = subprocess.run(
        [cluster.software.program(program), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
