"""How often is the KMS called while 20 backends read 5 tenants for one TTL of the keeper?

The home's keeper makes way for one with a short TTL; the backends' own TTL is shorter still, so that they ask
it all the time.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from _common import Figure, Server, Tenant, main
from _kms import keeper
from wardkey_core import keeper_client as client

TENANTS, BACKENDS = 5, 20
TTL = 8.0
BACKEND_TTL = 0.2


def run(server: Server) -> list[Figure]:
    database = server.database("kms_calls")
    tenants = [database.tenant(number) for number in range(1, TENANTS + 1)]
    for tenant in tenants:
        tenant.load(20)
    with (
        keeper(server.cluster, "--ttl", str(TTL)) as socket,
        database.admin() as admin,
        ThreadPoolExecutor(BACKENDS) as pool,
    ):
        admin.execute("select ward.set('key_ttl', %s)", [str(BACKEND_TTL)])
        stop, ready = threading.Event(), threading.Barrier(BACKENDS + 1)
        readers = [pool.submit(_read, tenants[n % TENANTS], ready, stop) for n in range(BACKENDS)]
        ready.wait(30)
        time.sleep(TTL * 0.9)
        status = client.status(socket)
        stop.set()
        reads = sum(reader.result() for reader in readers)
    return [
        Figure(
            f"calls to the KMS in one TTL, {BACKENDS} backends, {TENANTS} tenants",
            status["kms_calls"],
            "calls",
            5,
        ),
        Figure("… keys released by the keeper meanwhile", status["releases"], "keys"),
        Figure("… transactions of the backends meanwhile", reads, "reads"),
    ]


def _read(tenant: Tenant, ready: threading.Barrier, stop: threading.Event) -> int:
    """Read until told to stop; return how often."""
    token, reads = tenant.token(), 0
    with tenant.connect() as connection:
        ready.wait(30)
        while not stop.is_set():
            with connection.transaction():
                connection.execute("select ward.login(%s)", [token])
                if len(connection.execute("select name from patients").fetchall()) != 20:
                    raise AssertionError("rows are missing")
            reads += 1
            time.sleep(0.02)
    return reads


if __name__ == "__main__":
    main("kms_calls", run)
