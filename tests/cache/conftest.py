"""One database with a cache for the tests of a file; each test has a tenant's name for values of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.caches import CachedDatabase, cached
from tests.support.database import clone


@pytest.fixture(scope="module")
def place(cluster, template) -> Iterator[CachedDatabase]:
    with clone(cluster, template) as database, cached(database) as place:
        yield place
