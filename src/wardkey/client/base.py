"""What both kinds of ``Wards`` share: settings, what a pool is made with, whose a token is."""

from __future__ import annotations

import select
from collections.abc import Callable
from contextlib import ExitStack
from math import ceil
from threading import Lock
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq

from ..errors import MissingSoftware, PoolExhausted, Unreachable
from .connection import LOGIN, AsyncWardConnection, WardConnection
from .dsn import Template, Tenants
from .ledger import Ledger, Share
from .tokens import Secret, tenant_of

__all__ = ["BaseWards", "closed", "exhausted", "is_alive", "unreachable"]

AnyConnection = WardConnection | AsyncWardConnection

_RECONNECT = 1.0  # seconds after which a failed connection is tried once more, before its callers are told


class _Place:
    """A tenant's seats, a semaphore, kept while somebody waits for one or has one."""

    def __init__(self, seats: Any) -> None:
        self.seats, self.users = seats, 0


class BaseWards:
    """See ``Wards`` for the parameters."""

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
        self._max_size, self._max_per_tenant = max_size, max_per_tenant
        self._max_idle, self._timeout = max_idle, timeout
        self._options = {
            "application_name": "wardkey client",
            "connect_timeout": max(2, ceil(timeout)),
            **options,
            "autocommit": True,
            "prepare_threshold": prepare_threshold,
        }
        self._ledger = Ledger(max_size)
        self._places: dict[str, _Place] = {}
        self._guard = Lock()  # of _places; nobody waits while it is held
        self._is_closed = False

    def login_commands(self, token: str) -> list[tuple[str, list[str]]]:
        """Return the statements that begin a transaction and log in, with their parameters."""
        return [("begin", []), (LOGIN, [token])]

    def _whose(self, secret: Secret) -> str:
        return "" if self._template.is_of_one else tenant_of(secret.token)

    def _enter(self, tenant: str, new_seats: Callable[[int], Any], undo: ExitStack) -> Any:
        """Return the seats of a tenant, for one more that uses them until ``undo``."""
        with self._guard:
            place = self._places.get(tenant)
            if place is None:
                place = self._places[tenant] = _Place(new_seats(self._max_per_tenant))
            place.users += 1
        undo.callback(self._exit, tenant, place)
        return place.seats

    def _exit(self, tenant: str, place: _Place) -> None:
        with self._guard:
            place.users -= 1
            if not place.users:
                del self._places[tenant]

    def _pool_options(self, share: Share) -> dict[str, Any]:
        return {
            "min_size": 0,
            "max_size": 1,
            "open": False,
            "name": f"wardkey-{share.tenant}",
            "max_idle": self._max_idle,
            "reconnect_timeout": min(_RECONNECT, self._timeout),
            "num_workers": 1,
        }

    def _connect_options(self, share: Share) -> dict[str, Any]:
        options = {**self._template.parts(share.tenant), **self._options, "share": share}
        if self._password is not None:
            try:
                options["password"] = self._password(share.tenant)
            except Exception as error:
                share.failure = f"the password of the tenant cannot be read: {type(error).__name__}"
                raise Unreachable(share.failure) from None
        return options

    def _deadline(self) -> float:
        if self._is_closed:
            raise Unreachable("these wards are closed", "make new ones with wardkey.Wards")
        return monotonic() + self._timeout


def is_alive(connection: AnyConnection) -> bool:
    """Tell whether the server left the connection open while it lay in the pool. Makes no round trip."""
    pgconn = connection.pgconn
    try:
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        while poll.poll(0):  # its last words, then the end of the stream
            pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    return pgconn.status == pq.ConnStatus.OK


def closed(connection: AnyConnection) -> bool:
    """Close a connection that is busy or in a pipeline: it cannot be rolled back. Tell if it is closed."""
    pgconn = connection.pgconn
    busy = pgconn.transaction_status == pq.TransactionStatus.ACTIVE or pgconn.pipeline_status
    if busy:
        pgconn.finish()
    return pgconn.status != pq.ConnStatus.OK


def exhausted(whose: str) -> PoolExhausted:
    return PoolExhausted(f"no connection became free in time: {whose} has all that it may have")


def unreachable(share: Share) -> Unreachable:
    """Why no connection could be made, as the last attempt said."""
    return Unreachable(share.failure or "the server did not answer in time")
