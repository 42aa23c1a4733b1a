"""Redis as the invalidator has it: users of tenants, and nobody else's data.

A tenant's user may get and set values below its own prefix, and read its own marks; it knows no other
command, no channel and no script. Users are told apart by the tenant's uuid, which has no character that is
a pattern.

The user ``default`` is off. The invalidator's own may do what is here and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from ..errors import CacheError
from .config import Configuration
from .sealed import OWNER, marks_name, user_of, values_prefix

__all__ = ["COMMANDS", "OWN", "drop", "join", "leave", "set_up", "tenants_in", "translated"]

OWN: Final = "wardkey"
COMMANDS: Final = ("get", "mget", "set", "ping")
_OWN_COMMANDS: Final = (
    *("acl|setuser", "acl|deluser", "acl|users", "acl|save", "client|kill", "config|rewrite", "dbsize"),
    *("get", "set", "del", "info", "ping"),
)
_OLDEST: Final = (7, 0)
_SECONDS: Final = 2.0


def join(configuration: Configuration, owner: str) -> redis.Redis:
    """Return a connection as the invalidator's own user, of a Redis that is set up for ``owner``'s database.

    ``owner`` tells one wardkey from others: a Redis belongs to one. Raises CacheError.
    """
    try:
        try:
            connection = _connect(configuration, OWN, configuration.password)
        except AuthenticationError:
            connection = _connect(
                configuration
            )  # a new one, or it was restarted and its users were not saved
            _make_own_user(connection, configuration)
            connection.close()
            connection = _connect(configuration, OWN, configuration.password)
        _claim(connection, owner)
        return connection
    except (RedisError, OSError) as error:
        raise translated(error) from None


def set_up(connection: redis.Redis, tenant: str, password: str) -> None:
    """Make the tenant's user, or give it another password; who is connected has to show the new one."""
    digest = sha256(password.encode()).hexdigest()
    rules = ["reset", "on", f"#{digest}", "resetchannels", f"%RW~{values_prefix(tenant)}*"]
    rules += [f"%R~{marks_name(tenant)}", "-@all", *(f"+{name}" for name in COMMANDS)]
    _run(connection, "ACL SETUSER", user_of(tenant), *rules)
    _run(connection, "CLIENT KILL", "USER", user_of(tenant))


def drop(connection: redis.Redis, tenant: str) -> None:
    """End the tenant's user, its connections and its marks."""
    _run(connection, "ACL DELUSER", user_of(tenant))
    connection.delete(marks_name(tenant))


def tenants_in(connection: redis.Redis) -> Iterable[str]:
    """Return the tenants that have a user."""
    prefix = user_of("")
    names = [name.decode() if isinstance(name, bytes) else name for name in connection.acl_users()]
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def leave(configuration: Configuration) -> None:
    """Undo what ``join`` did: users of tenants go, and ``default`` is let in again where it was before.

    Raises CacheError.
    """
    try:
        with _connect(configuration, OWN, configuration.password) as connection:
            for tenant in tenants_in(connection):
                drop(connection, tenant)
            connection.delete(OWNER)
            if not urlsplit(configuration.url).username:
                _run(connection, "ACL SETUSER", "default", "on")
            _save(connection)
            _run(connection, "ACL DELUSER", OWN)
    except (RedisError, OSError) as error:
        raise translated(error) from None


def translated(error: Exception) -> CacheError:
    """Return what to tell of an error of Redis: no password is in it, nor what was asked."""
    if isinstance(error, AuthenticationError):
        return CacheError(
            "Redis does not let us in", "name user and password: redis://USER:PASSWORD@HOST:PORT"
        )
    if isinstance(error, ResponseError):
        return CacheError(f"Redis refuses what it is asked: {str(error).partition(' ')[0]}", "see its log")
    return CacheError(
        f"Redis cannot be reached: {type(error).__name__}", "is it running, and is the URL right?"
    )


def _connect(
    configuration: Configuration, user: str | None = None, password: str | None = None
) -> redis.Redis:
    url = configuration.url if user is None else configuration.public_url
    given: dict[str, Any] = {} if user is None else {"username": user, "password": password}
    connection = redis.Redis.from_url(
        url,
        **given,
        single_connection_client=True,
        retry=None,
        protocol=2,
        driver_info=None,
        socket_timeout=_SECONDS,
        socket_connect_timeout=_SECONDS,
    )
    version = str(connection.info("server").get("redis_version", "0.0"))
    if tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise CacheError(f"this is Redis {version}", "the cache needs Redis 7.0 or newer, for its ACLs")
    return connection


def _make_own_user(connection: redis.Redis, configuration: Configuration) -> None:
    """Make the invalidator's user and turn ``default`` off, if nobody else uses this Redis."""
    if connection.dbsize() and connection.get(OWNER) is None:
        raise CacheError(
            "this Redis has data of somebody else's", "the cache needs a Redis of its own, an empty one"
        )
    digest = sha256(configuration.password.encode()).hexdigest()
    rules = ["reset", "on", f"#{digest}", "~w:*", "-@all", *(f"+{name}" for name in _OWN_COMMANDS)]
    _run(connection, "ACL SETUSER", OWN, *rules)
    _run(connection, "ACL SETUSER", "default", "off")
    _save(connection)


def _run(connection: redis.Redis, *words: str) -> None:
    run: Any = connection.execute_command
    run(*words)


def _save(connection: redis.Redis) -> None:
    for command in ("ACL SAVE", "CONFIG REWRITE"):  # where the server has a file for that
        with suppress(ResponseError):
            _run(connection, command)
            return


def _claim(connection: redis.Redis, owner: str) -> None:
    connection.set(OWNER, owner, nx=True)
    if connection.get(OWNER) not in (owner, owner.encode()):
        raise CacheError("this Redis is the cache of another wardkey", "each needs a Redis of its own")
