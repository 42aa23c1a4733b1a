"""PostgreSQL as the rest of this package sees it: the only module that knows ``plpy``."""

from __future__ import annotations

from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, CFuncPtr, Structure, _SimpleCData, byref, dlopen
from time import time

import plpy
from wardkey_core.errors import WardError
from wardkey_core.journal import PREFIX

__all__ = ["PostgresHost", "keep_refusal", "statement_started", "take_refusal"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _R = TypeVar("_R")

_POSTGRES_EPOCH = 946_684_800  # 2000-01-01 in unix seconds
_COMMIT, _ABORT, _PREPARE = 0, 2, 4  # of enum XactEvent
_REPEATABLE_READ = 2
_BEGUN = 0.02  # seconds for which a transaction has just begun


# The part of module ctypes that is needed here: reading all of it would take 1.5 ms of each backend.
class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "q"


class _Count(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "Q"


class _Bool(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "?"


class _Address(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "P"


class _Text(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _Function(CFuncPtr):
    """A function of the server; Python's lock is held while it runs."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
    _restype_ = None


class _OnEnd(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = None
    _argtypes_ = (_Int, _Address)


class _OnReset(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL
    _restype_ = None
    _argtypes_ = (_Address,)


class _ResetCallback(Structure):
    """MemoryContextCallback; may be registered again once it was called, not before."""

    _fields_ = (("call", _OnReset), ("argument", _Address), ("next", _Address))


class _ErrorContext(Structure):
    """What a server function that calls others leaves on a stack while it runs, to be named in errors."""

    _fields_ = (("previous", _Address), ("callback", _Address), ("argument", _Address))


class _Symbol(Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = (("file", _Text), ("base", _Address), ("name", _Text), ("address", _Address))


class _Program:
    """The server, for what looks for the handle of a shared library."""

    _handle = dlopen(None, 0)  # type: ignore[arg-type]  # the program itself


_server: Any = _Program


def _function(name: str, result: type | None, *arguments: type) -> Callable[..., Any]:
    function = _Function((name, _server))
    function.restype = result
    function.argtypes = arguments
    return function


# Stable, exported functions of the server, called directly because a call through SPI costs more than
# opening a value does, and because SQL cannot forge what they return: passing now() as an argument would let
# it be chosen.
statement_started: Callable[[], int] = _function("GetCurrentStatementStartTimestamp", _Long)
_in_parallel_mode = _function("IsInParallelMode", _Bool)
_in_recovery = _function("RecoveryInProgress", _Bool)
# Without argtypes, with which a call costs three times as much: prefix and message as bytes, a size (an int
# fills its register), whether transactional (0) and, since PostgreSQL 17, whether to flush (0); earlier ones
# do not look at that. Neither function can raise an error of the server's, which would jump over Python:
# without WAL the server goes down.
_log_message = _Function(("LogLogicalMessage", _server))
_log_message.restype = _Long
# The same of a setting's name, whether it may be missing (then NULL), and whether to check who asks.
_setting = _Function(("GetConfigOption", _server))
_setting.restype = _Text
_flush_soon = _function("XLogSetAsyncXactLSN", None, _Long)
_call_at_end = _function("RegisterXactCallback", None, _OnEnd, _Address)
_call_before_exit = _function("before_shmem_exit", None, _OnEnd, _Address)
_call_at_reset = _Function(("MemoryContextRegisterResetCallback", _server))
# GetLatestSnapshot raises in a parallel plan only, which is asked about before.
_latest_snapshot = _function("GetLatestSnapshot", _Address)
_push_snapshot = _function("PushActiveSnapshot", None, _Address)
_pop_snapshot = _function("PopActiveSnapshot", None)
_current_user = _function("GetUserId", _Int)
_outer_user = _function("GetOuterUserId", _Int)  # the role of SET ROLE, else the session's
_session_user = _function("GetSessionUserId", _Int)
_symbol_at = _function("dladdr", _Int, _Address, _Address)
_transaction_started = _function("GetCurrentTransactionStartTimestamp", _Long)
_written_under = _function("GetTopTransactionIdIfAny", _Int)
# Of a relation that is in the cache of pg_class, else it might look there and raise.
_invalidate = _function("CacheInvalidateRelcacheByRelid", None, _Int)

_invalidations = _Count.in_dll(_server, "SharedInvalidMessageCounter")
_application = _Text.in_dll(_server, "application_name")
_client_statement = _Text.in_dll(_server, "debug_query_string")
_statement_address = _Address.in_dll(_server, "debug_query_string")
_message_context = _Address.in_dll(_server, "MessageContext")  # reset after each message of a client
_isolation = _Int.in_dll(_server, "XactIsoLevel")
_temp_file_limit = _Int.in_dll(_server, "temp_file_limit")
_wishes_to_end = [_Int.in_dll(_server, name) for name in ("QueryCancelPending", "ProcDiePending")]
_error_contexts = _Address.in_dll(_server, "error_context_stack")

_PREFIX = PREFIX.encode()
_CLIENT = """
select session_user::pg_catalog.text as database_role,
       pg_catalog.host(pg_catalog.inet_client_addr()) as address"""
# of any relation that nothing waits for; asking for its file brings it into the cache of pg_class
_TOLD = """
select oid::bigint as it, pg_relation_filenode(oid) from pg_class where oid = 'ward.tenants'::regclass"""
_PURPOSE = "select pg_catalog.left(pg_catalog.current_setting('ward.purpose'), 200) as purpose"


class PostgresHost:
    """Queries with plans kept for the life of the backend, and the journal."""

    def __init__(self) -> None:
        self._plans: dict[str, Any] = {}
        self._written = 0  # up to where the WAL has messages that nobody has asked to have on disk
        self._ended: Callable[[], None] = lambda: None
        self._on_end = _OnEnd(self._end)  # has to live as long as the backend
        self._exiting: Callable[[], None] = lambda: None
        self._on_exit = _OnEnd(lambda code, argument: self._exiting())
        self._statement_ended: Callable[[], None] = lambda: None
        self._on_reset = _ResetCallback(_OnReset(self._end_statement))  # has to live as long
        self._is_watched = False
        self._asked: tuple[str, Sequence[str], Sequence[Any]] = ("", (), ())
        self._rows: list[Mapping[str, Any]] = []
        _call_at_end(self._on_end, None)
        _call_before_exit(self._on_exit, None)

    def at_exit(self, exiting: Callable[[], None]) -> None:
        """Have ``exiting`` called when the backend ends, before it lets go of the WAL."""
        self._exiting = exiting

    def at_end(self, ended: Callable[[], None]) -> None:
        """Have ``ended`` called at the end of each transaction, also of those within one statement."""
        self._ended = ended

    def at_statement_end(self, ended: Callable[[], None]) -> None:
        """Have ``ended`` called when a statement that was watched has ended: the client's message is done."""
        self._statement_ended = ended

    def watch_statement(self) -> bool:
        """Have the end of the current statement told. False in a process that gets no messages."""
        if not self._is_watched and _message_context.value is not None:
            self._is_watched = True
            _call_at_reset(_message_context, byref(self._on_reset))
        return self._is_watched

    def _end_statement(self, _: int | None) -> None:
        self._is_watched = False
        self._statement_ended()

    def query(self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()) -> list[Mapping[str, Any]]:
        plan = self._plans.get(sql)
        if plan is None:
            plan = self._plans[sql] = plpy.prepare(sql, list(types))
        return list(plan.execute(list(args)))

    def query_now(
        self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()
    ) -> list[Mapping[str, Any]]:
        """Query what is committed now, also where the transaction's snapshot is older: REPEATABLE READ.

        Not in a parallel plan.
        """
        if not self.has_old_snapshot():
            return self.query(sql, types, args)
        self._asked = sql, types, args
        # SPI looks with the active snapshot only from a STABLE function
        self.query("select coalesce(ward_internal.look_up_now(), ward.raise_refusal(true))")
        rows, self._rows = self._rows, []
        return rows

    def has_old_snapshot(self) -> bool:
        """Whether queries see what was committed when the transaction began, not now."""
        return bool(_isolation.value >= _REPEATABLE_READ)

    def changes(self) -> tuple[int, int] | None:
        """Return what differs once a change of tenants or issuers was committed, or another user set.

        The server counts other backends' changes when a transaction begins: None in one that began earlier
        than just now, or that has changed something itself.
        """
        if time() - _POSTGRES_EPOCH - _transaction_started() / 1e6 > _BEGUN or _written_under():
            return None
        return _invalidations.value, _session_user()

    def tell_backends(self) -> None:
        """Have ``changes`` differ in each backend from the commit of this transaction on.

        Backends tell each other what they keep of a table is not so any more; only their count matters here.
        """
        _invalidate(self.query(_TOLD)[0]["it"])

    def look_up_now(self) -> bool:
        """Run what ``query_now`` was asked, under a snapshot of now."""
        _push_snapshot(_latest_snapshot())
        try:
            self._rows = self.query(*self._asked)
        finally:
            _pop_snapshot()
        return True

    def check_interrupts(self) -> None:
        """Let a waiting cancel or statement_timeout through: Python code does not look for them itself.

        Only when there is one, because a query is an error in a parallel plan.
        """
        if any(wish.value for wish in _wishes_to_end):
            plpy.execute("select 1")

    def statement_time(self) -> float:
        return statement_started() / 1e6 + _POSTGRES_EPOCH

    def statement_start(self) -> int:
        return statement_started()

    def refuse_temporary_files(self) -> None:
        """Let this backend write no temporary file: they are on a disk, and would hold plaintext.

        Tenants' login roles have the setting; a role in their place, or one restored without it, gets it.
        """
        if _temp_file_limit.value != 0:
            self.query("select pg_catalog.set_config('temp_file_limit', '0', false)")

    def client_statement(self) -> bytes:
        """Return the text that the client sent, in the database's encoding."""
        return _client_statement.value or b""

    def statement_address(self) -> int:
        """Return where that text lies: with the time, which statement it is, without copying it."""
        return _statement_address.value or 0

    def in_recovery(self) -> bool:
        """Whether this server cannot write WAL: a standby."""
        return bool(_in_recovery())

    def journal(self, message: bytes) -> None:
        """Write a message into the WAL, outside the transaction, to be on disk in a moment."""
        _flush_soon(_log_message(_PREFIX, message, len(message), 0, 0))

    def journal_later(self, message: bytes) -> None:
        """The same, to be on disk soon after the transaction has ended, whichever way.

        The server has the WAL of a COMMIT written soon, but not that of a ROLLBACK that changed nothing.
        """
        self._written = _log_message(_PREFIX, message, len(message), 0, 0)

    def _end(self, event: int, _: int | None) -> None:
        if event not in (_COMMIT, _ABORT, _PREPARE):
            return
        if event == _ABORT and self._written:
            _flush_soon(self._written)
        self._written = 0
        self._ended()

    def client(self) -> Mapping[str, str | None]:
        """Return database role, address, application of the connected client; nothing in a parallel plan."""
        if self.in_parallel_plan():
            return {}
        return {**self.query(_CLIENT)[0], "application": self.application()}

    def application(self) -> str:
        """Return what the client calls itself; PostgreSQL keeps ASCII of it."""
        return (_application.value or b"").decode(errors="replace")

    def purpose(self) -> str | None:
        """Return the setting ward.purpose, None where it is empty."""
        if not _setting(b"ward.purpose", 1, 0):
            return None
        return str(self.query(_PURPOSE)[0]["purpose"])

    def in_parallel_plan(self) -> bool:
        """Whether a query would fail because workers of a parallel plan are under way."""
        return bool(_in_parallel_mode())

    def is_nested(self) -> bool:
        """Whether PL/pgSQL code of somebody else runs what asks: a DO block, a function that is not ours.

        Ours are the writers of faces: they are definers, and one level of PL/pgSQL.
        """
        return _levels_of_plpgsql() != self.is_definer()

    def is_definer(self) -> bool:
        """Whether a SECURITY DEFINER function is being run: one of ours, tenants can make none."""
        return bool(_current_user() != _outer_user())

    def change(self, sql: str, types: Sequence[str], args: Sequence[Any]) -> int:
        """Run what changes rows, made up for the occasion. Return how many."""
        return int(plpy.prepare(sql, list(types)).execute(list(args)).nrows())

    def try_change(self, sql: str, types: Sequence[str], args: Sequence[Any]) -> int | None:
        """Run what changes rows, or nothing at all and return None where a unique index has one already."""
        try:
            with plpy.subtransaction():
                return self.change(sql, types, args)
        except plpy.spiexceptions.UniqueViolation:
            return None

    def fetch(
        self, sql: str, size: int, values: Sequence[str | None] = ()
    ) -> Iterator[list[Mapping[str, Any]]]:
        """Yield the rows of a query made up for the occasion, ``size`` at a time. ``values``: texts."""
        cursor = plpy.cursor(plpy.prepare(sql, ["text"] * len(values)), list(values))
        while rows := list(cursor.fetch(size)):
            yield rows


def _levels_of_plpgsql() -> int:
    """Return how many functions and blocks of PL/pgSQL are being run."""
    levels, address, symbol = 0, _error_contexts.value, _Symbol()
    while address:
        context = _ErrorContext.from_address(address)
        if _symbol_at(context.callback, byref(symbol)):
            levels += (symbol.file or b"").endswith(b"/plpgsql.so")
        address = context.previous
    return levels


_kept: WardError | None = None


def keep_refusal(
    function: Callable[_P, _R], refused: Callable[[WardError], None] = lambda error: None
) -> Callable[_P, _R | None]:
    """Return None in place of one of our errors, which SQL takes with ``take_refusal`` and raises.

    An error that is raised in PL/Python reaches the client with a traceback of our code in its CONTEXT. What
    SQL raises has our text and nothing of the values at hand. ``refused`` hears of each refusal first, once:
    not of one that came out of a gate.
    """

    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
        global _kept
        _kept = None  # of an earlier call: None may be the answer of this one
        try:
            return function(*args, **kwargs)
        except WardError as error:
            refused(error)
            _kept = error
        except plpy.SPIError as error:
            from wardkey_core.administration import BY_SQLSTATE  # most backends never do

            known = BY_SQLSTATE.get(_sqlstate(error))
            if known is None:
                raise  # a cancel, a query that failed
            _kept = known()  # our own, from a gate this call went through
        except (plpy.Error, plpy.Fatal):
            raise
        except Exception as error:
            # The text of a foreign exception may quote its input (UnicodeDecodeError does).
            _kept = WardError(f"internal error ({type(error).__name__})")
        return None

    return call


def take_refusal() -> list[str | None] | None:
    """Return SQLSTATE, message and hint of what the last call refused, None if it did not."""
    global _kept
    error, _kept = _kept, None
    return None if error is None else [error.sqlstate, f"wardkey: {error.message}", error.hint]


def _sqlstate(error: Any) -> str:
    """Return the SQLSTATE of an SPIError; of unknown classes PL/Python keeps six bits a character."""
    code = error.spidata[0] if getattr(error, "spidata", None) else 0
    return "".join(chr((code >> 6 * place & 0x3F) + ord("0")) for place in range(5))
