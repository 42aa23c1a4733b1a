"""``AsyncWards``: one object for all tenants, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from inspect import isawaitable
from typing import Any, Self, TypeVar

import psycopg

from .base import BaseWards, Steps
from .connection import AsyncWardConnection
from .ledger import Share
from .tokens import Secret

__all__ = ["AsyncWards"]

T = TypeVar("T")


class AsyncWards(BaseWards):
    """``Wards`` for asyncio: the same parameters, methods to await, a ``password`` that may be a coroutine.

    For one event loop. A task that is cancelled leaves no transaction open and no connection out.
    """

    _semaphore_class, _connection_class = asyncio.Semaphore, AsyncWardConnection

    def __init__(self, dsn: str = "", **settings: Any) -> None:
        super().__init__(dsn, **settings)
        self._tasks: set[asyncio.Future[Any]] = set()  # that go on when who waits for them is cancelled

    def transaction(self, token: str) -> AbstractAsyncContextManager[AsyncWardConnection]:
        """As ``Wards.transaction``."""
        return self._transaction(Secret(token))

    async def getconn(self, tenant: str) -> AsyncWardConnection:
        """As ``Wards.getconn``."""
        connection: AsyncWardConnection = await run(self._get(tenant))
        return connection

    async def putconn(self, connection: AsyncWardConnection) -> None:
        """As ``Wards.putconn``."""
        await self._whole(partial(run, self._put(connection)))

    async def close(self) -> None:
        """As ``Wards.close``."""
        await run(self._close_pools())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @asynccontextmanager
    async def _transaction(self, secret: Secret) -> AsyncIterator[AsyncWardConnection]:
        connection = await self.getconn(self._whose(secret))
        try:
            connection.arm(secret)
            yield connection
            await connection.finish()
        except psycopg.Rollback:
            pass
        finally:
            await self.putconn(connection)

    async def _acquire(self, semaphore: asyncio.Semaphore, timeout: float) -> bool:
        if not semaphore.locked():
            return await semaphore.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await semaphore.acquire()
        except TimeoutError:
            return False

    async def _whole(self, call: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.ensure_future(call())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _new_pool(self, share: Share, **options: Any) -> Any:
        async def connect() -> dict[str, Any]:
            return await run(self._how_to_connect(share))

        async def fail(_: object) -> None:  # in the pool's own task, which closing it waits for
            task = asyncio.ensure_future(run(self._fail_pool(share)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return self._pools.AsyncConnectionPool(kwargs=connect, reconnect_failed=fail, **options)


async def run(steps: Steps[T]) -> T:
    try:
        call = next(steps)
        while True:
            try:
                result = call()
                if isawaitable(result):
                    result = await result
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
