"""How many fields a second does a core reseal, all of the loop counted: worker, backend and keeper?

Each round makes a new version of the tenant's key and has the worker, unthrottled, move every row to it. The
bar is for CPU time as the kernel counts it; the clock's figure says what two cores or more make of it.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from dataclasses import dataclass

from _common import Connection, Figure, Server, cpu_seconds, main
from wardkey_core import keeper_client as client

from wardkey.keys import run as worker

ROWS, SEALED = 40_000, 5
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class _Round:
    """Seconds."""

    worker: float
    backend: float
    keeper: float
    wall: float

    @property
    def cpu(self) -> float:
        return self.worker + self.backend + self.keeper


def run(server: Server) -> list[Figure]:
    database = server.database("resealing")
    tenant = database.tenant()
    tenant.load(ROWS)
    keeper = client.status(server.cluster.home.keeper_socket)["pid"]
    rounds: list[_Round] = []
    with database.admin() as admin:
        for _ in range(1 + ROUNDS):
            admin.execute(f"vacuum analyze sealed_{tenant.slug}.patients")
            admin.execute("checkpoint")
            rounds.append(_reseal(admin, tenant.slug, keeper))
    fields = ROWS * SEALED
    rounds = rounds[1:]  # the first one makes the table as large as it stays

    def each(seconds: list[float]) -> float:
        return statistics.median(seconds) / fields * 1e6

    return [
        Figure(
            "fields resealed a second and core",
            fields / statistics.median(one.cpu for one in rounds),
            "/s",
            50_000,
            "at least",
        ),
        Figure("… CPU time of the worker, a field", each([one.worker for one in rounds]), "µs"),
        Figure("… of its backend", each([one.backend for one in rounds]), "µs"),
        Figure("… of the keeper", each([one.keeper for one in rounds]), "µs"),
        Figure(
            "… fields a second by the clock, unthrottled",
            fields / statistics.median(one.wall for one in rounds),
            "/s",
        ),
    ]


def _reseal(admin: Connection, slug: str, keeper: int) -> _Round:
    admin.execute("select ward.rotate_key(%s, 'bench')", [slug])
    pids = (os.getpid(), admin.info.backend_pid, keeper)
    before = [cpu_seconds(pid) for pid in pids]
    start = time.perf_counter()
    outcome = worker.reseal(admin, slug, worker.Throttle(share=1.0), threading.Event())
    wall = time.perf_counter() - start
    if outcome.state != "finished" or outcome.fields != ROWS * SEALED:
        raise AssertionError(f"the rotation did not end: {outcome.state}, {outcome.reason}")
    time.sleep(0.01)
    used = [cpu_seconds(pid) - seconds for pid, seconds in zip(pids, before, strict=True)]
    return _Round(used[0], used[1], used[2], wall)


if __name__ == "__main__":
    main("resealing", run)
