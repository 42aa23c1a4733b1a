from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg
import pytest

from tests.scribe.scribes import Scribe
from tests.support.database import Database
from tests.support.keepers import Keeper
from wardkey.scribe.pgoutput import Event, Message
from wardkey.scribe.replication import Stream

PUBLICATION = "the journal"  # has to be quoted, in two ways
_numbers = count(1)


@dataclass
class Journal:
    """A table, its publication and a slot. ``connection``: a superuser's, autocommit."""

    dsn: str
    slot: str
    connection: psycopg.Connection = field(init=False)

    def __post_init__(self) -> None:
        self.connection = psycopg.connect(self.dsn, autocommit=True)

    def make(self) -> Journal:
        self.connection.execute("create table entries (id bigint primary key, what text)")
        self.connection.execute(f'create publication "{PUBLICATION}" for table entries')
        self.make_slot()
        return self

    def make_slot(self) -> None:
        self.connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])

    def drop_slot(self) -> None:
        """Drop the slot, if there is one, once its reader has gone."""
        deadline = time.monotonic() + 60
        while pid := self.one("select active_pid from pg_replication_slots where slot_name = %s", self.slot):
            self.one("select pg_terminate_backend(%s)", pid)
            assert time.monotonic() < deadline
        self.connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
            [self.slot],
        )

    def stream(
        self, after: int | None = None, patience: float = 20, *, busy: bool = False, **parameters: str
    ) -> Stream:
        """Read the slot, once its last reader has gone; ``busy``: its reader."""
        if not busy:
            self.wait_until_free()
        dsn = psycopg.conninfo.make_conninfo(self.dsn, **parameters)
        return Stream(dsn, self.slot, PUBLICATION, after=after, patience=patience)

    def one(self, query: str, *values: Any) -> Any:
        row = self.connection.execute(query, values).fetchone()
        return row and row[0]

    def emit(self, *texts: str) -> None:
        for text in texts:
            self.one("select pg_logical_emit_message(false, 'wardkey', %s)", text)

    def insert(self, *ids: int) -> None:
        """Insert rows in one transaction."""
        self.connection.execute("insert into entries select unnest(%s::bigint[])", [list(ids)])

    def wal_end(self) -> int:
        """Flush the WAL by a commit and return its end."""
        with self.connection.transaction():
            self.connection.execute("set local synchronous_commit = on")
            self.connection.execute("create temporary table flush (); drop table flush")
        return self.one("select (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint")

    def confirmed(self) -> int:
        return self.one(
            "select (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint from pg_replication_slots"
            " where slot_name = %s",
            self.slot,
        )

    def confirmed_at_last(self) -> int:
        """Return it when the slot's reader has gone: what was sent last has been heard then."""
        self.wait_until_free()
        return self.confirmed()

    def wait_until_free(self) -> None:
        deadline = time.monotonic() + 60
        while self.one("select active from pg_replication_slots where slot_name = %s", self.slot):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def everything(self, stream: Stream, most: int = 10_000) -> list[Event]:
        """Return what the stream has up to the present end of the WAL."""
        end, events = self.wal_end(), []
        deadline = time.monotonic() + 60
        while stream.reached < end:
            events += stream.receive(most, 0.1)
            assert time.monotonic() < deadline
        return events


def texts(events: list[Event]) -> list[str]:
    return [event.content.decode() for event in events if isinstance(event, Message)]


@pytest.fixture
def journal(cluster) -> Iterator[Journal]:
    """A journal in a database of this test's own; tenants and keys are not needed for it."""
    name = f"journal_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"create database {name}")
        journal = Journal(cluster.dsn(name), f"slot_{name}").make()
        yield journal
        journal.drop_slot()
        journal.connection.close()
        connection.execute(f"drop database {name} with (force)")


@pytest.fixture
def scribe(database: Database) -> Iterator[Scribe]:
    """A scribe with a keeper of its own; it is not started yet."""
    keeper = Keeper().start()
    scribe = Scribe(database, keeper)
    yield scribe
    print(scribe.errors)
    scribe.remove()
    keeper.remove()
