"""One real embedded server for the whole run, started by the first test that needs it; a database per test.

``database`` is a clone of a template with the extension, tenants acme and globex, and the tables of
``support/clinic.sql``. Roles belong to the cluster: acme and globex are the same in every clone, so tests
that change or drop a tenant make one with ``database.new_tenant()``.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database, clone, make_template
from tests.support.homes import make_directory, remove_abandoned, throw_away
from wardkey.embedded import Cluster, Home

_HOME = "WARDKEY_TEST_HOME"
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}


def _runs_tests(config: pytest.Config) -> bool:
    """With pytest-xdist the workers do, each on a server of its own; the controller only tells them which."""
    return hasattr(config, "workerinput") or not config.getoption("numprocesses", None)


def pytest_configure(config: pytest.Config) -> None:
    # a run in the background of a script ignores SIGINT, and so would every command that a test interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # with the last, each of the thousand commands that tests start would compile wardkey's modules again
    for name in ("WARDKEY_HOME", "WARDKEY_DSN", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    if not hasattr(config, "workerinput"):
        remove_abandoned()
    if _runs_tests(config):
        os.environ[_HOME] = str(make_directory())


def pytest_unconfigure(config: pytest.Config) -> None:
    if _runs_tests(config) and (home := os.environ.pop(_HOME, None)):
        throw_away(Path(home))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running embedded server."""
    cluster = Cluster(Home(Path(os.environ[_HOME]) / "home"), settings=_FAST)
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """The name of the database that others are clones of."""
    return make_template(cluster)


@pytest.fixture
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database of this test's own."""
    with clone(cluster, template) as database:
        yield database


@pytest.fixture
def postgresql(database: Database) -> Iterator[psycopg.Connection]:
    """A superuser's connection to this test's database."""
    with database.admin() as connection:
        yield connection


@pytest.fixture
def new_home(cluster: Cluster) -> Iterator[Callable[[], Home]]:
    """Makes homes of their own, nothing in them yet but the server's Python packages, to save time."""
    made: list[Path] = []

    def make() -> Home:
        made.append(make_directory(cluster.home.python))
        return Home(made[-1] / "home")

    yield make
    for directory in made:
        throw_away(directory)
