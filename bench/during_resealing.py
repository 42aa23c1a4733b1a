"""How much slower are readers and writers while their tenant's rows are resealed, with the default throttle?

Phases with and without a rotation take turns. Meanwhile readers fetch pages of 20 rows, writers change one
row, each at a steady pace; a transaction's time counts from when it was due, so that none that is late makes
the others look faster. The worker of the rotation is a process of its own, as it is from the command line.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection as Pipe

import psycopg
from _common import Connection, Database, Figure, Server, Tenant, main

from wardkey.keys import run as worker

ROWS, SEALED = 8_000, 5
CLIENTS = 2  # readers, and as many writers
PACE = 0.02  # seconds between a client's transactions
PHASES = 5
PAGE = 20

_Samples = dict[tuple[str, bool], list[float]]


def run(server: Server) -> list[Figure]:
    database = server.database("during_resealing")
    tenant = database.tenant()
    tenant.load(ROWS)
    samples: _Samples = {(kind, busy): [] for kind in ("reader", "writer") for busy in (False, True)}
    phases: dict[bool, list[float]] = {False: [], True: []}
    clients = _Clients(tenant)
    with database.admin() as admin, _Worker(database, tenant) as rotation:
        _vacuum(admin, tenant)
        with clients:
            clients.collect(_until(time.monotonic() + 1))
            for number in range(2 * PHASES):
                busy = bool(number % 2)
                start = time.monotonic()
                if busy:
                    admin.execute("select ward.rotate_key(%s, 'bench')", [tenant.slug])
                    rotation.start()
                    collected = clients.collect(rotation.is_done)
                else:
                    seconds = statistics.median(phases[True]) if phases[True] else 3.0
                    collected = clients.collect(_until(start + seconds))
                phases[busy].append(time.monotonic() - start)
                for kind, times in collected.items():
                    samples[kind, busy] += times
    figures: list[Figure] = []
    for kind in ("reader", "writer"):
        before, during = samples[kind, False], samples[kind, True]
        figures += [
            Figure(
                f"{kind}s' p95 while resealing, against before", _p(95, during) / _p(95, before), "×", 1.3
            ),
            Figure("… before", _p(95, before) * 1e3, "ms"),
            Figure("… the median, against before", _p(50, during) / _p(50, before), "×"),
            Figure("… the p99, against before", _p(99, during) / _p(99, before), "×"),
            Figure("… transactions while resealing", len(during), ""),
        ]
    rate = ROWS * SEALED / statistics.median(phases[True])
    return [*figures, Figure("… fields resealed a second meanwhile", rate, "/s")]


def _p(percent: int, times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


def _until(end: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= end


def _vacuum(admin: Connection, tenant: Tenant) -> None:
    admin.execute(f"vacuum analyze sealed_{tenant.slug}.patients")
    admin.execute("checkpoint")


class _Clients:
    """Readers and writers that go on all the time."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._times: dict[str, list[float]] = {"reader": [], "writer": []}
        self._pool = ThreadPoolExecutor(2 * CLIENTS)

    def __enter__(self) -> _Clients:
        actions = (("reader", self._read), ("writer", self._write)) * CLIENTS
        self._running = [self._pool.submit(self._work, kind, action) for kind, action in actions]
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._pool.shutdown()

    def collect(self, done: Callable[[], bool]) -> dict[str, list[float]]:
        """Return the times of the transactions that ended from now until ``done()``."""
        with self._lock:
            self._times = {kind: [] for kind in self._times}
        while not done():
            for client in self._running:
                if client.done():
                    client.result()
            time.sleep(0.01)
        with self._lock:
            return {kind: list(times) for kind, times in self._times.items()}

    def _work(self, kind: str, action: Callable[[Connection], None]) -> None:
        token = self._tenant.token()
        with self._tenant.connect() as connection:
            due = time.perf_counter() + random.uniform(0, PACE)
            while not self._stop.is_set():
                time.sleep(max(due - time.perf_counter(), 0))
                with connection.pipeline(), connection.transaction():
                    connection.execute("select ward.login(%s)", [token])
                    action(connection)
                taken = time.perf_counter() - due
                with self._lock:
                    self._times[kind].append(taken)
                due = max(due + PACE, time.perf_counter() - PACE)

    @staticmethod
    def _read(connection: Connection) -> None:
        first = random.randrange(1, ROWS - PAGE)
        query = "select name, ssn, birth_date, phone, address from patients where id between %s and %s"
        cursor = connection.execute(query, [first, first + PAGE - 1])
        if len(cursor.fetchall()) != PAGE:
            raise AssertionError("rows are missing")

    @staticmethod
    def _write(connection: Connection) -> None:
        query = "update patients set phone = %s where id = %s returning id"
        row = random.randrange(1, ROWS)
        if len(connection.execute(query, [f"555-{row % 10000:04d}", row]).fetchall()) != 1:
            raise AssertionError("the row is missing")


class _Worker:
    """Reseals in a process of its own whenever it is told to."""

    def __init__(self, database: Database, tenant: Tenant) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        arguments = (theirs, database.server.cluster.dsn(database.name), tenant.slug)
        self._process = spawn.Process(target=_reseal, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> _Worker:
        if self._pipe.recv() != "ready":
            raise AssertionError("the worker did not start")
        return self

    def __exit__(self, *failure: object) -> None:
        self._pipe.close()
        self._process.join(10)

    def start(self) -> None:
        self._pipe.send("go")

    def is_done(self) -> bool:
        if not self._pipe.poll():
            return False
        state, reason = self._pipe.recv()
        if state != "finished":
            raise AssertionError(f"the rotation did not end: {state}, {reason}")
        return True


def _reseal(pipe: Pipe, dsn: str, slug: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        pipe.send("ready")
        try:
            while True:
                pipe.recv()
                outcome = worker.reseal(connection, slug, worker.Throttle(), threading.Event())
                pipe.send((outcome.state, outcome.reason))
        except EOFError:
            return


if __name__ == "__main__":
    main("during_resealing", run)
