"""psycopg's connections, with the login before the first statement of a transaction.

``arm`` says whose the next transaction is and sends nothing. The next statement, of whatever cursor, has
BEGIN and the login before it: in the same round trip (libpq's pipeline, one Sync) for one statement of
``execute`` and for ``executemany``, in a round trip before it for COPY, ``stream``, a server-side cursor,
several statements in one string and ``transaction()``.

How: psycopg's blocking and its asyncio connection run the same generators through ``wait``; that of each
statement calls ``_start_query``, where psycopg itself sends BEGIN. Both classes here are that and ``wait``.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import psycopg
from psycopg import AsyncPipeline, Pipeline
from psycopg._preparing import Prepare
from psycopg.generators import execute
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.sql import Composable

from .. import tracing
from ..errors import WardError, from_psycopg, ward_error
from .tokens import Secret

if TYPE_CHECKING:
    from psycopg._pipeline_base import BasePipeline
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .ledger import Share

    _Base = psycopg._connection_base.BaseConnection[Any]
else:
    _Base = object

__all__ = ["LOGIN", "AsyncWardConnection", "WardConnection"]

LOGIN = "select ward.login(%s)"
_QUERY = LOGIN.replace("%s", "$1").encode()
_NAMES = (
    *("_autocommit", "_isolation_level", "_read_only", "_deferrable", "_begin_statement"),
    *("row_factory", "cursor_factory", "server_cursor_factory"),
)
_ATTRIBUTES = attrgetter(*_NAMES, "_prepared.prepare_threshold")

P = ParamSpec("P")
T = TypeVar("T")


def _without_values(method: Callable[P, T]) -> Callable[P, T]:
    """Raise errors from here: frames of psycopg have the token or parameters in them."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except (psycopg.Error, WardError) as error:
            failure = error.with_traceback(None)
        del args, kwargs
        raise failure

    return call


def _without_values_async(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except (psycopg.Error, WardError) as error:
            failure = error.with_traceback(None)
        del args, kwargs
        raise failure

    return call


class WardCursor(psycopg.Cursor[Any]):
    execute = _without_values(psycopg.Cursor.execute)
    executemany = _without_values(psycopg.Cursor.executemany)


class AsyncWardCursor(psycopg.AsyncCursor[Any]):
    execute = _without_values_async(psycopg.AsyncCursor.execute)
    executemany = _without_values_async(psycopg.AsyncCursor.executemany)


class _Login:
    """What psycopg's manager of prepared statements looks at of a query."""

    query, types = _QUERY, (0,)


class _Read:
    """The same of the statement that logs in and journals what a client has read out of its cache."""

    query, types = b"select ward.read_cached($1, $2)", (0, 0)


def _ascii(secret: Secret) -> bytes:
    return secret.token.encode("ascii", "replace").replace(
        b"\0", b"?"
    )  # "?" is in no token; NUL would end it


def _successful(results: list[PGresult]) -> None:
    for result in results:
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)


class _LogsIn(_Base):
    """The login before a transaction's first statement, as generators for either way to wait."""

    share: Share  # of whose pool
    _secret: Secret | None = None  # whose the next transaction is
    _opened: BasePipeline | None = None  # the pipeline that the login is in, if it is not the caller's
    _as_made: tuple[Any, ...]  # the attributes that callers may change
    _poll: select.poll
    _span: Any = None  # of the login that is not answered yet
    _joins: bool = False  # whether the statement that runs may be in that pipeline
    _pipeline_class: type[Any]

    def arm(self, secret: Secret | None) -> None:
        """Say whose the next transaction is, from its first statement on; None: nobody's."""
        self._secret = secret

    def _made(self) -> None:
        self._get_tx_start_command()  # which keeps it among the attributes
        self._as_made = _ATTRIBUTES(self)
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)

    def is_open(self) -> bool:
        """Tell whether the server left the connection open while it lay in the pool. Makes no round trip."""
        try:
            while self._poll.poll(0):  # its last words, then the end of the stream
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return self.pgconn.status == ConnStatus.OK

    def restore(self) -> None:
        """Undo what a caller changed of the connection's attributes."""
        if _ATTRIBUTES(self) != self._as_made:
            for name, value in zip(_NAMES, self._as_made, strict=False):
                setattr(self, name, value)
            self.prepare_threshold = self._as_made[-1]

    def _start_query(self) -> PQGen[None]:
        secret, self._secret = self._secret, None
        if secret is None:
            yield from super()._start_query()
            return
        self._span = tracing.begin(
            "wardkey.login", db_system_name="postgresql", wardkey_shares_round_trip=self._joins
        )
        pipeline = self._pipeline
        if pipeline is None:
            pipeline = self._opened = self._pipeline = self._pipeline_class(self, _no_lock=True)
            yield from pipeline._enter_gen()
        yield from self._exec_command(self._get_tx_start_command())
        self._queue_login(secret, pipeline)
        yield from pipeline._communicate_gen()  # the server begins while the statement is made ready
        if not self._joins:
            yield from self._leave(None)

    def _queue_login(self, secret: Secret, pipeline: BasePipeline) -> None:
        """Do what a cursor's ``execute`` does in a pipeline, without one: nobody asks for the result."""
        token = [_ascii(secret)]
        prepare, name = self._prepared.get(_Login, None)  # type: ignore[arg-type]
        if prepare is Prepare.NO:
            commands = [partial(self.pgconn.send_query_params, _QUERY, token)]
        else:
            commands = [partial(self.pgconn.send_query_prepared, name, token)]
        if prepare is Prepare.SHOULD:
            commands.insert(0, partial(self.pgconn.send_prepare, name, _QUERY))
        self._prepared.maybe_add_to_cache(_Login, prepare, name)  # type: ignore[arg-type]
        pipeline.command_queue.extend(commands)
        pipeline.result_queue.extend([None] * len(commands))

    def _read_gen(self, secret: Secret, reads: str) -> PQGen[None]:
        """Do what a cursor's ``execute`` does outside a transaction, of one statement without a result."""
        values = [_ascii(secret), reads.encode()]
        prepare, name = self._prepared.get(_Read, None)  # type: ignore[arg-type]
        if prepare is Prepare.SHOULD:
            self.pgconn.send_prepare(name, _Read.query)
            _successful((yield from execute(self.pgconn)))
        if prepare is Prepare.NO:
            self.pgconn.send_query_params(_Read.query, values)
        else:
            self.pgconn.send_query_prepared(name, values)
        _successful((yield from execute(self.pgconn)))
        self._prepared.maybe_add_to_cache(_Read, prepare, name)  # type: ignore[arg-type]

    def _with_login(self, gen: PQGen[T]) -> PQGen[T]:
        self._joins = self._is_single_statement(gen)
        result: Any = None
        failure: Exception | None = None
        try:
            result = yield from gen
        except Exception as error:
            failure = error
        yield from self._leave(failure)
        return result  # type: ignore[no-any-return]

    def _leave(self, failure: Exception | None) -> PQGen[None]:
        """Take all results and leave the login's pipeline, if there is one; raise what failed first."""
        pipeline, self._opened = self._opened, None
        if pipeline is not None:
            pipeline._enqueue_sync()
            for step in (pipeline._communicate_gen(), pipeline._fetch_gen(flush=False)):
                try:
                    yield from step
                except psycopg.Error as error:
                    failure = failure or error
            pipeline._exit(failure)
            self._pipeline = None
        span, self._span = self._span, None
        tracing.end_login(span, failure)
        if failure is not None:
            raise failure

    def _is_single_statement(self, gen: Any) -> bool:
        """Tell whether gen is of ``execute`` and sends one statement: pipelines have no place for others."""
        if getattr(gen, "__name__", "") != "_execute_gen":
            return False
        query = gen.gi_frame.f_locals["query"]
        if isinstance(query, Composable):
            query = query.as_bytes(self)
        elif isinstance(query, str):
            query = query.encode()
        return isinstance(query, bytes) and b";" not in query.rstrip(b"; \t\r\n")

    def _refuse_aborted(self) -> None:
        """PostgreSQL answers COMMIT of an aborted transaction with ROLLBACK and no error."""
        if self.pgconn.transaction_status == TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction("a statement of this transaction failed: rolled back")

    def _commit_gen(self) -> PQGen[None]:
        self._secret = None
        yield from super()._commit_gen()

    def _rollback_gen(self) -> PQGen[None]:
        self._secret = None
        yield from super()._rollback_gen()


class WardConnection(_LogsIn, psycopg.Connection[Any]):
    """A psycopg connection as a tenant's login role."""

    _pipeline_class = Pipeline
    execute = _without_values(psycopg.Connection.execute)  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = WardCursor

    @classmethod
    def connect(cls, conninfo: str = "", *, share: Share, **options: Any) -> Self:  # type: ignore[override]
        try:
            connection = super().connect(conninfo, **options)
        except psycopg.Error as error:
            share.failure = from_psycopg(error).message
            raise
        connection._made()
        return connection

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        if self._secret is not None:
            gen = self._with_login(gen)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.Error as error:
            failure = ward_error(error) or error.with_traceback(None)
        raise failure

    def read_cached(self, secret: Secret, reads: str) -> None:
        """Log in and journal ``reads`` in a transaction of its own: one round trip, and little around it."""
        with self.lock:
            self.wait(self._read_gen(secret, reads))

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        self.log_in()
        with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction

    def finish(self) -> None:
        """Commit. Log in first where no statement did so: a token that is refused is always told."""
        self.log_in()
        self._refuse_aborted()
        self.commit()

    def log_in(self) -> None:
        """Begin the transaction and log in now, if no statement did so."""
        if self._secret is not None:
            with self.lock:
                self.wait(self._start_query())


class AsyncWardConnection(_LogsIn, psycopg.AsyncConnection[Any]):
    """``WardConnection`` for asyncio."""

    _pipeline_class = AsyncPipeline
    execute = _without_values_async(psycopg.AsyncConnection.execute)  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = AsyncWardCursor

    @classmethod
    async def connect(cls, conninfo: str = "", *, share: Share, **options: Any) -> Self:  # type: ignore[override]
        try:
            connection = await super().connect(conninfo, **options)
        except psycopg.Error as error:
            share.failure = from_psycopg(error).message
            raise
        connection._made()
        return connection

    async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        if self._secret is not None:
            gen = self._with_login(gen)
        try:
            return await super().wait(gen, *args, **kwargs)
        except psycopg.Error as error:
            failure = ward_error(error) or error.with_traceback(None)
        raise failure

    async def read_cached(self, secret: Secret, reads: str) -> None:
        """As ``WardConnection.read_cached``."""
        async with self.lock:
            await self.wait(self._read_gen(secret, reads))

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        await self.log_in()
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction

    async def finish(self) -> None:
        await self.log_in()
        self._refuse_aborted()
        await self.commit()

    async def log_in(self) -> None:
        """Begin the transaction and log in now, if no statement did so."""
        if self._secret is not None:
            async with self.lock:
                await self.wait(self._start_query())
