"""``Wards``: one object for all tenants, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Semaphore, Thread
from typing import Any, Self, TypeVar

import psycopg

from .base import BaseWards, Steps
from .connection import WardConnection
from .ledger import Share
from .tokens import Secret

__all__ = ["Wards"]

T = TypeVar("T")


class Wards(BaseWards):
    """The way into the wards of all tenants: a pool of connections for each, made on demand.

    ``dsn``: of the tenants' login roles, ``{tenant}`` where the slug belongs; a passfile there has all
    passwords. ``password``: or else returns the password of the tenant with this slug, asked at each new
    connection. ``tenants``: slugs by tenant id, a mapping or a callable, for tokens without claim ``tenant``.
    ``max_size``, ``max_per_tenant``: connections at most, in all and of each; to make room the pool least
    recently used is closed. ``max_idle``: seconds after which what nobody used is closed. ``timeout``:
    seconds to wait for a connection. ``prepare_threshold``: None behind a PgBouncer older than 1.21. Further
    options go to ``psycopg.connect``. Raises MissingSoftware without psycopg-pool.
    """

    _semaphore_class, _connection_class = Semaphore, WardConnection

    def transaction(self, token: str) -> AbstractContextManager[WardConnection]:
        """Begin a transaction as whom ``token`` says; commit at the end of the block, roll back on an error.

        BEGIN and the login go with the first statement. Raises ContextError where the token is refused,
        PoolExhausted, Unreachable.
        """
        return self._transaction(Secret(token))

    def getconn(self, tenant: str) -> WardConnection:
        """Return a connection as a tenant (slug or id), outside a transaction, in autocommit mode.

        For adapters; without ``begin`` a face refuses it. Give it back with ``putconn``. Raises
        PoolExhausted, Unreachable, UnknownTenant, InvalidSlug.
        """
        connection: WardConnection = run(self._get(tenant))
        return connection

    def putconn(self, connection: WardConnection) -> None:
        """Give a connection back, once: rolled back, with its attributes as they were, or closed."""
        run(self._put(connection))

    def close(self) -> None:
        """Close all pools; connections that are out are closed when they are given back."""
        run(self._close_pools())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, secret: Secret) -> Iterator[WardConnection]:
        connection = self.getconn(self._whose(secret))
        try:
            connection.arm(secret)
            yield connection
            connection.finish()
        except psycopg.Rollback:
            pass  # as in psycopg: leaves the block without an error
        finally:
            self.putconn(connection)

    def _acquire(self, semaphore: Semaphore, timeout: float) -> bool:
        return semaphore.acquire(timeout=max(0.0, timeout))

    def _whole(self, call: Callable[[], T]) -> T:
        return call()

    def _new_pool(self, share: Share, **options: Any) -> Any:
        def fail(_: object) -> None:  # in the pool's own thread, which closing it waits for
            Thread(target=run, args=[self._fail_pool(share)], daemon=True).start()

        connect = lambda: run(self._how_to_connect(share))  # noqa: E731
        return self._pools.ConnectionPool(kwargs=connect, reconnect_failed=fail, **options)


def run(steps: Steps[T]) -> T:
    try:
        call = next(steps)
        while True:
            try:
                result = call()
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
