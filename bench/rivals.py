"""What does wardkey cost beside encryption in the application?

The rival: one table of all tenants under plain row-level security with ``set_config``, its five fields sealed
with AES-256-GCM by the client. It verifies no token, has its keys at hand, and keeps no log. Each figure is
a ratio of two sides that took turns; a bar is a goal for that ratio.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from itertools import cycle
from typing import Any
from uuid import UUID

from _common import (
    Connection,
    Database,
    Figure,
    Server,
    Subject,
    Tenant,
    Timing,
    copy_patients,
    main,
    measure,
    patients,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ROWS = 20_000
COPIED = 5_000
PAGES = 1_001
BULKS = 15
COPIES = 9

_FIELDS = ("name", "ssn", "birth_date", "phone", "address")
_SELECTED = f"id, {', '.join(_FIELDS)}, city"
_KEYS = [range(start, start + 20 * 97, 97) for start in range(1, 1000)]
_VAULT = """
create table plain.vault (
  tenant_id uuid not null,
  id bigint not null,
  name bytea not null,
  ssn bytea,
  birth_date bytea,
  phone bytea,
  address bytea,
  city text,
  active boolean not null default true,
  primary key (tenant_id, id)
);
alter table plain.vault enable row level security;
create policy tenant on plain.vault using (tenant_id = (select current_setting('app.tenant')::uuid));
create role bench_application;
grant usage on schema plain to bench_application;
grant select on plain.vault to bench_application;
"""


class Application:
    """A client that seals and opens fields itself, one key a column."""

    def __init__(self, database: Database, tenant: Tenant) -> None:
        self.connection = database.admin()
        self.tenant = tenant.id
        self._ciphers = [AESGCM(AESGCM.generate_key(256)) for _ in _FIELDS]
        self._bound = [UUID(tenant.id).bytes + bytes((number,)) for number in range(len(_FIELDS))]

    def seal(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        identity = row[0].to_bytes(8, "big")
        sealed = []
        for cipher, bound, value in zip(self._ciphers, self._bound, row[1:6], strict=True):
            nonce = os.urandom(12)
            sealed.append(nonce + cipher.encrypt(nonce, value.encode(), bound + identity))
        return (self.tenant, row[0], *sealed, *row[6:])

    def open(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        name, ssn, birth_date, phone, address = (
            self.field(number, row[number + 1], row[0]) for number in range(5)
        )
        return (row[0], name, ssn, date.fromisoformat(birth_date), phone, address, row[6])

    def field(self, number: int, sealed: bytes, row: int) -> str:
        bound = self._bound[number] + row.to_bytes(8, "big")
        return self._ciphers[number].decrypt(sealed[:12], sealed[12:], bound).decode()

    def copy(self, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = f"tenant_id, id, {', '.join(_FIELDS)}, city, active"
        query = f"copy plain.vault ({columns}) from stdin"
        with self.connection.cursor() as cursor, cursor.copy(query) as copy:
            for row in rows:
                copy.write_row(self.seal(row))


def run(server: Server) -> list[Figure]:
    database = server.database("rivals")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        admin.execute(_VAULT)
        copy_patients(admin, "plain.patients", patients(ROWS))
        application = Application(database, tenant)
        application.copy(patients(ROWS))
        admin.execute("vacuum analyze")
    token = tenant.token()
    with application.connection, tenant.connect() as ward, database.admin() as plain:
        application.connection.execute("set role bench_application")
        one, twenty = _pages(application, ward, token, 20), _pages(application, ward, token, 1)
        bulk = measure([_bulk_of_application(application), _bulk_of_ward(ward, token)], BULKS, warmup=2)
        application.connection.execute("reset role")
        plain_copy = Subject("plain", lambda: _copy_plain(plain), plain.info.backend_pid)
        copies = measure(
            [_copy_of_application(application), _copy_of_ward(ward, token), plain_copy], COPIES, warmup=1
        )
    return [
        *_compared("page of 20 rows × 5 fields in one statement, pipeline", one, 1, "ms", 1e3, 1.3),
        *_compared("page of 20 rows × 5 fields in 20 statements, pipeline", twenty, 1, "ms", 1e3, 1.3),
        *_compared("a sealed field read in bulk", bulk, ROWS, "µs", 1e6, 1.5),
        *_compared("COPY of a row with 5 sealed fields", copies, COPIED, "µs", 1e6, 3),
        Figure("… into the plain table", copies["plain"].wall / COPIED * 1e6, "µs"),
    ]


def _compared(
    what: str, timings: dict[str, Timing], pieces: int, unit: str, scale: float, goal: float
) -> list[Figure]:
    """The ratio of wall times, that of all CPU time spent, and what they are ratios of."""
    application, ward = timings["application"], timings["ward"]
    return [
        Figure(f"{what}, against the application", ward.wall / application.wall, "×", goal),
        Figure(
            "… as CPU time of client and backend",
            (ward.cpu + ward.client) / (application.cpu + application.client),
            "×",
        ),
        Figure("… the application's", application.wall / pieces * scale, unit),
        Figure("… CPU time of its backend", application.cpu / pieces * scale, unit),
        Figure("… CPU time of wardkey's backend", ward.cpu / pieces * scale, unit),
    ]


def _pages(application: Application, ward: Connection, token: str, rows: int) -> dict[str, Timing]:
    """Time pages of 20 rows, ``rows`` a statement; each is a transaction of its own that logs in."""
    condition = "id = %s" if rows == 1 else "id = any(%s)"

    def page(connection: Connection, login: tuple[str, str], table: str) -> list[tuple[Any, ...]]:
        keys = next(pages[table])
        with connection.pipeline():
            connection.execute("begin", prepare=True)
            connection.execute(login[0], [login[1]], prepare=True)
            query = f"select {_SELECTED} from {table} where {condition}"
            cursors = [
                connection.execute(query, [key], prepare=True)
                for key in (keys if rows == 1 else [list(keys)])
            ]
            connection.execute("commit", prepare=True)
            return _complete([row for cursor in cursors for row in cursor.fetchall()], 20)

    pages = {"plain.vault": cycle(_KEYS), "patients": cycle(_KEYS)}
    theirs = ("select set_config('app.tenant', %s, true)", application.tenant)
    ours = ("select ward.login(%s)", token)

    def page_of_application() -> None:
        for row in page(application.connection, theirs, "plain.vault"):
            application.open(row)

    return measure(
        [
            Subject("application", page_of_application, application.connection.info.backend_pid),
            Subject("ward", lambda: page(ward, ours, "patients"), ward.info.backend_pid),
        ],
        PAGES,
        warmup=20,
    )


def _bulk_of_application(application: Application) -> Subject:
    connection = application.connection

    def read() -> None:
        with connection.transaction():
            connection.execute("select set_config('app.tenant', %s, true)", [application.tenant])
            rows = connection.execute("select id, name from plain.vault").fetchall()
            _complete([application.field(0, row[1], row[0]) for row in rows], ROWS)

    return Subject("application", read, connection.info.backend_pid)


def _bulk_of_ward(connection: Connection, token: str) -> Subject:
    def read() -> None:
        with connection.transaction():
            connection.execute("select ward.login(%s)", [token])
            _complete(connection.execute("select id, name from patients").fetchall(), ROWS)

    return Subject("ward", read, connection.info.backend_pid)


_NEW = [(row[0] + ROWS, *row[1:]) for row in patients(COPIED)]


def _copy_of_application(application: Application) -> Subject:
    connection = application.connection

    def copy() -> None:
        with connection.transaction(force_rollback=True):
            application.copy(_NEW)

    return Subject("application", copy, connection.info.backend_pid)


def _copy_of_ward(connection: Connection, token: str) -> Subject:
    def copy() -> None:
        with connection.transaction(force_rollback=True):
            connection.execute("select ward.login(%s)", [token])
            copy_patients(connection, "patients", _NEW)

    return Subject("ward", copy, connection.info.backend_pid)


def _copy_plain(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        copy_patients(connection, "plain.patients", _NEW)


def _complete(rows: list[Any], number: int) -> list[Any]:
    if len(rows) != number:
        raise AssertionError("rows are missing")
    return rows


if __name__ == "__main__":
    main("rivals", run)
