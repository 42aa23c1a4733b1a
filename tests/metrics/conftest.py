"""The embedded server of the run, in its own database: where its scribe and its metrics service work."""

from __future__ import annotations

import http.client
import json
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.scribe.scribes import wait_for
from tests.support.chromium import BINARY
from tests.support.database import Connection, Database
from tests.support.ports import free_port
from wardkey.embedded import Cluster
from wardkey.metrics import tokens
from wardkey.monitoring import prometheus

# On Ubuntu, whose Chromium is a snap, it has to come from elsewhere: as in tests/cli/conftest.py.
_IS_MISSING = shutil.which(BINARY) is None and platform.freedesktop_os_release()["ID"] == "ubuntu"
collect_ignore = ["test_the_page_shows_what_dashboards_show.py"] if _IS_MISSING else []

SLUGS = ("north", "south")
_CLINIC = """
create schema ward_metrics_test;
create table ward_metrics_test.visits (id bigint primary key, patient text, note text, ward text);
select ward.protect('ward_metrics_test.visits', seal => '{patient,note}')"""


@dataclass
class Service:
    """The running service. ``tokens``: by slug, the platform's under ``None``."""

    database: Database
    port: int
    tokens: dict[str | None, str]

    def get(
        self, path: str, token: str | None = None, method: str = "GET", **headers: str
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def families(self, slug: str | None) -> dict[str, Metric]:
        """Return what is told of a tenant, read by prometheus_client's own parser."""
        status, text = self.get(tokens.path(slug), self.tokens[slug])
        assert status == 200
        return {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, slug: str | None, name: str, **labels: str) -> float:
        samples = [
            sample.value
            for family in self.families(slug).values()
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        assert len(samples) == 1, f"{name} {labels}: {samples}"
        return samples[0]


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Connection]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def service(
    cluster: Cluster, admin: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """North has opened 3 rows of two sealed columns in one transaction; south has done nothing."""
    database = Database(cluster, "wardkey")
    admin.execute(_CLINIC)
    for slug in SLUGS:
        database.new_tenant(slug)
    with database.tenant("north") as connection:
        use(connection, database.token("north", "dr.who"))
    made: dict[str | None, str] = {}
    with database.admin() as connection:
        for slug in (None, *SLUGS):
            made[slug] = tokens.make(connection, slug)
    running = Service(database, cluster.serve_metrics(), made)
    counted = "select value from ward_internal.counts where name = 'transactions' and tenant_id = %s"
    wait_for(admin, 2, counted, database.tenant_id("north"))
    yield running
    for slug in SLUGS:
        admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    admin.execute("drop schema ward_metrics_test cascade")


def use(connection: Connection, token: str) -> None:
    """Write four rows in one transaction and open three of them, wholly, in another."""
    for statement in (
        "insert into visits select n, 'patient ' || n, 'note', 'a' from generate_series(1, 4) as n",
        "select * from visits where id < 4",
    ):
        with connection.transaction():
            connection.execute("select ward.login(%s)", [token])
            connection.execute(statement)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


@dataclass(frozen=True)
class Prometheus:
    """A real one that scrapes each second."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **parameters: str) -> Any:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of what PromQL selects now."""
        return [series["metric"] for series in self.ask("query", query=expression)["result"]]


@contextmanager
def prometheus_of(
    service: Service, admin: Connection, directory: Path, slug: str | None
) -> Iterator[Prometheus]:
    """Run a Prometheus as ``wardkey metrics config`` configures it, of all or of one tenant."""
    (directory / prometheus.TOKENS).mkdir(mode=0o700, parents=True)
    for owner, token in service.tokens.items():
        if slug in (None, owner):
            (directory / prometheus.TOKENS / (owner or "platform")).write_text(token)
    prometheus.write(admin, directory, f"127.0.0.1:{service.port}", "https://runbooks.example", slug)
    configuration = directory / prometheus.CONFIGURATION
    configuration.write_text(configuration.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s"))
    running = Prometheus(free_port())
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={directory}/data",
               f"--web.listen-address=127.0.0.1:{running.port}", "--log.level=error"]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not _is_scraped(running):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            yield running
        finally:
            process.terminate()


def _is_scraped(running: Prometheus) -> bool:
    """Say whether every path was read twice, so that there are rates."""
    try:
        counts = running.ask("query", query='count_over_time(up{job=~"wardkey-.+"}[5m])')["result"]
        read = running.ask("query", query="count_over_time(wardkey_transactions_total[5m])")["result"]
    except OSError:
        return False
    return bool(read) and all(int(series["value"][1]) >= 2 for series in [*counts, *read])


@pytest.fixture(scope="module")
def eventful(service: Service, admin: Connection) -> Iterator[Service]:
    """The service, with two tenants that have done what dashboards show: rotate, publish, agree."""
    with service.database.tenant("south") as connection:
        use(connection, service.database.token("south", "dr.south"))
    counted = "select value from ward_internal.counts where name = 'transactions' and tenant_id = %s"
    wait_for(admin, 2, counted, service.database.tenant_id("south"))
    tenants = [{"slug": slug, "tenant": service.database.tenant_id(slug)} for slug in SLUGS]
    for statement, many in _EVENTS.values():
        for parameters in tenants[: None if many else 1]:
            admin.execute(statement, parameters)
    yield service
    for table in _EVENTS:
        admin.execute(f"delete from ward_internal.{table}")


# By table: what makes a number of it, and whether each tenant has one.
_EVENTS = {
    "backups": (
        """insert into ward_internal.backups (made_at, database_bytes, state_bytes, drilled_at, drill_is_good)
             values (now(), 1, 1, now(), true)""",
        False,
    ),
    "rotations": (
        """insert into ward_internal.rotations (tenant_id, version, reason, paused)
             values (%(tenant)s, 2, 'test', true)""",
        True,
    ),
    "audit_topics": (
        """insert into ward_internal.audit_topics (tenant_id, topic, cluster)
             values (%(tenant)s, 'dashboards.' || %(slug)s, 'none')""",
        True,
    ),
    "baas": (
        """insert into ward_internal.baas (tenant_id, slug, covered_entity, business_associate, begins, ends,
               document, document_sha256, notice_days)
             values (%(tenant)s, %(slug)s, 'a clinic', 'us', current_date - 1, current_date + 90, 'baa.pdf',
               sha256('baa'), 30)""",
        True,
    ),
}
