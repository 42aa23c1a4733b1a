"""What does a page out of the cache cost, and how long after a commit is it not served any more?

The page is that of bench ``client``: 20 rows by key with 5 sealed fields each, read by wardkey's client with
a known token. Out of the cache the value is opened and checked against the marks, and the reads are
journalled, which is a login and a statement; a page without a sealed field needs Redis alone. From a commit
it is measured until the mark of its table is in Redis, as the invalidator, a process of its own, writes it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from _common import Database, Figure, Server, Subject, Timing, main, measure

from wardkey import Wards
from wardkey.cache import Cache, config, users
from wardkey.cache.sealed import marks_name

ROWS = 10_000
ROUNDS = 501
COMMITS = 300

_SEALED = "select id, name, ssn, birth_date::text, phone, address, city from patients where id = any(%s)"
_PLAIN = "select id, city, active from patients where id = any(%s)"
_KEYS = list(range(1, 1 + 20 * 97, 97))


def run(server: Server) -> list[Figure]:
    database = server.database("cache")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        admin.execute("vacuum analyze")
    token, figures = tenant.token(), []
    dsn, slugs = server.cluster.dsn(database.name, "tenant_{tenant}"), {tenant.id: tenant.slug}
    with (
        _redis(database, tenant.slug) as own,
        Wards(dsn, tenants=slugs) as wards,
        Wards(dsn, tenants=slugs) as others,  # each side has a backend of its own, whose CPU time is its
    ):
        cache = Cache(others)
        for text, query in (("sealed, journalled", _SEALED), ("without sealed fields", _PLAIN)):

            def load(connection: Any, query: str = query) -> Any:
                return connection.execute(query, [_KEYS]).fetchall()

            def uncached(load: Any = load) -> None:
                with wards.transaction(token) as connection:
                    _check(load(connection))

            def cached(text: str = text, load: Any = load) -> None:
                _check(cache.get_or_load(token, text, load))

            while not cache.hits:
                cached()
            cache.hits = 0
            timings = measure(
                [
                    Subject("uncached", uncached, _backend(wards, token)),
                    Subject("cached", cached, _backend(others, token)),
                ],
                ROUNDS,
                warmup=20,
            )
            share = cache.hits / (ROUNDS + 20)
            cpu = _cpu(timings["cached"]) / _cpu(timings["uncached"])
            ratio = timings["cached"].wall / timings["uncached"].wall
            figures += [
                Figure(f"cached page, {text}, in uncached pages", ratio, "×", 0.4),
                Figure("… as CPU time of client and backend", cpu, "×"),
                Figure("… the cached page itself", timings["cached"].wall * 1e3, "ms"),
                Figure("… share of hits", share, "", 0.95, "at least"),
            ]
            cache.hits = 0
        delays = sorted(_delays(tenant, own))
        figures += [
            Figure("a table is marked after a commit, p99", delays[int(len(delays) * 0.99)] * 1e3, "ms", 100),
            Figure("… median", delays[len(delays) // 2] * 1e3, "ms"),
        ]
        cache.close()
    return figures


def _delays(tenant: Any, own: redis.Redis) -> Iterator[float]:
    name = marks_name(tenant.id)

    def tables() -> bytes:
        stored: Any = own.get(name) or b""
        return bytes(stored).partition(b'"m":')[2]

    with tenant.log_in() as connection:
        for number in range(COMMITS):
            before = tables()
            connection.execute("update patients set city = %s where id = 1", [str(number)])
            start = time.perf_counter()
            while tables() == before:
                pass
            yield time.perf_counter() - start


@contextmanager
def _redis(database: Database, slug: str) -> Iterator[redis.Redis]:
    """Run a Redis and an invalidator; yield a connection as its user."""
    with tempfile.TemporaryDirectory(prefix="wardkey-bench-cache-") as directory:
        socket = Path(directory) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", directory]
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        configuration = config.parse(f"unix://{socket}")
        file = Path(directory) / config.CONFIGURATION_FILE
        config.write(file, configuration)
        while not socket.exists():
            time.sleep(0.01)
        with database.admin() as admin:
            admin.execute("select ward.set_cache(%s)", [configuration.public_url])
            admin.execute("select ward.set_cache_policy(%s, 300, true)", [slug])
        dsn = database.server.cluster.dsn(database.name)
        command = [sys.executable, "-m", "wardkey.cache", "--dsn", dsn, "--config", str(file)]
        invalidator = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        own = redis.Redis(unix_socket_path=str(socket), username=users.OWN, password=configuration.password)
        try:
            yield own
        finally:
            for process in (invalidator, server):
                process.terminate()
                process.wait()


def _backend(wards: Wards, token: str) -> int:
    with wards.transaction(token) as connection:
        return connection.info.backend_pid


def _cpu(timing: Timing) -> float:
    return timing.cpu + timing.client


def _check(rows: list[Any]) -> None:
    if len(rows) != 20:
        raise AssertionError("rows are missing")


if __name__ == "__main__":
    main("cache", run)
