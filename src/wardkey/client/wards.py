"""``Wards``: one object for all tenants, for threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import Condition, Semaphore, Thread
from time import monotonic
from typing import Any, Self

import psycopg

from ..errors import WardError
from .base import BaseWards, closed, exhausted, is_alive, unreachable
from .connection import WardConnection
from .ledger import Share
from .tokens import Secret

__all__ = ["Wards"]


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

    def __init__(self, dsn: str = "", **settings: Any) -> None:
        super().__init__(dsn, **settings)
        self._changed = Condition()  # guards the ledger
        self._seats = Semaphore(self._max_size)

    def transaction(self, token: str) -> AbstractContextManager[WardConnection]:
        """Begin a transaction as whom ``token`` says; commit at the end of the block, roll back on an error.

        BEGIN and the login go with the first statement, whose errors come after the login's. Raises
        ContextError where the token is refused, PoolExhausted, Unreachable.
        """
        return self._transaction(Secret(token))

    def begin(self, connection: WardConnection, token: str) -> None:
        """Let the connection's next statement begin a transaction and log in first, in its round trip.

        Sends nothing by itself. The connection's ``commit()`` or ``rollback()`` ends the transaction.
        """
        connection.arm(Secret(token))

    def getconn(self, tenant: str) -> WardConnection:
        """Return a connection as a tenant (slug or id), outside a transaction, in autocommit mode.

        For adapters; without ``begin`` a face refuses it. Give it back with ``putconn``. Raises
        PoolExhausted, Unreachable, UnknownTenant, InvalidSlug.
        """
        slug, deadline = self._template.slug(tenant), self._deadline()
        with ExitStack() as undo:
            for seats, whose in (
                (self._enter(slug, Semaphore, undo), "the tenant"),
                (self._seats, "this process"),
            ):
                if not seats.acquire(timeout=max(0.0, deadline - monotonic())):
                    raise exhausted(whose)
                undo.callback(seats.release)
            connection = self._connect(slug, deadline)
            connection.seats = undo.pop_all()
            return connection

    def putconn(self, connection: WardConnection) -> None:
        """Give a connection back, once: rolled back, with its attributes as they were, or closed."""
        share, seats = connection.share, connection.seats
        connection.arm(None)
        try:
            if not closed(connection):
                if not connection.is_idle:
                    connection.rollback()
                connection.restore()
        except (psycopg.Error, WardError):
            connection.pgconn.finish()
        finally:
            share.pool.putconn(connection)
            self._give(share)
            seats.close()

    def close(self) -> None:
        """Close all pools; connections that are out are closed when they are given back."""
        self._is_closed = True
        with self._changed:
            shares = [self._ledger.drop(share) for share in self._ledger.all()]
        for share in shares:
            self._close(share)

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
            connection.log_in()
            connection.commit()
        except psycopg.Rollback:
            pass  # as in psycopg: leaves the block without an error
        finally:
            self.putconn(connection)

    def _connect(self, slug: str, deadline: float) -> WardConnection:
        while True:
            share = self._take(slug, deadline)
            try:
                connection: WardConnection = share.pool.getconn(max(0.001, deadline - monotonic()))
            except self._pools.PoolClosed:
                self._give(share)
                if share.failure is not None:
                    raise unreachable(share) from None
                continue  # closed to make room for another tenant, or idle
            except BaseException as error:
                self._give(share)
                if isinstance(error, self._pools.PoolTimeout):
                    raise unreachable(share) from None
                raise
            connection.share = share
            if is_alive(connection):
                return connection
            share.pool.drain()  # the server or pooler was restarted: its others are no better
            share.pool.putconn(connection)
            self._give(share)

    def _take(self, slug: str, deadline: float) -> Share:
        while True:
            with self._changed:
                share = self._ledger.take(slug)
                if share is None:
                    spare = self._ledger.retire(slug)
                    if spare is None and not self._changed.wait(max(0.0, deadline - monotonic())):
                        raise exhausted("this process")
                else:
                    spare = self._ledger.idle(monotonic() - self._max_idle)
                    self._fit(share)
            if spare is not None:
                self._close(spare)
            if share is not None:
                return share

    def _fit(self, share: Share) -> None:
        if share.pool is None:
            share.pool = self._pools.ConnectionPool(
                connection_class=WardConnection,
                kwargs=lambda: self._connect_options(share),
                reconnect_failed=lambda _: self._fail(share),
                **self._pool_options(share),
            )
            share.pool.open()
        elif share.pool.max_size < share.size:
            share.pool.resize(0, share.size)

    def _fail(self, share: Share) -> None:
        """Tell those who wait that there is no connection: close the pool, from outside its own thread."""
        with self._changed:
            self._ledger.drop(share)
        Thread(target=self._close, args=[share], daemon=True).start()

    def _give(self, share: Share) -> None:
        with self._changed:
            self._ledger.give(share)
            self._changed.notify_all()

    def _close(self, share: Share) -> None:
        share.pool.close()
        with self._changed:
            self._ledger.closed(share)
            self._changed.notify_all()
