"""A database per file where tests leave nothing behind, and connections inside a ward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, settings

from tests.support.database import Connection, Database, clone
from wardkey.embedded import Cluster

settings.register_profile("database", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("database")


@pytest.fixture(scope="module")
def shared(cluster: Cluster, template: str, request: pytest.FixtureRequest) -> Iterator[Database]:
    """One database for a file's tests, with the model tables of the file's ``MODELS``."""
    with clone(cluster, template) as database:
        with database.admin() as connection:
            connection.execute(getattr(request.module, "MODELS", ""))
        yield database


@pytest.fixture
def acme(shared: Database) -> Iterator[Connection]:
    """A transaction of acme's ADMIN, rolled back after the test."""
    with shared.tenant("acme", subject="tester") as connection:
        connection.autocommit = False
        yield connection
        connection.rollback()


@pytest.fixture
def inside(shared: Database) -> Iterator[Callable[..., Connection]]:
    """Opens further connections inside acme's ward, autocommit."""
    with ExitStack() as stack:
        yield lambda **claims: stack.enter_context(shared.tenant("acme", **{"subject": "tester", **claims}))
