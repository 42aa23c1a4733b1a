"""The client library: transactions of one tenant, over psycopg 3.

::

    with wardkey.connect("postgresql://tenant_acme@db/wardkey") as ward:
        with ward.transaction(token) as cursor:
            cursor.execute("select name from patients where id = %s", [7])

Each transaction begins with ``ward.login(token)``, in the same round trip as BEGIN; the context ends with it.
Errors of class WK are raised as the classes of ``wardkey.errors``, everything else as psycopg does. No
exception, nor a frame of its traceback in this module, holds the token or a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Self, overload

import psycopg
from psycopg.abc import Params
from psycopg.rows import Row, RowFactory, TupleRow, tuple_row

from .errors import MissingSoftware, WardError, ward_error

if TYPE_CHECKING:
    from psycopg_pool import ConnectionPool

__all__ = ["Ward", "WardCursor", "connect"]

Connection = psycopg.Connection[Any]


def connect(dsn: str = "", *, pool: int = 0, prepare_threshold: int | None = 5, **options: Any) -> Ward:
    """Connect as a tenant's login role.

    ``pool``: at most so many connections, shared by threads (needs psycopg-pool); 0 is one connection for one
    thread. ``prepare_threshold``: None behind PgBouncer in transaction mode. Other options go to
    ``psycopg.connect``. Raises psycopg.OperationalError.
    """
    options |= {"prepare_threshold": prepare_threshold, "autocommit": True}
    options.setdefault("application_name", "wardkey client")
    return Ward(dsn, options, pool)


class Ward:
    """One tenant's way into its ward. Made by ``connect``."""

    def __init__(self, dsn: str, options: dict[str, Any], pool: int) -> None:
        self._dsn, self._options = dsn, options
        self._pool = _open_pool(dsn, options, pool) if pool else None
        self._single = None if pool else self._connect()

    @overload
    def transaction(self, token: str) -> AbstractContextManager[WardCursor[TupleRow]]: ...
    @overload
    def transaction(
        self, token: str, *, row_factory: RowFactory[Row]
    ) -> AbstractContextManager[WardCursor[Row]]: ...
    def transaction(
        self, token: str, *, row_factory: RowFactory[Any] = tuple_row
    ) -> AbstractContextManager[WardCursor[Any]]:
        """Begin a transaction as whom ``token`` says; commit at the end of the block, roll back on an error.

        Raises ContextError where the token is refused.
        """
        return self._transaction([token], row_factory)

    def close(self) -> None:
        """Close the connection or the pool."""
        for resource in (self._pool, self._single):
            if resource is not None:
                resource.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, token: list[str], row_factory: RowFactory[Any]) -> Iterator[WardCursor[Any]]:
        failure: WardError | None = None
        with self._borrow() as connection, WardCursor(connection, row_factory=row_factory) as cursor:
            try:
                _begin(connection, token)
                yield cursor
                connection.commit()
            except psycopg.Error as error:
                if (failure := ward_error(error)) is None:
                    raise
            except psycopg.Rollback:
                pass  # as in psycopg: leaves the block without an error
            finally:
                if not connection.closed:
                    connection.rollback()  # does nothing after the commit
        if failure is not None:
            raise failure

    @contextmanager
    def _borrow(self) -> Iterator[Connection]:
        if self._pool is not None:
            with self._pool.connection() as connection:
                yield connection
            return
        if self._single is None or self._single.closed:
            self._single = self._connect()
        yield self._single

    def _connect(self) -> Connection:
        return psycopg.connect(self._dsn, **self._options)


class WardCursor(psycopg.Cursor[Row]):
    """A psycopg cursor whose errors of class WK are those of ``wardkey.errors``."""

    def execute(
        self,
        query: Any,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        failure: WardError | None = None
        try:
            return super().execute(query, params, prepare=prepare, binary=binary)
        except psycopg.Error as error:
            if (failure := ward_error(error)) is None:
                raise
        del query, params
        raise failure

    def executemany(self, query: Any, params_seq: Iterable[Params], *, returning: bool = False) -> None:
        failure: WardError | None = None
        try:
            return super().executemany(query, params_seq, returning=returning)
        except psycopg.Error as error:
            if (failure := ward_error(error)) is None:
                raise
        del query, params_seq
        raise failure


def _begin(connection: Connection, token: list[str]) -> None:
    with connection.pipeline():
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [token.pop()])


def _open_pool(dsn: str, options: dict[str, Any], size: int) -> ConnectionPool[Connection]:
    try:
        from psycopg_pool import ConnectionPool
    except ImportError:
        raise MissingSoftware("a pool needs psycopg-pool", "pip install psycopg-pool") from None
    return ConnectionPool(dsn, min_size=1, max_size=size, kwargs=options, open=True)
