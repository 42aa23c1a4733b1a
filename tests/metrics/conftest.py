"""The embedded server of the run, in its own database: where its scribe and its metrics service work."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.scribe.scribes import wait_for
from tests.support.database import Connection, Database
from wardkey.embedded import Cluster
from wardkey.metrics import tokens

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
