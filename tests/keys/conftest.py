from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.database import Database

from .wards import Ward, make_ward


@pytest.fixture
def ward(database: Database) -> Ward:
    """A tenant with 500 rows."""
    return make_ward(database, 500)


@pytest.fixture
def new_ward(database: Database) -> Callable[[int], Ward]:
    return lambda rows: make_ward(database, rows)
