"""What do metrics cost: a page of somebody while Prometheus scrapes, and the scrape of 1,000 tenants?

The service is a process of its own, asked over HTTP as Prometheus asks: a connection for each path. While
pages are timed it is asked each second for the platform's path and as many tenants' as make 1,000 in
Prometheus' 15 s; in turn, phase by phase, it and who asks it are stopped. Pages are those of bench ``page``.
"""

from __future__ import annotations

import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

from _common import Database, Figure, Server, Tenant, cpu_seconds, main

from wardkey.embedded.home import free_port
from wardkey.metrics import tokens
from wardkey.scribe.counts import KINDS, LOGIN_BOUNDS

TENANTS = 1_000
ROWS = 10_000
PHASES = 20
SECONDS = 3.0  # of a phase
EACH_SECOND = 67

_PAGE = "select id, name, ssn, birth_date, phone, address, city from patients where id = any(%s)"
_KEYS = [list(range(start, start + 20 * 97, 97)) for start in range(1, 1000)]
_COUNTS = """
    insert into ward_internal.counts (tenant_id, name, label, value)
    select t.id, c ->> 0, c ->> 1, 1 from ward_internal.tenants as t, jsonb_array_elements(%s::jsonb) as c
    where t.login_role is not null
    on conflict do nothing"""


def run(server: Server) -> list[Figure]:
    database = server.database("metrics")
    database.fill(TENANTS)
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        counted = [("refusals", kind) for kind in KINDS] + [("login_seconds", each) for each in LOGIN_BOUNDS]
        counted += [(name, "") for name in ("transactions", "logins", "rows_opened", "fields_opened")]
        admin.execute(_COUNTS, [json.dumps(counted)])
        slugs = [database.slug(number) for number in range(1, TENANTS + 1)]
        paths = [(tokens.path(slug), tokens.make(admin, slug)) for slug in (None, *slugs)]
        admin.execute("vacuum analyze")
    with _service(database) as (process, port):
        scrapes, worked = [], cpu_seconds(process.pid)
        for _ in range(3):
            time.sleep(5.5)  # so that the first path has everything read again
            start = time.perf_counter()
            size = sum(scrape(port, *each) for each in paths)
            scrapes.append(time.perf_counter() - start)
        worked = cpu_seconds(process.pid) - worked
        on, off = _pages(tenant, process, port, paths)
    ratio = statistics.median(on[0]) / statistics.median(off[0])
    return [
        Figure("scrape of 1,000 tenants, all paths", statistics.median(scrapes), "s", 2),
        Figure("… CPU time of the service", worked / len(scrapes), "s"),
        Figure("… text", size / 1e6, "MB"),
        Figure("page while metrics are scraped, in pages while not", ratio, "×", 1.01),
        Figure("… as CPU time of the backend", on[1] / off[1], "×"),
        Figure("… the page itself", statistics.median(off[0]) * 1e3, "ms"),
    ]


def scrape(port: int, path: str, token: str) -> int:
    """Ask as Prometheus does, with as little CPU time of our own as can be: it is not the service's."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"# EOF\n"):
        raise AssertionError(f"{path}: {answer[:12]!r}")
    return len(answer)


def _pages(
    tenant: Tenant, service: subprocess.Popen[bytes], port: int, paths: list[tuple[str, str]]
) -> list[tuple[list[float], float]]:
    """Return times of pages, and the backend's CPU time of one, while it is scraped and while not."""
    pages: list[tuple[list[float], float]] = [([], 0.0), ([], 0.0)]
    script = Path(__file__)
    asked = json.dumps([port, paths])
    scraper = subprocess.Popen([sys.executable, str(script), "scrape"], stdin=subprocess.PIPE)
    assert scraper.stdin is not None
    scraper.stdin.write(asked.encode())
    scraper.stdin.close()
    try:
        with tenant.connect() as connection:
            page = _page(connection, tenant.token())
            for _ in range(500):
                page()
            for phase in range(PHASES):
                is_off = phase % 2
                for process in (scraper, service):
                    process.send_signal(signal.SIGSTOP if is_off else signal.SIGCONT)
                time.sleep(0.2)
                samples, cpu = pages[is_off]
                before, end = cpu_seconds(connection.info.backend_pid), time.monotonic() + SECONDS
                first = len(samples)
                while time.monotonic() < end:
                    start = time.perf_counter()
                    page()
                    samples.append(time.perf_counter() - start)
                cpu += (cpu_seconds(connection.info.backend_pid) - before) / (len(samples) - first)
                pages[is_off] = samples, cpu
            if scraper.poll() is not None:
                raise AssertionError("scraping ended early")
    finally:
        scraper.kill()
        service.send_signal(signal.SIGCONT)
    return pages


def _page(connection: object, token: str) -> Callable[[], None]:
    keys = cycle(_KEYS)

    def page() -> None:
        with connection.pipeline():  # type: ignore[attr-defined]
            connection.execute("begin", prepare=True)  # type: ignore[attr-defined]
            connection.execute("select ward.login(%s)", [token], prepare=True)  # type: ignore[attr-defined]
            cursor = connection.execute(_PAGE, [next(keys)], prepare=True)  # type: ignore[attr-defined]
            connection.execute("commit", prepare=True)  # type: ignore[attr-defined]
            rows = cursor.fetchall()
        if len(rows) != 20:
            raise AssertionError("rows are missing")

    return page


@contextmanager
def _service(database: Database) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port, cluster = free_port(), database.server.cluster
    command = [sys.executable, "-m", "wardkey.metrics", "--dsn", cluster.dsn(database.name)]
    command += ["--port", str(port), "--keeper", str(cluster.home.keeper_socket)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise AssertionError("the service does not start") from None
                    time.sleep(0.05)
            yield process, port
        finally:
            process.terminate()
            process.wait()


def scrape_on() -> None:
    """Ask each second, until killed: what Prometheus does."""
    port, paths = json.load(sys.stdin)
    tenants = cycle(paths[1:])
    while True:
        start = time.monotonic()
        for path, token in (paths[0], *(next(tenants) for _ in range(EACH_SECOND))):
            scrape(port, path, token)
        time.sleep(max(0.0, start + 1 - time.monotonic()))


if __name__ == "__main__":
    if sys.argv[1:] == ["scrape"]:
        scrape_on()
    else:
        main("metrics", run)
