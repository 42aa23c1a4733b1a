"""A database with a cache: a Redis of its own, an invalidator in a thread, and clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import redis

from tests.support.database import Database
from tests.support.redis_server import RedisServer
from wardkey import Wards
from wardkey.cache import Cache, base, config, users
from wardkey.cache.invalidator import Invalidator
from wardkey.daemon.service import Stop

SECONDS = 30.0


class CachedDatabase:
    """``loads``: how often a loader was called."""

    def __init__(self, database: Database, server: RedisServer) -> None:
        self.database, self.server = database, server
        self.configuration = config.parse(server.url)
        self.said: list[str] = []
        self.loads = 0
        base._FRESH_SECONDS = SECONDS  # on a machine that is slow, too, what is not withheld is fresh
        self._stop: Stop | None = None
        self._thread: Thread | None = None
        with database.admin() as admin:
            admin.execute("select ward.set_cache(%s)", [self.configuration.public_url])
        self.begin()
        self.wards = Wards(database.dsn("tenant_{tenant}"))
        self.cache = Cache(self.wards, timeout=5)

    def begin(self) -> None:
        """Start an invalidator, and wait until it is at work."""
        self._stop = Stop()
        process = Invalidator(
            self.database.dsn(), self.configuration, report=self.said.append, stop=self._stop
        )
        self._thread = Thread(target=process.run, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the invalidator."""
        assert self._stop is not None and self._thread is not None
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def admin(self) -> redis.Redis:
        """Connect to Redis as the invalidator does."""
        return self.server.connect(users.OWN, self.configuration.password)

    def get(
        self, token: str, name: str = "it", query: str = "select count(*) from patients", **more: Any
    ) -> Any:
        def loader(connection: Any) -> Any:
            self.loads += 1
            return [list(row) for row in connection.execute(query).fetchall()]

        return self.cache.get_or_load(token, name, loader, **more)

    def is_hit(self, token: str, name: str = "it", **more: Any) -> bool:
        before = self.loads
        self.get(token, name, **more)
        return self.loads == before

    def until_hit(self, token: str, name: str = "it", **more: Any) -> None:
        until(lambda: self.is_hit(token, name, **more))

    def until_loaded(self, token: str, name: str = "it", **more: Any) -> None:
        until(lambda: not self.is_hit(token, name, **more))


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def cached(database: Database) -> Iterator[CachedDatabase]:
    server = RedisServer().start()
    try:
        place = CachedDatabase(database, server)
        yield place
        place.end()
        place.cache.close()
        place.wards.close()
    finally:
        server.remove()
