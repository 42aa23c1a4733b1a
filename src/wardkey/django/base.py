"""The database backend of the alias of tenants, over PostgreSQL's. Its connections are those of ``Wards``.

A transaction begins with the first statement inside of ``atomic``, on a connection of the pool of the
token's tenant; BEGIN and the login go before the statement in one round trip. COMMIT and ROLLBACK give it
back: none is held between transactions, or for a request that reads nothing. A statement outside of
``atomic`` has no context and is refused.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql import base, features, operations
from django.db.transaction import TransactionManagementError
from django.utils.asyncio import async_unsafe
from django.utils.functional import cached_property
from django.utils.module_loading import import_string
from psycopg.conninfo import make_conninfo

from ..client import Wards, tenant_of
from ..client.tokens import Secret
from ..errors import NoContext
from . import tokens
from .errors import ErrorWrapper

__all__ = ["DatabaseWrapper"]

_OUTSIDE = (
    "A statement on alias %r is outside of a transaction: no token says whose rows it is about. "
    "Use transaction.atomic(using=%r), or ATOMIC_REQUESTS."
)
_CHANGED = "The token has changed since the transaction began: one transaction has one token."
_OF_PSYCOPG = ("application_name", "context", "cursor_factory", "prepare_threshold")  # not of libpq

_lock = Lock()
_wards: dict[tuple[int, str], Wards] = {}  # by process: a pool's threads do not survive fork


class DatabaseFeatures(features.DatabaseFeatures):
    # ON CONFLICT with a target does not exist for views: models.upsert
    supports_update_conflicts = False
    supports_update_conflicts_with_target = False
    # a view has no primary key that other columns depend on
    allows_group_by_selected_pks = False


class DatabaseOperations(operations.DatabaseOperations):
    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str:
        """The statement for logs and ``connection.queries``: without its parameters, which may be PHI."""
        return sql


class CursorDebugWrapper(base.CursorDebugWrapper):
    def debug_sql(self, sql: Any = None, params: Any = None, *rest: Any, **options: Any) -> Any:
        return super().debug_sql(sql, None, use_last_executed_query=False)


class DatabaseWrapper(base.DatabaseWrapper):
    features_class = DatabaseFeatures
    ops_class = DatabaseOperations
    connection: Any
    savepoint_ids: list[Any]
    atomic_blocks: list[Any]
    run_on_commit: list[Any]
    run_commit_hooks_on_set_autocommit_on: bool

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.autocommit = True
        self._token: Secret | None = None

    @property
    def wards(self) -> Wards:
        """The pools of this alias, made by the first transaction of the process."""
        key = os.getpid(), self.alias
        with _lock:
            if key not in _wards:
                _wards[key] = self._make_wards()
        return _wards[key]

    @cached_property
    def wrap_database_errors(self) -> ErrorWrapper:
        return ErrorWrapper(self)

    @cached_property
    def pg_version(self) -> int:
        self.ensure_connection()
        return int(self.connection.info.server_version)

    @async_unsafe
    def connect(self) -> None:
        """Begin the transaction that ``atomic`` wants; called by the first statement in it."""
        if self.autocommit:
            raise TransactionManagementError(_OUTSIDE % (self.alias, self.alias))
        self._token = tokens.current.get()
        if self._token is None:
            raise NoContext(
                "no token for this transaction", "send a bearer token, or: with tokens.use(token)"
            )
        connection = self.wards.getconn(tenant_of(self._token.token))
        try:
            if level := self.settings_dict["OPTIONS"].get("isolation_level"):
                connection.isolation_level = level
            self._configure_timezone(connection)
            self.wards.begin(connection, self._token.token)
        except BaseException:
            self.wards.putconn(connection)
            raise
        self.connection = connection

    def create_cursor(self, name: str | None = None) -> Any:
        held = tokens.current.get()
        if held is None or self._token is None or held.token != self._token.token:
            raise TransactionManagementError(_CHANGED)
        if name is None:
            return super().create_cursor()
        # not WITH HOLD, though psycopg takes the connection for one in autocommit mode
        return base.ServerSideCursor(self.connection, name=name, scrollable=False, withhold=False)

    def make_debug_cursor(self, cursor: Any) -> CursorDebugWrapper:
        return CursorDebugWrapper(cursor, self)

    @async_unsafe
    def get_autocommit(self) -> bool:
        if self.closed_in_transaction and not self.in_atomic_block:
            self._forget()
        return self.autocommit

    def set_autocommit(self, autocommit: bool, **options: Any) -> None:
        self.validate_no_atomic_block()
        if self.connection is not None:
            self.close()
        self.closed_in_transaction = False
        self.autocommit = autocommit
        if autocommit and self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    def close_if_unusable_or_obsolete(self) -> None:
        """Called before and after each request, which no transaction outlives."""
        if self.connection is not None or not self.autocommit:
            self._close()
            self._forget()

    def prepare_database(self) -> None:
        raise ImproperlyConfigured(f"Migrate the alias of the owner; {self.alias!r} has faces, not tables.")

    def _commit(self) -> None:
        super()._commit()
        self._give_back()

    def _rollback(self) -> None:
        super()._rollback()
        self._give_back()

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self._give_back()

    def _give_back(self) -> None:
        connection, self.connection, self._token = self.connection, None, None
        if connection is not None:
            self.wards.putconn(connection)

    def _forget(self) -> None:
        """Be as new: the transaction that was is gone with its connection."""
        self.in_atomic_block = self.needs_rollback = self.closed_in_transaction = False
        for stack in (self.savepoint_ids, self.atomic_blocks, self.run_on_commit):
            stack.clear()
        self.autocommit = True

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        parameters.pop("wards", None)
        return parameters

    def _make_wards(self) -> Wards:
        says, options = self.settings_dict, dict(self.settings_dict["OPTIONS"].get("wards", {}))
        if unfit := [name for name in ("assume_role", "pool") if name in says["OPTIONS"]]:
            raise ImproperlyConfigured(f"OPTIONS of alias {self.alias!r} has {unfit[0]!r}, which it cannot")
        if not says["AUTOCOMMIT"] or says["CONN_MAX_AGE"]:
            raise ImproperlyConfigured(
                f"leave AUTOCOMMIT and CONN_MAX_AGE of alias {self.alias!r} as they are"
            )
        for name in ("password", "tenants"):
            if isinstance(options.get(name), str):
                options[name] = import_string(options[name])
        parameters = self.get_connection_params()
        options |= {name: parameters.pop(name) for name in _OF_PSYCOPG if name in parameters}
        return Wards(make_conninfo(**{"user": "tenant_{tenant}", **parameters}), **options)
