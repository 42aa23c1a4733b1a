"""What the benches share: a server of their own, interleaved timing, figures against bars.

A bench is a script that asks one question. ``main(name, run)`` gives it a server in a throwaway home (or
in the one that ``run.py`` made for all), prints its figures and writes ``results/NAME.json``. Rivals take
turns, round by round, in backends of their own; wall times are medians, CPU times are those of the backends
as the kernel counts them, so that what others do on the machine falls out.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal
from uuid import uuid4

import psycopg

from wardkey.embedded import Cluster, Home
from wardkey.embedded.issuer import EmbeddedIssuer, embedded_issuer
from wardkey.identity import issuers
from wardkey.keys.kek import Keks
from wardkey.tenants import provisioning as tenants

__all__ = [
    "RESULTS",
    "Connection",
    "Database",
    "Figure",
    "Server",
    "Subject",
    "Tenant",
    "Timing",
    "copy_patients",
    "cpu_seconds",
    "line",
    "main",
    "measure",
    "patients",
    "shared_home",
]

HOME_VARIABLE = "WARDKEY_BENCH_HOME"
RESULTS = Path(__file__).parent / "results"
_MODEL = Path(__file__).with_name("clinic.sql")

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number found. ``bar``: what it may be at most, or at least; None where it explains another one."""

    what: str
    value: float
    unit: str
    bar: float | None = None
    sense: Literal["at most", "at least"] = "at most"

    @property
    def ok(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.sense == "at most" else self.value >= self.bar


@dataclass(frozen=True, slots=True)
class Subject:
    """One side of a comparison. ``pid``: the backend that works for it, and for nothing else.

    ``prepare`` is called before each run, and not timed.
    """

    name: str
    run: Callable[[], object]
    pid: int | None = None
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a call. ``cpu`` is the mean of the backend's, 0 where no backend was named.

    ``client``: the mean CPU time of the thread that called.
    """

    wall: float
    cpu: float
    client: float
    samples: Sequence[float] = field(repr=False)


def measure(subjects: Sequence[Subject], rounds: int, *, warmup: int = 3) -> dict[str, Timing]:
    """Run the subjects in turn, ``rounds`` times, each round in another order.

    Who ran just before tells in a page's time, more so if it was the same one.
    """
    orders = Random(1)
    for _ in range(warmup):
        for subject in subjects:
            subject.prepare()
            subject.run()
    samples: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    client = dict.fromkeys(samples, 0.0)
    time.sleep(0.01)  # let the backends come to rest: their CPU time is counted when they do
    before = {subject.name: cpu_seconds(subject.pid) for subject in subjects}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for subject in orders.sample(subjects, len(subjects)):
                subject.prepare()
                used, start = time.thread_time(), time.perf_counter()
                subject.run()
                samples[subject.name].append(time.perf_counter() - start)
                client[subject.name] += time.thread_time() - used
    finally:
        gc.enable()
    time.sleep(0.01)
    return {
        subject.name: Timing(
            statistics.median(samples[subject.name]),
            (cpu_seconds(subject.pid) - before[subject.name]) / rounds,
            client[subject.name] / rounds,
            samples[subject.name],
        )
        for subject in subjects
    }


def cpu_seconds(pid: int | None) -> float:
    """Return how long a process has been on a CPU, with all its threads."""
    # What the C library's clock_getcpuclockid() makes of a process id.
    return 0.0 if pid is None else time.clock_gettime(~pid << 3 | 2)


class Server:
    """An embedded server with databases made for benches."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._issuer: EmbeddedIssuer | None = None

    def database(self, name: str) -> Database:
        """Return the database ``name`` with the clinic model in it, made when missing."""
        with psycopg.connect(self.cluster.dsn("postgres"), autocommit=True) as connection:
            query = "select 1 from pg_database where datname = %s"
            missing = connection.execute(query, [name]).fetchone() is None
            if missing:
                connection.execute(f'create database "{name}" template template0')
        with psycopg.connect(self.cluster.dsn(name)) as connection:
            if missing:
                connection.execute("create extension wardkey cascade")
                socket = str(self.cluster.home.keeper_socket)
                connection.execute("select ward.set('keeper_socket', %s)", [socket])
                connection.execute(_MODEL.read_bytes())
            self._issuer = embedded_issuer(connection, self.cluster.home)[0]
        return Database(self, name, self._issuer)

    def keks(self) -> Keks:
        """Return the orchestrator's hold on KEKs."""
        return Keks(self.cluster.home.orchestrator, self.cluster.home.keeper_socket)


@dataclass(frozen=True, slots=True)
class Database:
    """Tenants are cluster-wide names: each database's begin with its own."""

    server: Server
    name: str
    issuer: EmbeddedIssuer

    def admin(self, *, autocommit: bool = True) -> Connection:
        return psycopg.connect(self.server.cluster.dsn(self.name), autocommit=autocommit)

    def tenant(self, number: int = 1) -> Tenant:
        """Return a tenant that can log in, made when missing."""
        slug = self.slug(number)
        with self.admin(autocommit=False) as connection:
            known = connection.execute("select id from ward.tenants where slug = %s", [slug]).fetchone()
            remember = tenants.passfile_keeper(self.server.cluster.home.pgpass)
            if known is None:
                tenants.create(connection, slug, None, remember, keks=self.server.keks())
            else:
                tenants.set_password(connection, slug, remember)
            identity = str(issuers.tenant_id(connection, slug))
        return Tenant(self, slug, identity)

    def fill(self, number: int) -> None:
        """Make tenants until there are ``number``; they cannot log in yet."""
        keks = self.server.keks()
        with self.admin() as connection:
            known = {row[0] for row in connection.execute("select slug from ward.tenants")}
            for slug in map(self.slug, range(1, number + 1)):
                if slug not in known:
                    tenant = uuid4()
                    kek = keks.create(tenant) if keks.uri(tenant) else None
                    connection.execute(
                        "select ward.create_tenant(%s, p_id => %s, p_kek => %s, p_kek_version => %s)",
                        [slug, tenant, kek and kek.name, kek and kek.version],
                    )

    def slug(self, number: int) -> str:
        return f"{self.name}_{number}"


@dataclass(frozen=True, slots=True)
class Tenant:
    database: Database
    slug: str
    id: str

    @property
    def dsn(self) -> str:
        return self.database.server.cluster.dsn(self.database.name, f"tenant_{self.slug}")

    def token(self, role: str = "ADMIN") -> str:
        return self.database.issuer.sign_token(self.id, "bench", role)

    def connect(self) -> Connection:
        return psycopg.connect(self.dsn, autocommit=True)

    def log_in(self) -> Connection:
        """Connect and log in for the session."""
        connection = self.connect()
        connection.execute("select ward.login_session(%s)", [self.token()])
        return connection

    def load(self, rows: int) -> None:
        """Copy patients 1 to ``rows`` into the face."""
        with self.log_in() as connection:
            copy_patients(connection, "patients", patients(rows))


_COLUMNS = "id, name, ssn, birth_date, phone, address, city, active"


def patient(number: int) -> tuple[Any, ...]:
    """Return an invented patient, always the same one for a number."""
    return (
        number,
        f"Rosalind Featherstonehaugh {number:06d}",
        f"999-{number // 10000 % 100:02d}-{number % 10000:04d}",
        f"{1930 + number % 80}-{1 + number % 12:02d}-{1 + number % 28:02d}",
        f"555-{number % 10000:04d}",
        f"{number % 999 + 1} Massachusetts Avenue, Apartment {number % 60 + 1}",
        "Springfield",
        True,
    )


def patients(rows: int) -> list[tuple[Any, ...]]:
    return [patient(number) for number in range(1, rows + 1)]


def copy_patients(connection: Connection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"copy {table} ({_COLUMNS}) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def main(name: str, run: Callable[[Server], list[Figure]]) -> None:
    """Give ``run`` a server; print the figures it returns and write them to ``results/NAME.json``."""
    with _server() as server:
        start = time.monotonic()
        figures = run(server)
        report = {
            "bench": name,
            "seconds": round(time.monotonic() - start, 1),
            "machine": _machine(server),
            "figures": [{**asdict(figure), "ok": figure.ok} for figure in figures],
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    for figure in figures:
        print(line(asdict(figure) | {"ok": figure.ok}))


def line(figure: Mapping[str, Any]) -> str:
    """Return a figure as a line of text."""
    text = f"{figure['what']:<70} {figure['value']:>10.3f} {figure['unit']:<6}"
    if figure["bar"] is None:
        return text
    verdict = "ok" if figure["ok"] else "MISSED"
    return f"{text} {figure['sense']:>8} {figure['bar']:g}   {verdict}"


@contextmanager
def shared_home() -> Iterator[None]:
    """Make one home for all the benches that run within, and throw it away afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="wardkey-bench-", dir="/tmp"))
    directory.chmod(0o755)
    os.environ[HOME_VARIABLE] = str(directory / "home")
    try:
        yield
    finally:
        Cluster(Home(Path(os.environ.pop(HOME_VARIABLE)))).stop()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _server() -> Iterator[Server]:
    if HOME_VARIABLE not in os.environ:
        with shared_home(), _server() as server:
            yield server
        return
    cluster = Cluster(Home(Path(os.environ[HOME_VARIABLE])), say=lambda text: print(text, file=sys.stderr))
    cluster.start()
    yield Server(cluster)


def _machine(server: Server) -> dict[str, Any]:
    with psycopg.connect(server.cluster.dsn("postgres")) as connection:
        row = connection.execute("show server_version").fetchone()
    return {
        "postgresql": row and row[0],
        "cpus": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "client_python": sys.version.split()[0],
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
