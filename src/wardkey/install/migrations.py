"""Migrations of a database: the extension updated, then the revisions of ``migrations/``.

All of it is one transaction, under a lock that lets one migration run at a time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from ..daemon import sessions
from ..errors import DatabaseError, TableInUse, UnknownObject, from_psycopg
from . import resources
from .extension import prepare_extension

__all__ = ["Result", "current", "migrate", "revisions"]

_LOCK = 0x77617264_6D696772  # "wardmigr"
_VERSION_SCHEMA = "ward_migrations"
_ATTEMPTS = 5
_RETRIED = ("55P03", "40P01")  # lock_not_available, deadlock_detected
_HOLDERS = "select pid, role, state, date_trunc('second', since)::text from ward.lock_holders() limit 5"


@dataclass(frozen=True, slots=True)
class Result:
    """What a migration did. Revision and extension are None where there is none."""

    before: str | None
    after: str | None
    extension: str | None

    @property
    def changed(self) -> bool:
        return self.before != self.after


def revisions() -> list[tuple[str, str]]:
    """Return the revisions, oldest first, each with its first line of text."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return [(revision.revision, revision.doc.splitlines()[0]) for revision in scripts][::-1]


def current(dsn: str) -> str | None:
    """Return the revision of a database. Raises WardError."""
    with _transaction(dsn) as connection:
        return _revision(connection)


def migrate(dsn: str, revision: str = "head", *, say: Callable[[str], None] = lambda text: None) -> Result:
    """Bring the database up, or back down, to ``revision``; as a superuser.

    Down refuses while tenants have data there. Waits for locks for some seconds, lets go of all, and tries
    again; in the end it names the sessions that hold them. Raises WardError; then nothing has changed.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _migrate(dsn, revision, say)
        except DatabaseError as error:
            if error.sqlstate not in _RETRIED:
                raise
        time.sleep(attempt * random.uniform(0.2, 0.5))  # noqa: S311 - not for secrets
    with sessions.connect(dsn, "wardkey migrate") as connection:
        rows = connection.execute(_HOLDERS).fetchall()
    holders = "; ".join("pid {} ({}, {}, since {})".format(*row) for row in rows)
    raise TableInUse(
        f"tables are in use: {holders or 'by sessions that have ended meanwhile'}",
        "try again, or end the session: select pg_terminate_backend(pid)",
    )


def _migrate(dsn: str, revision: str, say: Callable[[str], None]) -> Result:
    config = _config()
    with _transaction(dsn) as connection:
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({_LOCK})")
        connection.exec_driver_sql("set local lock_timeout = '5s'")  # also for what is no DDL
        raw = connection.connection.driver_connection
        if change := prepare_extension(cast("psycopg.Connection[object]", raw)):
            say(change)
        before = _revision(connection)
        config.attributes["connection"] = connection
        move = command.downgrade if _is_behind(config, revision, before) else command.upgrade
        move(config, revision)
        after = _revision(connection)
        version = connection.exec_driver_sql(
            "select extversion from pg_extension where extname = 'wardkey'"
        ).scalar()
        return Result(before, after, version)


@contextmanager
def _transaction(dsn: str) -> Iterator[Connection]:
    """Connect; the block is one transaction, and its errors are wardkey's."""

    def connect() -> psycopg.Connection[tuple[object, ...]]:
        return sessions.connect(dsn, "wardkey migrate")

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
            connection.commit()
    except DBAPIError as error:
        raise from_psycopg(error.orig) from None
    except psycopg.Error as error:
        raise from_psycopg(error) from None
    except CommandError:
        known = ", ".join(name for name, _ in revisions())
        raise UnknownObject("no such revision", f"revisions are: {known}, base, head") from None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revision(connection: Connection) -> str | None:
    options = {"version_table_schema": _VERSION_SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def _is_behind(config: Config, wanted: str, now: str | None) -> bool:
    """Return whether ``wanted`` is older than ``now``."""
    if now is None or wanted in ("head", "heads", now):
        return False
    if wanted == "base":
        return True
    scripts = ScriptDirectory.from_config(config)
    script = scripts.get_revision(wanted)
    older = {revision.revision for revision in scripts.walk_revisions("base", now)} - {now}
    return script is not None and script.revision in older
