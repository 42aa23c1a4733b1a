"""Move the data of an embedded server to a newer PostgreSQL with pg_upgrade, and the audit log with it.

pg_upgrade makes another cluster: the replication slot is of the old one, and privileges on objects of
pg_catalog are PostgreSQL's again. So the scribe reads to the end first, with no tenant connected, and goes on
in a slot of the new server, made before anybody can write; ``database.prepare`` restores the privileges.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..daemon.programs import clean_environment, run
from ..errors import ServerError, WardError, from_psycopg
from ..install.software import Software
from . import database
from .cluster import Cluster

__all__ = ["Upgrade", "upgrade"]

_SCRIBE_SECONDS = 120
_DAY = 86400


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Major versions. ``kept``: the directory of the old data, None where nothing was to be done."""

    before: int
    after: int
    kept: str | None


def upgrade(cluster: Cluster, say: Callable[[str], None]) -> Upgrade:
    """Move to the newest PostgreSQL here; all runs afterwards. Raises WardError; the old data stays."""
    import psycopg

    old, new, home = cluster.software, Software.newest(), cluster.home
    if new.major <= old.major:
        return Upgrade(old.major, old.major, None)
    kept = home.path / f"postgres.{old.major}"
    if kept.exists():
        raise ServerError(f"{kept} is in the way", "it is of an earlier upgrade: remove it")
    cluster.start()
    try:
        limit = _drain(cluster)
        say(f"the scribe has read all that PostgreSQL {old.major} wrote")
        cluster.stop()
        try:
            _pg_upgrade(cluster, old, new)
        except WardError:
            _go_on(cluster, limit, say)
            raise
        say(f"pg_upgrade made the data of PostgreSQL {new.major}")
        home.data.rename(kept)
        (home.path / "postgres.new").rename(home.data)
        cluster.use(new)
        _go_on(cluster, limit, say, {"from": old.major, "to": new.major})
    except psycopg.Error as error:
        raise from_psycopg(error) from None
    return Upgrade(old.major, new.major, str(kept))


def _drain(cluster: Cluster) -> int:
    """Let no tenant in, end their sessions, wait for the scribe; return the database's connection limit."""
    from ..daemon.sessions import connect
    from ..scribe.slot import State

    with connect(cluster.dsn(), "wardkey upgrade", autocommit=True) as connection:
        own = "select datconnlimit from pg_database where datname = %s"
        limit = int(_value(connection, own, database.NAME))
        connection.execute(
            f"alter database {database.NAME} connection limit 0"
        )  # superusers still connect, others stay
        connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity join pg_roles on rolname = usename"
            " where datname = current_database() and not rolsuper and rolname <> 'ward_scribe'"
        )
        state, end = State.read(connection), _value(connection, "select pg_current_wal_insert_lsn()::text")
        query = "select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots where slot_name = %s"
        deadline = time.monotonic() + _SCRIBE_SECONDS
        while state and not _value(connection, query, end, state.slot):
            if time.monotonic() > deadline:
                connection.execute(f"alter database {database.NAME} connection limit {limit}")
                raise ServerError("the scribe does not come to the end of the log", "see: wardkey status")
            time.sleep(0.1)
        if state:  # from 17 on pg_upgrade would take the slot along, where nobody could read it
            cluster.scribe.stop()
            connection.execute(
                "select pg_terminate_backend(active_pid, 10000)"
                " from pg_replication_slots where slot_name = %s",
                [state.slot],
            )
            connection.execute("select pg_drop_replication_slot(%s)", [state.slot])
    return limit or -1  # 0: of an upgrade that was cut off


def _pg_upgrade(cluster: Cluster, old: Software, new: Software) -> None:
    home, user = cluster.home, cluster.home.server_user()
    new.install_extension()
    draft, work = cluster.postgres.draft(new), home.path / "pg_upgrade"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    os.chown(work, user.uid, user.gid)
    command = [new.program("pg_upgrade"), "--old-bindir", str(old.bindir), "--new-bindir", str(new.bindir)]
    command += ["--old-datadir", str(home.data), "--new-datadir", str(draft), "--username", "postgres"]
    command += ["--socketdir", str(work), "--new-options=-c wal_level=logical"]  # for slots of others
    hint = (
        f"PostgreSQL {old.major} goes on; the reason is in {draft}/pg_upgrade_output.d."
        f" If its release is later than the new one's, upgrade the packages of PostgreSQL {new.major} first"
    )
    run(
        command,
        "pg_upgrade",
        user=user,
        environment=clean_environment(),
        directory=work,
        timeout=_DAY,
        hint=hint,
    )
    shutil.rmtree(work)


def _go_on(
    cluster: Cluster, limit: int, say: Callable[[str], None], event: dict[str, int] | None = None
) -> None:
    """Start all, with the log going on: nothing was written since the scribe read to the end."""
    from psycopg.types.json import Jsonb

    from ..daemon.sessions import connect
    from ..scribe.slot import State, remade_slot

    with cluster.home.locked():
        config, software = cluster.make()
        cluster.keeper.start()
        cluster.postgres.start(software, config)
        with connect(cluster.dsn(), "wardkey upgrade") as connection:
            if state := State.read(connection):
                system = str(_value(connection, "select system_identifier::text from pg_control_system()"))
                with remade_slot(cluster.dsn(), state.slot) as (lsn, _):
                    state.replace(connection, State(system, state.slot, lsn))
            connection.commit()
            if event:
                log = "select ward_internal.log_event_in_all('server upgraded', %s)"
                connection.execute(log, [Jsonb(event)])
        database.prepare(cluster, say)
        if event:
            _statistics(cluster, software)
        with connect(cluster.dsn(), "wardkey upgrade", autocommit=True) as connection:
            connection.execute(f"alter database {database.NAME} connection limit {limit}")
    cluster.start()


def _statistics(cluster: Cluster, software: Software) -> None:
    command = [software.program("vacuumdb"), "--all", "--analyze-only", "--quiet", "--username=postgres"]
    config = cluster.home.config()
    command += ["--host", str(cluster.home.run), "--port", str(config.port if config else 0)]
    run(command, "vacuumdb", user=cluster.home.server_user(), environment=clean_environment(), timeout=_DAY)


def _value(connection: Any, query: str, *values: Any) -> Any:
    row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None
