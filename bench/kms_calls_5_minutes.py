"""How often is the KMS called in 5 minutes by 100 backends of 50 tenants, everything as it is by default?

The keeper begins with no key. Each backend reads about once a second and makes way for a new one now and
then, as behind a pool; each transaction checks for itself that it got all rows.
"""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from _common import Figure, Server, Tenant, main
from _kms import keeper
from wardkey_core import keeper_client as client

TENANTS, BACKENDS = 50, 100
MINUTES = 5
ROWS = 20
PAUSE = 1.0  # seconds between a backend's reads
BACKEND_SECONDS = 60.0


def run(server: Server) -> list[Figure]:
    database = server.database("kms_calls_5_minutes")
    tenants = [database.tenant(number) for number in range(1, TENANTS + 1)]
    for tenant in tenants:
        tenant.load(ROWS)
    with keeper(server.cluster) as socket, ThreadPoolExecutor(BACKENDS) as pool:
        until = time.monotonic() + MINUTES * 60
        stop = threading.Event()
        readers = [pool.submit(_read, tenants[n % TENANTS], until, stop) for n in range(BACKENDS)]
        try:
            for reader in readers:
                reader.add_done_callback(lambda _: stop.set())  # one that fails ends them all
            stop.wait(MINUTES * 60)
            status = client.status(socket)
        finally:
            stop.set()
        counts = [reader.result() for reader in readers]
    return [
        Figure(
            f"calls to the KMS in {MINUTES} minutes, {BACKENDS} backends, {TENANTS} tenants",
            status["kms_calls"],
            "calls",
            TENANTS,
        ),
        Figure("… keys released by the keeper meanwhile", status["releases"], "keys"),
        Figure("… transactions of the backends meanwhile", sum(reads for reads, _ in counts), "reads"),
        Figure("… backends that were there in turn", sum(backends for _, backends in counts), ""),
    ]


def _read(tenant: Tenant, until: float, stop: threading.Event) -> tuple[int, int]:
    """Read until told to stop; return how often, and over how many connections."""
    reads = backends = 0
    while time.monotonic() < until and not stop.is_set():
        backends += 1
        token = tenant.token()
        leave = min(until, time.monotonic() + random.uniform(0.5, 1.5) * BACKEND_SECONDS)
        with tenant.connect() as connection:
            while time.monotonic() < leave and not stop.is_set():
                with connection.transaction():
                    connection.execute("select ward.login(%s)", [token])
                    if len(connection.execute("select name from patients").fetchall()) != ROWS:
                        raise AssertionError("rows are missing")
                reads += 1
                stop.wait(random.uniform(0.5, 1.5) * PAUSE)
    return reads, backends


if __name__ == "__main__":
    main("kms_calls_5_minutes", run)
