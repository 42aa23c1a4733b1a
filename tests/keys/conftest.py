from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.database import Database, clone, make_template
from tests.support.homes import make_directory, throw_away
from wardkey.embedded import Cluster, Home

from .wards import Ward, make_ward


@pytest.fixture
def ward(database: Database) -> Ward:
    """A tenant with 500 rows."""
    return make_ward(database, 500)


@pytest.fixture
def new_ward(database: Database) -> Callable[[int], Ward]:
    return lambda rows: make_ward(database, rows)


@pytest.fixture(scope="module")
def own_database(cluster: Cluster) -> Iterator[Database]:
    """A database of a server and a keeper of this file's own, which flush to disk as real ones do."""
    directory = make_directory(cluster.home.python)
    try:
        own = Cluster(Home(directory / "home"))
        own.start()
        with clone(own, make_template(own)) as database:
            with database.admin() as connection:
                # A sequence copied with its database gives numbers again after a crash before a checkpoint.
                connection.execute("checkpoint")
            yield database
            own.start()
    finally:
        throw_away(directory)
