"""How long does it take to rotate the KEKs of all tenants and rewrap their data keys?

1,000 tenants with the embedded KMS; fewer through OpenBao and the Cloud KMS server, where it is mostly these
that work: their figures are per tenant, with what the keeper and the orchestrator asked of them.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import psycopg
from _common import Figure, Server, cpu_seconds, main
from _kms import PROVIDERS, Provider, keeper, provider
from wardkey_core import keeper_client as client

from wardkey.keys.orchestrator import Orchestrator
from wardkey.keys.rewrap import Result

TENANTS = {"local": 1000, "OpenBao": 100, "Cloud KMS": 100}


def run(server: Server) -> list[Figure]:
    figures: list[Figure] = []
    for name in PROVIDERS:
        with provider(name) as kms, keeper(server.cluster, kms=kms) as socket:
            figures += _rewrap(server, kms, socket)
    return figures


def _rewrap(server: Server, kms: Provider, socket: Path) -> list[Figure]:
    number = TENANTS[kms.name]
    # The tenants of the other benches are as good as new ones: no row is touched.
    database = server.database(
        "many" if kms.choice is None else f"rewrap_{kms.name.lower().replace(' ', '_')}"
    )
    database.fill(number)
    results: list[Result] = []

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(server.cluster.dsn(database.name), autocommit=True)

    with Orchestrator(connect, server.cluster.home.orchestrator, threading.Event()) as orchestrator:
        tenants = orchestrator.tenants()[:number]
        before = {tenant.id: tenant.active and tenant.active.kek_version for tenant in tenants}
        asked, requests = client.status(socket), kms.requests() if kms.requests else {}
        cpu = cpu_seconds(os.getpid()), cpu_seconds(asked["pid"])
        start = time.perf_counter()
        orchestrator.rewrap(tenants, "bench", results.append)
        seconds = time.perf_counter() - start
        cpu = cpu_seconds(os.getpid()) - cpu[0], cpu_seconds(asked["pid"]) - cpu[1]
        calls = client.status(socket)["kms_calls"] - asked["kms_calls"]
        done = [tenant for tenant in orchestrator.tenants() if tenant.id in before]
    if any(result.trouble or len(result.disabled) != 1 for result in results) or len(results) != number:
        raise AssertionError("not every tenant was done")
    if any(tenant.active is None or tenant.active.kek_version == before[tenant.id] for tenant in done):
        raise AssertionError("a tenant is still under its old KEK version")
    figures = [
        Figure(
            f"{kms.name}: the KEKs of {number} tenants rotated",
            seconds,
            "s",
            10 if kms.choice is None else None,
        )
    ]
    figures += [
        Figure("… per tenant", seconds / number * 1e3, "ms"),
        Figure("… of it CPU time of the orchestrator", cpu[0] / number * 1e3, "ms"),
        Figure("… and of the keeper", cpu[1] / number * 1e3, "ms"),
        Figure("… calls of the keeper to the KMS, per tenant", calls / number, "calls"),
    ]
    if kms.requests:
        made = {method: count - requests.get(method, 0) for method, count in kms.requests().items()}
        use = sum(made.get(method, 0) for method in ("Encrypt", "Decrypt"))
        figures.append(
            Figure(
                "… requests of the orchestrator to the KMS, per tenant",
                (sum(made.values()) - use) / number,
                "calls",
            )
        )
    return figures


if __name__ == "__main__":
    main("rewrap", run)
