"""``Cache`` for threads, ``AsyncCache`` for asyncio: how each waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from psycopg.rows import tuple_row

from .. import tracing
from ..client import AsyncWards, Wards
from ..client.async_wards import run as run_async
from ..client.connection import AsyncWardConnection, WardConnection
from ..client.tokens import Secret, caller_of
from ..client.wards import run
from .base import BaseCache

__all__ = ["AsyncCache", "Cache"]

_SPAN: dict[str, Any] = {"db_system_name": "postgresql", "wardkey_shares_round_trip": True}


class Cache(BaseCache):
    """What may be read through Redis. ``wards``: the way into the database; has to stay open.

    ``timeout``: seconds that Redis has for an answer; after a failure it is left alone for a second.
    ``dumps``, ``loads``: of values, to text and back: JSON, in which tuples are lists and dates are not.
    """

    _lock_class = Lock
    _redis_module = "redis"

    def __init__(
        self,
        wards: Wards,
        *,
        timeout: float = 0.25,
        dumps: Callable[[Any], str] = json.dumps,
        loads: Callable[[str], Any] = json.loads,
    ) -> None:
        super().__init__(wards, timeout, dumps, loads)
        self._free: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()  # connections, by client

    def get_or_load(
        self,
        token: str,
        name: str,
        loader: Callable[[WardConnection], Any],
        tables: Sequence[str] = (),
        *,
        shared: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """Return what ``loader`` returned for ``name`` before, or have it load that now.

        ``loader`` gets a connection inside a transaction that is logged in with ``token``. ``name`` has all
        that the value depends on besides the token. The value holds until one of the tables is written that
        the loader queried, or of ``tables``, which names further ones. ``shared``: with everybody who has
        the same role, for what does not depend on the person; where a row rule holds for the role it is the
        subject's alone. ``ttl``: seconds at most, within the tenant's policy.

        Raises what ``Wards.transaction`` and the loader raise, CacheError for what cannot be cached. Nothing
        that Redis does is an error.
        """
        return run(self._get(Secret(token), name, loader, tables, shared=shared, ttl=ttl))

    def close(self) -> None:
        """Close the connections to Redis."""
        for redis in self._forget():
            redis.close()

    def _execute(self, secret: Secret, query: str, values: Sequence[Any]) -> Any:
        with self._wards.transaction(secret.token) as connection:
            return _first(connection).execute(query, values).fetchone()

    def _mget(self, redis: Any, names: Sequence[str]) -> Any:
        """As ``redis.mget``, without what the library does around it, which is most of a hit's CPU time.

        A connection that is free and still open is all that serves here; else the library does it.
        """
        free = self._free.setdefault(redis, [])
        try:
            connection = free.pop()
        except IndexError:
            connection = redis.connection_pool.get_connection()
        try:
            connection.send_command("MGET", *names)
            reply = connection.read_response()
        except BaseException as error:
            connection.disconnect()
            redis.connection_pool.release(connection)
            if isinstance(error, self._errors.ConnectionError):  # the invalidator ended it, perhaps
                return redis.mget(*names)
            raise
        free.append(connection)
        return reply

    def _read(self, secret: Secret, reads: str) -> None:
        connection = self._wards.getconn(caller_of(secret).tenant)
        try:
            with tracing.span("wardkey.login", **_SPAN):
                connection.read_cached(secret, reads)
        finally:
            self._wards.putconn(connection)

    def _load(
        self, secret: Secret, loader: Callable[[WardConnection], Any], trouble: str | None, *, fills: bool
    ) -> tuple[Any, Any]:
        with self._wards.transaction(secret.token) as connection:
            if not fills:
                return loader(connection), None
            connection.execute("select ward.begin_fill()")
            value = loader(connection)
            (told,) = _first(connection).execute("select ward.end_fill(%s)", [trouble]).fetchone()
        return value, told


class AsyncCache(BaseCache):
    """``Cache`` for asyncio: the same parameters, with ``AsyncWards`` and a loader to await."""

    _lock_class = asyncio.Lock
    _redis_module = "redis.asyncio"

    def __init__(
        self,
        wards: AsyncWards,
        *,
        timeout: float = 0.25,
        dumps: Callable[[Any], str] = json.dumps,
        loads: Callable[[str], Any] = json.loads,
    ) -> None:
        super().__init__(wards, timeout, dumps, loads)

    async def get_or_load(
        self,
        token: str,
        name: str,
        loader: Callable[[AsyncWardConnection], Awaitable[Any]],
        tables: Sequence[str] = (),
        *,
        shared: bool = False,
        ttl: float | None = None,
    ) -> Any:
        """As ``Cache.get_or_load``."""
        return await run_async(self._get(Secret(token), name, loader, tables, shared=shared, ttl=ttl))

    async def close(self) -> None:
        """As ``Cache.close``."""
        for redis in self._forget():
            await redis.aclose()

    async def _execute(self, secret: Secret, query: str, values: Sequence[Any]) -> Any:
        async with self._wards.transaction(secret.token) as connection:
            return await (await _first(connection).execute(query, values)).fetchone()

    def _mget(self, redis: Any, names: Sequence[str]) -> Any:
        return redis.mget(*names)

    async def _read(self, secret: Secret, reads: str) -> None:
        connection = await self._wards.getconn(caller_of(secret).tenant)
        try:
            with tracing.span("wardkey.login", **_SPAN):
                await connection.read_cached(secret, reads)
        finally:
            await self._wards.putconn(connection)

    async def _load(
        self,
        secret: Secret,
        loader: Callable[[AsyncWardConnection], Awaitable[Any]],
        trouble: str | None,
        *,
        fills: bool,
    ) -> tuple[Any, Any]:
        async with self._wards.transaction(secret.token) as connection:
            if not fills:
                return await loader(connection), None
            await connection.execute("select ward.begin_fill()")
            value = await loader(connection)
            cursor = await _first(connection).execute("select ward.end_fill(%s)", [trouble])
            (told,) = await cursor.fetchone()
        return value, told


def _first(connection: Any) -> Any:
    """Return a cursor whose rows are tuples, whatever the caller has made of the connection."""
    return connection.cursor(row_factory=tuple_row)
