"""The dialect of wards, and what it has for a connection.

What SQLAlchemy takes for a connection is a ``Connection``: empty outside a transaction. When one begins it
borrows one of the tenant whose token it was given, and at the end gives it back. The login goes with the
first statement, below what SQLAlchemy logs.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import (
    AsyncAdapt_psycopg_connection,
    PGDialect_psycopg,
    PGDialectAsync_psycopg,
    PGIdentifierPreparer_psycopg,
)
from sqlalchemy.util import await_only

from ..client import AsyncWards
from ..client.tokens import Caller, Secret, caller_of
from ..errors import NoContext, Unsupported
from .annotations import Protected, ward_of
from .reflection import FaceReflection

__all__ = ["AsyncConnection", "AsyncWardDialect", "Connection", "WardDialect", "autocommit"]


def autocommit() -> Unsupported:
    return Unsupported(
        "AUTOCOMMIT has no transaction that a login could be of",
        "use engine.begin() or a Session, and commit",
    )


class Connection:
    """A connection as SQLAlchemy has it: a tenant's own, while there is a transaction."""

    caller: Caller | None = None
    secret: Secret | None = None

    def __init__(self, wards: Any) -> None:
        self._wards = wards
        self._borrowed: Any = None
        self._named: list[Any] = []  # cursors of the server
        self._is_lost = False
        self.settings: dict[str, Any] = {}  # of the transactions to come

    def begin(self) -> None:
        secret, self.secret = self.secret, None
        if secret is None:
            raise NoContext(
                "the transaction has no token",
                "with wardkey.sqlalchemy.as_token(token), or option ward_token",
            )
        self.caller = caller_of(secret)
        self._borrowed = self._get(self.caller.tenant)
        try:
            for name, value in self.settings.items():
                self._set(name, value)
            self.driver_connection.arm(secret)
        except BaseException:
            self._give_back()
            raise

    def commit(self) -> None:
        self._end("commit")

    def rollback(self) -> None:
        self._end("rollback")

    def close(self) -> None:
        if self._borrowed is not None:
            self._give_back()

    def terminate(self) -> None:
        """Close also the tenant's connection: SQLAlchemy has invalidated it."""
        if self._borrowed is not None:
            self.driver_connection.pgconn.finish()
            self._give_back()

    def cursor(self, *name: str) -> Any:
        """Return a cursor; before the transaction begins, when SQLAlchemy makes its own, one for then."""
        return Cursor(self, name) if self._borrowed is None else self.real_cursor(name)

    def real_cursor(self, name: tuple[str, ...]) -> Any:
        if self._borrowed is None:
            raise NoContext("no transaction has begun on this connection", "connection.begin()")
        cursor = self._borrowed.cursor(*name)
        if name:
            self._named.append(cursor)
        return cursor

    @property
    def closed(self) -> bool:
        return self._is_lost if self._borrowed is None else bool(self._borrowed.closed)

    broken = closed

    @property
    def driver_connection(self) -> Any:
        return self._borrowed

    def _end(self, how: str) -> None:
        if self._borrowed is not None:
            try:
                getattr(self._borrowed, how)()
            finally:
                self._give_back()

    def _give_back(self) -> None:
        self._is_lost = self.closed
        borrowed, self._borrowed = self._borrowed, None
        while self._named:  # gone with the transaction: a later close() would be in somebody else's
            cursor = self._named.pop()
            if (cursor := getattr(cursor, "_cursor", cursor)) is not None:  # that of asyncio wraps psycopg's
                cursor._close()
        self._put(borrowed)

    def _get(self, tenant: str) -> Any:
        return self._wards.getconn(tenant)

    def _put(self, borrowed: Any) -> None:
        self._wards.putconn(borrowed)

    def _set(self, name: str, value: Any) -> None:
        setattr(self._borrowed, name, value)


class Cursor:
    """A cursor of the transaction that is about to begin."""

    def __init__(self, connection: Connection, name: tuple[str, ...]) -> None:
        self._connection, self._name = connection, name
        self._real: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._real is None:
            self._real = self._connection.real_cursor(self._name)
        return getattr(self._real, name)

    def close(self) -> None:
        if self._real is not None:
            self._real.close()


class AsyncConnection(Connection):
    """The same for asyncio, called in SQLAlchemy's greenlets."""

    def __init__(self, wards: AsyncWards, dbapi: Any) -> None:
        super().__init__(wards)
        self._dbapi = dbapi

    @property
    def driver_connection(self) -> Any:
        return None if self._borrowed is None else self._borrowed.driver_connection

    def _get(self, tenant: str) -> Any:
        return AsyncAdapt_psycopg_connection(self._dbapi, await_only(self._wards.getconn(tenant)))

    def _put(self, borrowed: Any) -> None:
        await_only(self._wards.putconn(borrowed.driver_connection))

    def _set(self, name: str, value: Any) -> None:
        getattr(self._borrowed, f"set_{name}")(value)


class _Preparer(PGIdentifierPreparer_psycopg):
    """Model tables are their faces, which the login role's search_path finds."""

    @staticmethod
    def schema_for_object(table: Any) -> str | None:  # type: ignore[override]
        is_face = isinstance(table, sa.Table) and isinstance(ward_of(table), Protected)
        return None if is_face else table.schema


class _Wards(FaceReflection):
    """What differs from the dialect of psycopg."""

    supports_statement_cache = True
    preparer: Any = _Preparer
    default_isolation_level: Any = "READ COMMITTED"
    server_version_info: Any
    _isolation_lookup: dict[str, Any]

    def initialize(self, connection: sa.Connection) -> None:
        """Take all from the oldest server there is for wards: no tenant is known yet to ask as."""
        self.server_version_info = (15,)
        self.supports_smallserial = self.supports_identity_columns = True
        self._supports_jsonb_subscripting = self._supports_drop_index_concurrently = True
        self._backslash_escapes = False

    def on_connect(self) -> None:
        return None

    def do_begin(self, dbapi_connection: Any) -> None:
        dbapi_connection.begin()

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()

    def do_begin_twophase(self, connection: sa.Connection, xid: Any) -> None:
        raise Unsupported("a prepared transaction would outlive its login", "use one-phase transactions")

    def get_driver_connection(self, connection: Any) -> Any:
        return connection.driver_connection or connection

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        if level == "AUTOCOMMIT":
            raise autocommit()
        dbapi_connection.settings["isolation_level"] = self._isolation_lookup[level]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        level = dbapi_connection.settings.get("isolation_level")
        return self.default_isolation_level if level is None else level.name.replace("_", " ")

    def detectautocommit_setting(self, dbapi_connection: Any) -> bool:
        return False

    def set_readonly(self, connection: Any, value: bool) -> None:
        connection.settings["read_only"] = value

    def set_deferrable(self, connection: Any, value: bool) -> None:
        connection.settings["deferrable"] = value


class WardDialect(_Wards, PGDialect_psycopg):
    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: sa.URL) -> type[AsyncWardDialect]:
        return AsyncWardDialect


class AsyncWardDialect(_Wards, PGDialectAsync_psycopg):
    supports_statement_cache = True


registry.register("postgresql.wardkey", __name__, "WardDialect")
