"""One ward for the programs of docs/examples/drivers, which they reach direct and through PgBouncer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.database import Database, clone
from tests.support.pgbouncer import pgbouncer
from wardkey.embedded import Cluster

EXAMPLES = Path(__file__).parents[2] / "docs/examples/drivers"


class Way(NamedTuple):
    """A way to the ward of acme: a URL without the password, the password, whether PgBouncer is on it."""

    database: Database
    url: str
    password: str
    is_pooled: bool


@pytest.fixture(scope="module")
def shared(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute((EXAMPLES / "specimens.sql").read_text())
        yield database


@pytest.fixture(scope="module")
def ways(shared: Database) -> Iterator[dict[str, Way]]:
    with ExitStack() as stack:
        # two server connections for whatever a program opens: its transactions share them
        pooled = stack.enter_context(pgbouncer(shared, ["acme"], pool_size=2))["acme"]
        parts = conninfo_to_dict(pooled)
        direct = conninfo_to_dict(shared.tcp_dsn("tenant_acme"))
        url = "postgresql://tenant_acme@127.0.0.1:{}/{}"
        yield {
            "direct": Way(shared, url.format(direct["port"], shared.name), str(parts["password"]), False),
            "pgbouncer": Way(shared, url.format(parts["port"], shared.name), str(parts["password"]), True),
        }


@pytest.fixture(params=["direct", "pgbouncer"])
def way(ways: dict[str, Way], request: pytest.FixtureRequest) -> Iterator[Way]:
    yield ways[request.param]
    with ways[request.param].database.tenant("acme", subject="broom") as ward:
        ward.execute("delete from specimens")
