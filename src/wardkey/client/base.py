"""What both kinds of ``Wards`` share, which is nearly all: only how they wait is their own.

Methods that may have to wait are generators that yield what is to be called: ``Wards`` calls it,
``AsyncWards`` awaits what the call returns, and each sends the result or throws the error back. So psycopg
does it below.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from math import ceil
from threading import Lock
from time import monotonic
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import pq

from ..errors import MissingSoftware, PoolExhausted, Unreachable, WardError
from .connection import LOGIN, AsyncWardConnection, WardConnection
from .dsn import Template, Tenants
from .ledger import Ledger, Share, Waiter
from .tokens import Secret, caller_of

__all__ = ["BaseWards", "Steps"]

AnyConnection = WardConnection | AsyncWardConnection
T = TypeVar("T")
Steps = Generator[Callable[[], Any], Any, T]

_RECONNECT = 1.0  # seconds after which a failed connection is tried once more, before its callers are told
_EXHAUSTED = "no connection became free in time: {} has all that it may have"
_SILENT = "the server did not answer in time"


class BaseWards:
    """See ``Wards`` for the parameters."""

    _semaphore_class: ClassVar[type[Any]]
    _connection_class: ClassVar[type[Any]]

    def __init__(
        self,
        dsn: str = "",
        *,
        password: Callable[[str], Any] | None = None,
        tenants: Tenants | None = None,
        max_size: int = 40,
        max_per_tenant: int = 8,
        max_idle: float = 600.0,
        timeout: float = 10.0,
        prepare_threshold: int | None = 5,
        **options: Any,
    ) -> None:
        if max_per_tenant < 1 or max_size < 1:
            raise ValueError("max_size and max_per_tenant must be at least 1")
        try:
            import psycopg_pool
        except ImportError:
            raise MissingSoftware(
                "Wards needs psycopg-pool 3.3 or newer", "pip install 'wardkey[pool]'"
            ) from None
        self._pools = psycopg_pool
        self._template, self._password = Template(dsn, tenants), password
        self._max_idle, self._timeout = max_idle, timeout
        self._defaults = {"application_name": "wardkey client", "connect_timeout": max(2, ceil(timeout))}
        self._options = {**options, "autocommit": True, "prepare_threshold": prepare_threshold}
        self._lock = Lock()  # of the ledger; nobody waits while holding it
        self._ledger = Ledger(max_size, max_per_tenant)
        self._closed = self._semaphore_class(0)  # what pools that were closed left to others
        self._is_closed = False

    def login_commands(self, token: str) -> list[tuple[str, list[str]]]:
        """Return the statements that begin a transaction and log in, with their parameters."""
        return [("begin", []), (LOGIN, [token])]

    def begin(self, connection: AnyConnection, token: str) -> None:
        """Let the connection's next statement begin a transaction and log in first, in its round trip.

        Sends nothing by itself. The connection's ``commit()`` or ``rollback()`` ends the transaction.
        """
        connection.arm(Secret(token))

    def _whose(self, secret: Secret) -> str:
        return "" if self._template.is_of_one else caller_of(secret).tenant

    # What differs: each of these either blocks or is to be awaited.

    def _acquire(self, semaphore: Any, timeout: float) -> Any:
        """Acquire the semaphore within so many seconds; the result tells whether that was so."""
        raise NotImplementedError

    def _whole(self, call: Callable[[], Any]) -> Any:
        """Call to the end, also when who asked for it is cancelled."""
        raise NotImplementedError

    def _new_pool(self, share: Share, **options: Any) -> Any:
        raise NotImplementedError

    # A connection comes and goes.

    def _get(self, tenant: str) -> Steps[Any]:
        if self._is_closed:
            raise Unreachable("these wards are closed", "make new ones: wardkey.Wards(…)")
        slug, deadline = self._template.slug(tenant), monotonic() + self._timeout
        has_seat, waiter = self._sit(slug)
        try:
            if waiter is not None:
                try:
                    yield partial(self._acquire, waiter.bell, deadline - monotonic())
                finally:
                    has_seat = self._unqueue(waiter)
                if not has_seat:
                    raise PoolExhausted(self._who_has_all(slug))
            connection = yield from self._connect(slug, deadline)
        except BaseException:
            if has_seat:
                self._rise(slug)
            raise
        return connection

    def _put(self, connection: Any) -> Steps[None]:
        share, pgconn = connection.share, connection.pgconn
        connection.arm(None)
        try:
            if pgconn.transaction_status == pq.TransactionStatus.ACTIVE or pgconn.pipeline_status:
                pgconn.finish()  # it is in the middle of something
            elif pgconn.status == pq.ConnStatus.OK:
                if pgconn.transaction_status != pq.TransactionStatus.IDLE:
                    yield connection.rollback
                connection.restore()
        except (psycopg.Error, WardError):
            pgconn.finish()
        finally:
            try:
                yield from self._give(share, connection)
            finally:
                self._rise(share.tenant)
        with self._lock:
            spare = self._ledger.idle(since=monotonic() - self._max_idle)
        if spare is not None:
            yield from self._close_pool(spare)

    def _connect(self, slug: str, deadline: float) -> Steps[Any]:
        while True:
            share = yield from self._take(slug, deadline)
            try:
                if share.pool.closed:
                    yield share.pool.open
                while share.pool.max_size < share.size:
                    yield partial(share.pool.resize, 0, share.size)
                connection = yield partial(share.pool.getconn, max(0.001, deadline - monotonic()))
            except BaseException as error:
                self._give_back(share)
                if isinstance(error, self._pools.PoolClosed) and share.failure is None:
                    continue  # to make room for another tenant
                if isinstance(error, self._pools.PoolClosed | self._pools.PoolTimeout):
                    raise Unreachable(share.failure or _SILENT) from None
                raise
            connection.share = share
            if connection.is_open():
                return connection
            try:
                yield partial(self._whole, share.pool.drain)  # a restart: its others are no better
            finally:
                yield from self._give(share, connection)

    def _give(self, share: Share, connection: Any) -> Steps[None]:
        try:
            yield partial(self._whole, partial(share.pool.putconn, connection))
        finally:
            self._give_back(share)

    # Seats and shares.

    def _sit(self, slug: str) -> tuple[bool, Waiter | None]:
        """Take a seat, or a place in the queue."""
        with self._lock:
            if self._ledger.sit(slug):
                return True, None
            waiter = Waiter(slug, self._semaphore_class(0))
            self._ledger.queue(waiter)
        return False, waiter

    def _unqueue(self, waiter: Waiter) -> bool:
        """End the waiting, whether it was successful, too long or cancelled; tell whether it has a seat."""
        with self._lock:
            if not waiter.has_seat:
                self._ledger.unqueue(waiter)
        return waiter.has_seat

    def _rise(self, slug: str) -> None:
        with self._lock:
            waiter = self._ledger.rise(slug)
        if waiter is not None:
            waiter.bell.release()

    def _who_has_all(self, slug: str) -> str:
        with self._lock:
            return _EXHAUSTED.format("its tenant" if self._ledger.is_full(slug) else "this process")

    def _take(self, slug: str, deadline: float) -> Steps[Share]:
        """Count a connection of the tenant as out; for that, close the pool of another if need be.

        Who comes here has a seat, so of all connections there may be, one is not out: it is in a pool, or
        in one that is being closed.
        """
        while True:
            with self._lock:
                share = self._ledger.take(slug)
                spare = self._ledger.retire() if share is None else None
                if share is not None and share.pool is None:
                    share.pool = self._make_pool(share)
            if share is not None:
                return share
            if spare is not None:
                yield from self._close_pool(spare)
            elif not (yield partial(self._acquire, self._closed, deadline - monotonic())):
                raise PoolExhausted(_EXHAUSTED.format("this process"))

    def _give_back(self, share: Share) -> None:
        with self._lock:
            self._ledger.give(share)

    def _make_pool(self, share: Share) -> Any:
        return self._new_pool(
            share,
            connection_class=self._connection_class,
            min_size=0,
            max_size=1,
            open=False,
            name=f"wardkey-{share.tenant}",
            max_idle=self._max_idle,
            reconnect_timeout=min(_RECONNECT, self._timeout),
            num_workers=1,
        )

    def _how_to_connect(self, share: Share) -> Steps[dict[str, Any]]:
        options = {**self._defaults, **self._template.parts(share.tenant), **self._options, "share": share}
        if self._password is not None:
            try:
                options["password"] = yield partial(self._password, share.tenant)
            except Exception as error:
                share.failure = f"password() of Wards raised {type(error).__name__}"
                raise Unreachable(share.failure) from None
        return options

    def _fail_pool(self, share: Share) -> Steps[None]:
        """Tell those who wait for a connection of this pool that there is none: close it."""
        with self._lock:
            self._ledger.drop(share)
        yield from self._close_pool(share)

    def _close_pool(self, share: Share) -> Steps[None]:
        try:
            yield partial(self._whole, share.pool.close)
        finally:
            with self._lock:
                for _ in range(self._ledger.closed(share)):
                    self._closed.release()

    def _close_pools(self) -> Steps[None]:
        self._is_closed = True
        with self._lock:
            shares = [self._ledger.drop(share) for share in self._ledger.live()]
        for share in shares:
            yield from self._close_pool(share)
