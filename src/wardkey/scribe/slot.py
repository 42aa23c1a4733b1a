"""The slot, its publication, and how far the log has come: made when missing, and watched.

A slot that is made again sees nothing of what was before. Writes are in the table all the same: those that
committed before the slot's own snapshot and have no place in a tree are found and sealed, the others come
through it. What was journalled in between, reads and refusals, is gone, and an event says from where to
where.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql
from wardkey_core.log.source import COLUMNS

from ..daemon.sessions import connect
from ..errors import SlotInUse, StreamError, from_psycopg
from .entries import Stored
from .replication import lsn_text

__all__ = [
    "PUBLICATION",
    "PUBLICATION_OF_IDS",
    "SLOT",
    "Facts",
    "State",
    "facts",
    "failing",
    "is_published",
    "publish",
    "remade_slot",
    "tell_failing",
    "unsealed",
]

SLOT: Final = "wardkey_audit"
PUBLICATION: Final = "wardkey_audit"
PUBLICATION_OF_IDS: Final = "wardkey_audit_ids"
"""The same rows, only whose and which: for a row that the server cannot send, or the scribe not take."""

_MUCH: Final = 1 << 30  # bytes of WAL kept for the slot that are worth a word, where no limit is set
_SCARCE: Final = 0.1  # of the disk

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class State:
    """What is stored: the stream has been sealed up to ``lsn`` of this slot of this server."""

    system: str
    slot: str
    lsn: int

    @classmethod
    def read(cls, connection: Connection) -> State | None:
        row = connection.execute(
            "select system_identifier, slot, (lsn - '0/0'::pg_lsn)::bigint from ward_internal.scribe_state"
        ).fetchone()
        return cls(*row) if row else None

    def insert(self, connection: Connection) -> bool:
        """Store the first position; False when there is one."""
        return self._run(
            connection,
            "insert into ward_internal.scribe_state (system_identifier, slot, lsn)"
            " values (%(system)s, %(slot)s, %(lsn)s) on conflict do nothing",
        )

    def replace(self, connection: Connection, moved: State) -> bool:
        """Store ``moved`` in place of this position; False when this one is not there any more."""
        return moved._run(
            connection,
            "update ward_internal.scribe_state set system_identifier = %(system)s, slot = %(slot)s,"
            " lsn = %(lsn)s, at = clock_timestamp(), failures = 0, trouble = null"
            " where lsn = %(old_lsn)s and slot = %(old_slot)s",
            old_lsn=lsn_text(self.lsn),
            old_slot=self.slot,
        )

    @staticmethod
    def is_of_timeline(connection: Connection, timeline: int) -> bool:
        """Say whether what is stored is of this timeline, or does not say of which."""
        query = "select from ward_internal.scribe_state where timeline <> %s"
        return connection.execute(query, [timeline]).fetchone() is None

    @staticmethod
    def store_timeline(connection: Connection, timeline: int) -> None:
        query = "update ward_internal.scribe_state set timeline = %s where timeline is distinct from %s"
        connection.execute(query, [timeline, timeline])

    @staticmethod
    def stored_at(connection: Connection) -> str | None:
        """Return when the position was stored last."""
        row = connection.execute(
            "select to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
            " from ward_internal.scribe_state"
        ).fetchone()
        return str(row[0]) if row else None

    def _run(self, connection: Connection, query: str, **more: str) -> bool:
        values = {"system": self.system, "slot": self.slot, "lsn": lsn_text(self.lsn)} | more
        return connection.execute(query, values).rowcount == 1


def failing(connection: Connection) -> str | None:
    """Say what fails again and again at the stored position, if something does."""
    row = connection.execute(
        "select failures, lsn::text, trouble from ward_internal.scribe_state where failures > 1"
    ).fetchone()
    return row and f"has failed {row[0]} times behind position {row[1]}: {row[2]}"


def tell_failing(connection: Connection, failures: int, trouble: str | None) -> None:
    """Store that the scribe failed so many times at the stored position; 0: it goes on."""
    connection.execute(
        "update ward_internal.scribe_state set failures = %s, trouble = %s", [failures, trouble]
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """How the slot is. ``kept``: bytes of WAL the server keeps for it; ``left``: until it loses some."""

    present: bool
    active_pid: int | None = None
    status: str | None = None
    behind: int = 0
    kept: int = 0
    left: int | None = None
    limit: int = -1

    def warnings(self, disk: Path | None = None) -> list[str]:
        """Say what an operator should look after before the slot is lost or the disk is full."""
        if not self.present:
            return ["the replication slot is missing: reads are not journalled"]
        warnings = []
        if self.status == "lost":
            warnings.append("the server has thrown away WAL that the scribe had not read")
        elif self.left is not None and self.kept > self.left:
            warnings.append(
                f"{megabytes(self.kept)} of WAL wait for the scribe; after {megabytes(self.left)} more the "
                "server throws them away (max_slot_wal_keep_size)"
            )
        elif self.left is None and self.kept > _MUCH:
            warnings.append(f"{megabytes(self.kept)} of WAL wait for the scribe, and nothing limits them")
        if disk is not None and (room := _room(disk)) is not None:
            free, whole = room
            if free < _SCARCE * whole or (self.kept > _MUCH and free < 2 * self.kept):
                waiting = megabytes(self.kept)
                warnings.append(
                    f"{megabytes(free)} are free on the disk; {waiting} of WAL wait for the scribe"
                )
        return warnings


def facts(connection: Connection, slot: str) -> Facts:
    row = connection.execute(
        "select active_pid, wal_status,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint, safe_wal_size,"
        " (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size')"
        " from pg_replication_slots where slot_name = %s",
        [slot],
    ).fetchone()
    return Facts(True, *row) if row else Facts(False)


def is_published(connection: Connection) -> bool:
    """Say whether the publications are what ``publish`` makes: a DBA may have changed them."""
    row = connection.execute(
        "select count(*) from pg_publication as p join pg_publication_tables as t using (pubname)"
        " where pubinsert and not (pubupdate or pubdelete or pubtruncate) and pubviaroot"
        " and schemaname = 'ward_internal' and tablename = 'audit_log' and rowfilter = '(NOT journalled)'"
        " and case pubname when %s then cardinality(t.attnames) = (select count(*) from pg_attribute"
        "   where attrelid = 'ward_internal.audit_log'::regclass and attnum > 0 and not attisdropped)"
        " when %s then t.attnames = '{tenant_id,id}'::name[] else false end",
        [PUBLICATION, PUBLICATION_OF_IDS],
    ).fetchone()
    return row == (2,)


def publish(connection: Connection) -> None:
    """Make the publications, again if need be. The slot has to be younger."""
    if not is_published(connection):
        connection.execute("select ward_internal.make_publications()")


@contextmanager
def remade_slot(dsn: str, slot: str) -> Iterator[tuple[int, str]]:
    """Drop the slot, if it is there, and make it; yield where it begins and a snapshot of just then.

    Raises SlotInUse, StreamError (it is another database's), DatabaseError.
    """
    try:
        with connect(dsn, "wardkey scribe", autocommit=True, replication="database") as connection:
            _drop(connection, slot)
            query = sql.SQL("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput (SNAPSHOT 'export')")
            row = connection.execute(query.format(sql.Identifier(slot))).fetchone()
            if row is None:
                raise StreamError("the server made no slot")
            high, _, low = row[1].partition("/")
            yield (int(high, 16) << 32) + int(low, 16), row[2]
    except (psycopg.errors.ObjectInUse, psycopg.errors.DuplicateObject):
        raise SlotInUse(f"another scribe is at work on replication slot {slot}", None) from None
    except psycopg.Error as error:
        raise from_psycopg(error) from None


def _drop(connection: Connection, slot: str) -> None:
    name = sql.Literal(slot)
    row = connection.execute(
        sql.SQL(
            "select active_pid, database = current_database() and plugin = 'pgoutput', coalesce(database, '')"
            " from pg_replication_slots where slot_name = {}"
        ).format(name)
    ).fetchone()
    if row is None:
        return
    pid, ours, database = row
    if not ours:
        raise StreamError(
            f"replication slot {slot} is not of pgoutput in this database"
            + (f", but of database {database}" if database else ""),
            "name another slot: wardkey scribe run --slot NAME",
        )
    if pid is not None:
        raise SlotInUse(f"replication slot {slot} is being read by server process {pid}", pid)
    connection.execute(sql.SQL("select pg_drop_replication_slot({})").format(name))


def unsealed(connection: Connection) -> Iterator[Stored]:
    """Yield the rows that transactions wrote themselves and that have no place in a tree."""
    query = f"""
        select {COLUMNS} from ward_internal.audit_log as e where not e.journalled and not exists (
          select from (select tenant_id, unnest(ids) as id from ward_internal.audit_batches) as b
          where b.id = e.id and b.tenant_id = e.tenant_id)
        order by e.id"""  # noqa: S608
    with connection.cursor("wardkey_unsealed") as cursor:
        cursor.itersize = 200  # images may be long
        yield from cursor.execute(query)


def megabytes(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MB"


def _room(path: Path) -> tuple[int, int] | None:
    try:
        disk = os.statvfs(path)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
