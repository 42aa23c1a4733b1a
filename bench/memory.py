"""How much private memory does a backend have after its first unseal?

Pages of libraries that only one process has mapped count as its own, though the next one shares them: another
backend of the same kind stands by, as on any server that is in use.
"""

from __future__ import annotations

import re
import statistics
import time
from pathlib import Path

from _common import Connection, Figure, Server, Tenant, main

ROUNDS = 7


def run(server: Server) -> list[Figure]:
    database = server.database("memory")
    tenant = database.tenant()
    tenant.load(100)
    fresh: list[float] = []
    plain: list[float] = []
    ward: list[float] = []
    alone: list[float] = []
    with tenant.connect() as connection:
        _read(connection, tenant)
        alone.append(_private(connection))
    with tenant.connect() as neighbour:
        _read(neighbour, tenant)
        for _ in range(ROUNDS):
            with database.admin() as connection:
                connection.execute("select name from plain.patients where id = 7").fetchall()
                plain.append(_private(connection))
            with tenant.connect() as connection:
                connection.execute("select 1")
                fresh.append(_private(connection))
                _read(connection, tenant)
                ward.append(_private(connection))
    return [
        Figure("private memory of a backend after its first unseal", statistics.median(ward), "MB", 25),
        Figure("… when no other backend has the libraries mapped", statistics.median(alone), "MB"),
        Figure("… of the same backend before", statistics.median(fresh), "MB"),
        Figure("… of a backend that read a plain table", statistics.median(plain), "MB"),
    ]


def _read(connection: Connection, tenant: Tenant) -> None:
    with connection.transaction():
        connection.execute("select ward.login(%s)", [tenant.token()])
        connection.execute("select name, ssn from patients where id < 21").fetchall()


def _private(connection: Connection) -> float:
    """Return the private memory of a connection's backend in MB."""
    time.sleep(0.05)
    text = Path(f"/proc/{connection.info.backend_pid}/smaps_rollup").read_text()
    return (
        sum(map(int, re.findall(r"^Private_(?:Clean|Dirty|Hugetlb): +(\d+) kB", text, re.MULTILINE))) / 1024
    )


if __name__ == "__main__":
    main("memory", run)
