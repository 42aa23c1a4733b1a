"""Clinics made and filled, each in one transaction: COPY through the faces as the clinic's own login role."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from ..daemon.sessions import connect
from ..embedded import Cluster
from ..embedded.issuer import EmbeddedIssuer
from ..tenants import provisioning as tenants
from . import data

__all__ = ["Ward", "copy_rows", "counts", "fill", "load_codes", "provision"]

Connection = psycopg.Connection[Any]
Progress = Callable[[int], None]
"""Is told of rows that were written."""


class _Stopped(Exception):
    """Another loader failed, or the user has had enough."""


_BLOCK_ROWS = 200
_LOADERS = 2  # one connection keeps one core of the server busy


@dataclass(frozen=True, slots=True)
class Ward:
    """A clinic of the demo, and how to get in as it."""

    slug: str
    tenant_id: UUID
    cluster: Cluster
    issuer: EmbeddedIssuer
    created: bool

    def token(self, role: str = "ADMIN", subject: str = "wardkey demo") -> str:
        """Return a token of this clinic, good for 15 minutes."""
        return self.issuer.sign_token(self.tenant_id, subject, role)

    def connect(self) -> Connection:
        """Connect as the clinic's login role; nobody is logged in yet."""
        role = f"tenant_{self.slug}"
        return connect(self.cluster.dsn(user=role), "wardkey demo", settings={"search_path": role})

    @contextmanager
    def transaction(
        self, role: str = "ADMIN", subject: str = "wardkey demo"
    ) -> Iterator[psycopg.Cursor[Any]]:
        """A transaction in the clinic's context."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("select ward.login(%s)", [self.token(role, subject)])
            yield cursor


def provision(cluster: Cluster, admin: Connection, issuer: EmbeddedIssuer, slug: str) -> Ward:
    """Return the ward called ``slug``, made when missing. Raises psycopg.Error. Commits."""
    query = "select id from ward.tenants where slug = %s"
    row = admin.execute(query, [slug]).fetchone()
    if row is None:
        name = slug.replace("_", " ").title()
        tenants.create(admin, slug, name, tenants.passfile_keeper(cluster.home.pgpass))
        row = admin.execute(query, [slug]).fetchone()
        created = True
    else:
        created = False
    admin.commit()
    if row is None:
        raise LookupError(slug)
    return Ward(slug, row[0], cluster, issuer, created)


def load_codes(admin: Connection) -> None:
    """Make the shared table of codes know those of the observations. Commits."""
    with admin.cursor() as cursor:
        cursor.executemany(
            "insert into clinic.observation_codes values (%s, %s) on conflict do nothing",
            list(data.observation_codes().items()),
        )
    admin.commit()


def counts(admin: Connection, ward: Ward) -> dict[str, int]:
    """Return how many rows the clinic has, by table."""
    query = sql.SQL(" union all ").join(
        sql.SQL("select {}, count(*) from {}").format(
            sql.Literal(table), sql.Identifier(f"sealed_{ward.slug}", table)
        )
        for table in data.COLUMNS
    )
    rows = dict(admin.execute(query).fetchall())
    admin.commit()
    return rows


def fill(wards: Sequence[tuple[int, Ward]], patients: int, progress: Progress) -> int:
    """Load clinics by number, two at a time; returns how many rows. An interrupted clinic stays empty."""
    total, waiting, stop = 0, list(wards), Event()

    def count(rows: int) -> None:
        if stop.is_set():
            raise _Stopped
        progress(rows)

    running: dict[Future[int], Connection] = {}
    with ThreadPoolExecutor(_LOADERS) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < _LOADERS:
                    number, ward = waiting.pop(0)
                    connection = ward.connect()
                    running[pool.submit(_load, connection, ward, number, patients, count)] = connection
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    del running[future]
                    total += future.result()
        except BaseException:
            stop.set()
            for connection in running.values():
                connection.cancel_safe()
            raise
    return total


def _load(connection: Connection, ward: Ward, number: int, patients: int, progress: Progress) -> int:
    clinic = data.clinic(number, patients)
    with connection, connection.cursor() as cursor:
        cursor.execute("select ward.login(%s)", [ward.token()])
        for table, rows in clinic.tables.items():
            copy_rows(cursor, sql.Identifier(table), data.COLUMNS[table], rows, progress)
    return sum(clinic.counts.values())


def copy_rows(
    cursor: psycopg.Cursor[Any],
    table: sql.Composable,
    columns: Sequence[str],
    rows: Sequence[data.Row],
    progress: Progress = lambda count: None,
) -> None:
    """COPY rows into a table or face. An empty string is NULL."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    with cursor.copy(sql.SQL("copy {} ({}) from stdin (format csv)").format(table, names)) as copy:
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows(block)
            copy.write(text.getvalue())
            progress(len(block))
