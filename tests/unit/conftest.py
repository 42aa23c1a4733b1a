"""Fixtures of the tests that need no database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import settings

from tests.support.backend import Backend, Clock, SocketKeeper

settings.register_profile("wardkey", deadline=None)  # machines are busy
settings.load_profile("wardkey")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time in wardkey_pg; the keeper's client keeps the real one."""
    clock = Clock()
    stand_in = SimpleNamespace(time=clock.time, monotonic=clock.monotonic, sleep=time.sleep)
    monkeypatch.setattr("wardkey_pg.context.time", stand_in)
    monkeypatch.setattr("wardkey_pg.keyring.time", stand_in)
    monkeypatch.setattr("wardkey_pg.tally.time", stand_in)
    return clock


@pytest.fixture
def backend(clock: Clock) -> Backend:
    """A backend of acme's login role, in its first transaction."""
    return Backend(clock)


@pytest.fixture
def keeper(backend: Backend) -> Iterator[SocketKeeper]:
    """A keeper that releases every key; the backend's setting names it."""
    with SocketKeeper() as keeper:
        backend.settings["keeper_socket"] = keeper.path
        yield keeper
