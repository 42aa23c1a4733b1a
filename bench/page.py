"""What does a page cost: a login, 20 rows by key with 5 sealed fields each, over a plain table without RLS?

How it compares with encryption in the application is bench ``rivals``.

Every page is a transaction with the token known to the backend. Four ways an application may ask for it: the
rows in one statement or in 20, statement by statement or in a pipeline. Statements are prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import cycle

from _common import (
    Connection,
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

import wardkey

ROWS = 10_000
ROUNDS = 1_001

_FIELDS = "id, name, ssn, birth_date, phone, address, city"
_KEYS = [range(start, start + 20 * 97, 97) for start in range(1, 1000)]


def run(server: Server) -> list[Figure]:
    database = server.database("page")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        copy_patients(admin, "plain.patients", patients(ROWS))
        admin.execute("vacuum analyze")
    figures: list[Figure] = []
    for text, single, pipeline in (
        ("20 rows in one statement", False, False),
        ("20 rows in one statement, pipeline", False, True),
        ("20 statements", True, False),
        ("20 statements, pipeline", True, True),
    ):
        with database.admin() as plain, tenant.connect() as ward:
            token = tenant.token()
            timings = measure(
                [
                    _page("plain", plain, "plain.patients", None, single, pipeline),
                    _page("ward", ward, "patients", token, single, pipeline),
                ],
                ROUNDS if not single else ROUNDS // 3,
                warmup=20,
            )
        figures += _figures(text, timings)
    figures += _figures("20 rows in one statement, wardkey's client", _client(server, tenant))
    return figures


def _page(
    name: str, connection: Connection, table: str, token: str | None, single: bool, pipeline: bool
) -> Subject:
    keys = _take_keys()
    one = f"select {_FIELDS} from {table} where id = %s"
    many = f"select {_FIELDS} from {table} where id = any(%s)"

    def page() -> None:
        rows = 0
        with connection.pipeline() if pipeline else nullcontext():
            connection.execute("begin", prepare=True)
            if token is not None:
                connection.execute("select ward.login(%s)", [token], prepare=True)
            if single:
                cursors = [connection.execute(one, [key], prepare=True) for key in keys()]
            else:
                cursors = [connection.execute(many, [list(keys())], prepare=True)]
            connection.execute("commit", prepare=True)
            for cursor in cursors:
                rows += len(cursor.fetchall())
        if rows != 20:
            raise AssertionError(f"{name}: rows are missing")

    return Subject(name, page, connection.info.backend_pid)


def _client(server: Server, tenant: Tenant) -> dict[str, Timing]:
    """The same through the client library, against psycopg's own transactions."""
    many = f"select {_FIELDS} from {{}} where id = any(%s)"
    keys, token = _take_keys(), tenant.token()
    with tenant.database.admin() as plain, wardkey.Wards(tenant.dsn) as wards:
        with wards.transaction(token) as connection:
            pid = connection.info.backend_pid

        def page_of_plain() -> None:
            with plain.transaction():
                plain.execute(many.format("plain.patients"), [list(keys())]).fetchall()

        def page_of_ward() -> None:
            with wards.transaction(token) as connection:
                connection.execute(many.format("patients"), [list(keys())]).fetchall()

        return measure(
            [Subject("plain", page_of_plain, plain.info.backend_pid), Subject("ward", page_of_ward, pid)],
            ROUNDS,
            warmup=20,
        )


def _figures(text: str, timings: dict[str, Timing]) -> list[Figure]:
    plain, ward = timings["plain"], timings["ward"]
    return [
        Figure(f"{text}: over the plain page, in such pages", (ward.wall - plain.wall) / plain.wall, "×"),
        Figure("… as CPU time of the backend", (ward.cpu - plain.cpu) * 1e3, "ms"),
        Figure("… the plain page itself", plain.wall * 1e3, "ms"),
    ]


def _take_keys() -> Callable[[], range]:
    return cycle(_KEYS).__next__


if __name__ == "__main__":
    main("page", run)
