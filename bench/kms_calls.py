"""How often is the KMS called while 20 backends read 5 tenants for one TTL of the keeper?

The home's keeper makes way for one with a short TTL; the backends' own TTL is shorter still, so that they ask
it all the time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from _common import Figure, Server, Tenant, main

from wardkey.errors import KeeperUnavailable
from wardkey.keeper import client
from wardkey.server import Cluster

TENANTS, BACKENDS = 5, 20
TTL = 8.0
BACKEND_TTL = 0.2


def run(server: Server) -> list[Figure]:
    database = server.database("kms_calls")
    tenants = [database.tenant(number) for number in range(1, TENANTS + 1)]
    for tenant in tenants:
        tenant.load(20)
    with _keeper(server.cluster) as socket, database.admin() as admin, ThreadPoolExecutor(BACKENDS) as pool:
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


@contextmanager
def _keeper(cluster: Cluster) -> Iterator[Path]:
    """Run a keeper of this TTL in place of the home's; yield its socket."""
    home, socket = cluster.home, cluster.home.keeper_socket
    command = [
        sys.executable,
        "-m",
        "wardkey.keeper",
        "--directory",
        str(home.keeper),
        "--socket",
        str(socket),
    ]
    command += [
        "--ttl",
        str(TTL),
        "--allow-uid",
        str(home.server_user().uid),
        "--allow-uid",
        str(os.getuid()),
    ]
    if os.getuid() == 0:
        command += ["--run-as", f"{home.keeper_user().uid}:{home.server_user().gid}"]
    cluster.keeper.stop()
    with subprocess.Popen(command) as process:
        try:
            for _ in range(500):
                try:
                    client.status(socket)
                    break
                except KeeperUnavailable:
                    time.sleep(0.01)
            yield socket
        finally:
            process.terminate()
            process.wait()
            cluster.keeper.start()


if __name__ == "__main__":
    main("kms_calls", run)
