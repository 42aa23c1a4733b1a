"""One Engine for all tenants, over ``wardkey.Wards``, and whose its transactions are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from ..client import AsyncWards, Wards
from ..client.tokens import Secret
from ..errors import WrongTenant
from .dialect import AsyncConnection, AsyncWardDialect, Connection, WardDialect, autocommit

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["as_token", "async_engine", "engine", "token"]

token: ContextVar[Secret | None] = ContextVar("wardkey token", default=None)

_URL = "postgresql+wardkey://"
_OPTION = "ward_token"
_CALLER = "wardkey caller"


def as_token(token: str) -> AbstractContextManager[None]:
    """Let transactions that begin in the block be of whom ``token`` says."""
    return _as(Secret(token))


@contextmanager
def _as(secret: Secret) -> Iterator[None]:
    before = token.set(secret)
    try:
        yield
    finally:
        token.reset(before)


def engine(wards: Wards, **options: Any) -> sa.Engine:
    """Return an Engine for all tenants of ``wards``, whose pools it uses; it closes none of them.

    Each transaction is of the token of ``as_token``, or of ``execution_options(ward_token=…)`` of its
    connection or engine. Further options are those of ``create_engine`` but for its pool; values are hidden
    in errors and logs unless ``hide_parameters=False``.
    """
    made = sa.create_engine(_URL, creator=lambda: Connection(wards), **_checked(options))
    return _listened(made)


def async_engine(wards: AsyncWards, **options: Any) -> AsyncEngine:
    """Return the same for asyncio."""
    from sqlalchemy.ext.asyncio import create_async_engine  # wants greenlet, which migrations do without

    dbapi = AsyncWardDialect.import_dbapi()  # type: ignore[no-untyped-call]
    made = create_async_engine(
        _URL, creator=lambda: AsyncConnection(wards, dbapi), module=dbapi, **_checked(options)
    )
    _listened(made.sync_engine)
    return made


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    for name in ("creator", "async_creator", "pool", "poolclass", "json_serializer", "json_deserializer"):
        if name in options:
            raise TypeError(f"{name} is not for wards")
    if options.get("isolation_level") == "AUTOCOMMIT":
        raise autocommit()
    return {"hide_parameters": True, "poolclass": NullPool, "use_native_hstore": False, **options}


def _listened(made: sa.Engine) -> sa.Engine:
    event.listen(made, "begin", _begin)
    event.listen(made, "set_connection_execution_options", _hide)
    event.listen(made, "set_engine_execution_options", _hide)
    return made


def _hide(_: object, options: dict[str, Any]) -> None:
    if isinstance(options.get(_OPTION), str):
        options[_OPTION] = Secret(options[_OPTION])


def _begin(connection: sa.Connection) -> None:
    """Say whose the transaction is; an error here would leave SQLAlchemy in the middle of its BEGIN."""
    proxy: Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    proxy.secret = connection.get_execution_options().get(_OPTION) or token.get()


@event.listens_for(Session, "after_begin")
def _keep_apart(session: Session, _: object, connection: sa.Connection) -> None:
    """Refuse a session that has objects of one caller to begin as another: they would stand for its rows.

    Another is also who has another subject, role or claim: rules and masks show them other rows and values.
    """
    if not isinstance(connection.dialect, WardDialect | AsyncWardDialect):
        return
    caller = connection.connection.caller
    if session.info.setdefault(_CALLER, caller) != caller:
        if len(session.identity_map):
            raise WrongTenant(
                "the session has objects of another tenant or subject",
                "use a session for each request, or session.expunge_all()",
            )
        session.info[_CALLER] = caller
