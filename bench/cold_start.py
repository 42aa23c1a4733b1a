"""What happens when 300 backends begin at once, none with a key, on the keeper that serves them all?

Each logs in and reads a sealed field of one of 20 tenants; the keeper begins with no key either. The rival is
as many backends that begin at once and load PL/Python with our module, without a login: what is above that is
login, keeper and waiting. All of them share the machine's CPUs with the keeper, and with this script.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
from _common import Database, Figure, Server, Tenant, main
from _kms import keeper
from wardkey_core import keeper_client as client

BACKENDS, TENANTS = 300, 20


def run(server: Server) -> list[Figure]:
    _allow_connections(server)
    database = server.database("cold_start")
    tenants = [database.tenant(number) for number in range(1, TENANTS + 1)]
    for tenant in tenants:
        tenant.load(1)
    rival, _ = _at_once(lambda number: _import(database))
    with keeper(server.cluster) as socket:
        seconds, errors = _at_once(lambda number: _read(tenants[number % TENANTS]))
        status = client.status(socket)
    return [
        Figure(f"errors of {BACKENDS} backends that begin at once", sum(errors.values()), "", 0),
        Figure(
            "… the last one's first sealed field, against importing our module alone",
            seconds / rival,
            "×",
            2.5,
        ),
        Figure("… the last one's first sealed field", seconds, "s"),
        Figure("… calls to the KMS", status["kms_calls"], "calls", TENANTS),
        *(Figure(f"… {sqlstate}", count, "") for sqlstate, count in errors.items()),
    ]


def _at_once(work: Callable[[int], None]) -> tuple[float, Counter[str]]:
    """Return how long the last of them took, and what failed by SQLSTATE."""
    begin, errors = Barrier(BACKENDS + 1), Counter[str]()

    def one(number: int) -> None:
        begin.wait()
        try:
            work(number)
        except psycopg.Error as error:
            errors[error.sqlstate or type(error).__name__] += 1

    with ThreadPoolExecutor(BACKENDS) as pool:
        running = [pool.submit(one, number) for number in range(BACKENDS)]
        begin.wait()
        start = time.perf_counter()
        for each in running:
            each.result()
        return time.perf_counter() - start, errors


def _import(database: Database) -> None:
    with database.admin() as connection:
        connection.execute("do $$ import wardkey_pg.entry $$ language plpython3u")


def _read(tenant: Tenant) -> None:
    token = tenant.token()
    with tenant.connect() as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [token])
        connection.execute("select name from patients").fetchall()


def _allow_connections(server: Server) -> None:
    """Restart PostgreSQL with room for all of them."""
    local = server.cluster.home.data / "local.conf"
    if "max_connections" in local.read_text():
        return
    server.cluster.stop()
    with local.open("a") as file:
        file.write(f"max_connections = {BACKENDS + 50}\n")
    server.cluster.start()


if __name__ == "__main__":
    main("cold_start", run)
