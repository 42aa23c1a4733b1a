from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.keepers import Keeper


@pytest.fixture
def new_keeper() -> Iterator[Keeper]:
    """A keeper's directory; the process is not started."""
    keeper = Keeper()
    yield keeper
    keeper.remove()


@pytest.fixture
def keeper(new_keeper: Keeper) -> Keeper:
    """A running keeper of its own for the test."""
    return new_keeper.start()


@pytest.fixture(scope="module")
def shared_keeper() -> Iterator[Keeper]:
    """A running keeper for the tests of one file that only ask."""
    keeper = Keeper()
    yield keeper.start()
    keeper.remove()
