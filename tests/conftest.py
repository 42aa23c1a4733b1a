"""One real embedded server for the whole run, started by the first test that needs it; a database per test.

``database`` is a clone of a template with the extension, tenants acme and globex, and the tables of
``support/clinic.sql``. Roles belong to the cluster: acme and globex are the same in every clone, so tests
that change or drop a tenant make one with ``database.new_tenant()``.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Database, clone, make_template
from tests.support.homes import BASE, make_directory, remove_abandoned, throw_away
from wardkey.daemon.files import locked
from wardkey.embedded import Cluster, Home
from wardkey.install import pythonpath

_HERE = Path(__file__).parent.resolve()
_HOME = "WARDKEY_TEST_HOME"
_PACKAGES = "WARDKEY_TEST_PACKAGES"
_SHORT_LAST = ["security", "sql", "keeper", "audit", "client", "unit"]
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
    sys.dont_write_bytecode = False
    if hasattr(config, "workerinput"):
        config.args = _turned(
            config.args, int(config.workerinput["workerid"][2:]), config.workerinput["workercount"]
        )
    os.environ["TMPDIR"], tempfile.tempdir = str(BASE), None
    if not hasattr(config, "workerinput"):
        remove_abandoned()
        os.environ[_PACKAGES] = str(make_directory())
    if _runs_tests(config):
        os.environ[_HOME] = str(make_directory())


def _turned(args: list[str], worker: int, workers: int) -> list[str]:
    """Let each worker collect from a place of its own: pytest rewrites the assertions of a file for the
    worker that comes first, 20 s of CPU in all, and all would come at once."""
    if [Path(arg).resolve() for arg in args] != [_HERE]:
        return args
    sizes = {
        directory: sum(file.stat().st_size for file in directory.glob("test_*.py"))
        for directory in sorted({file.parent for file in _HERE.glob("*/test_*.py")})
    }
    before = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    first = [place for place in sizes if before[place] * workers < sum(sizes.values()) * worker]
    return [str(place) for place in (*(place for place in sizes if place not in first), *first)]


def pytest_unconfigure(config: pytest.Config) -> None:
    if _runs_tests(config) and (home := os.environ.pop(_HOME, None)):
        throw_away(Path(home))
    if not hasattr(config, "workerinput") and (packages := os.environ.pop(_PACKAGES, None)):
        throw_away(Path(packages))


@pytest.hookimpl(tryfirst=True)  # pytest-randomly then has the same order to disturb in each worker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put directories with short files last: the other workers wait for a long file that begins last."""
    places = {name: place for place, name in enumerate(_SHORT_LAST, start=1)}
    items.sort(key=lambda item: (places.get(item.path.parent.name, 0), item.path))


def _packages(interpreter: Path) -> Path:
    """Return the server's Python packages, which the first worker to come installs for all."""
    base = Path(os.environ[_PACKAGES])
    with locked(base):
        pythonpath.fill(base / "python", interpreter)
    return base / "python"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running embedded server."""
    home = Home(Path(os.environ[_HOME]) / "home")
    cluster = Cluster(home, settings=_FAST)
    shutil.copytree(_packages(cluster.software.interpreter), home.python, copy_function=os.link)
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
