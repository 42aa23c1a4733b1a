"""Order: messages come where they were written, transactions as a whole where they committed."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tests.scribe.conftest import texts
from wardkey.scribe.pgoutput import (
    Begin,
    Commit,
    Insert,
    Message,
    Origin,
    Relation,
    Type,
)

KINDS = """
    create type mood as enum ('calm', 'busy');
    create table felt (id int primary key, mood mood, long text);
    alter table felt alter long set storage external;
    create table kept (id int, what text); alter table kept replica identity full;
    alter publication "the journal" add table felt, kept"""


def positions(events) -> list[int]:
    return [
        event.lsn if isinstance(event, Message) else event.end_lsn
        for event in events
        if isinstance(event, Commit) or (isinstance(event, Message) and not event.transactional)
    ]


def test_every_kind(journal):
    connection = journal.connection
    connection.execute(KINDS)
    journal.drop_slot()
    journal.make_slot()
    connection.execute("select pg_replication_origin_create('elsewhere')")
    connection.execute("select pg_replication_origin_session_setup('elsewhere')")
    try:
        with connection.transaction():
            connection.execute("insert into felt values (1, 'calm', repeat('ä', 5000))")
            connection.execute("insert into kept values (1, 'a'), (2, null)")
            connection.execute("select pg_logical_emit_message(true, 'other', '\\x0001ff'::bytea)")
    finally:
        connection.execute("select pg_replication_origin_session_reset()")
        connection.execute("select pg_replication_origin_drop('elsewhere')")
    journal.emit("")
    with journal.stream() as stream:
        begin, *events, commit, message = journal.everything(stream)
    relations = {event.name: event for event in events if isinstance(event, Relation)}
    felt, kept = relations["felt"], relations["kept"]
    assert isinstance(begin, Begin) and begin.xid
    assert isinstance(commit, Commit) and begin.final_lsn == commit.lsn < commit.end_lsn
    assert abs(datetime.now(UTC) - commit.committed_at) < timedelta(minutes=1)
    assert begin.committed_at == commit.committed_at
    assert message == Message(False, message.lsn, "wardkey", b"") and message.lsn > commit.end_lsn
    assert [(c.name, c.is_key) for c in felt.columns] == [("id", True), ("mood", False), ("long", False)]
    assert (felt.schema, felt.identity, kept.identity) == ("public", "d", "f")
    long = "ä" * 5000
    origin, type_, transactional = (
        next(event for event in events if isinstance(event, kind)) for kind in (Origin, Type, Message)
    )
    assert origin.name == "elsewhere" and events[0] is origin
    assert (type_.schema, type_.name, type_.oid) == ("public", "mood", felt.columns[1].type_oid)
    assert [event for event in events if not isinstance(event, Origin | Type | Relation)] == [
        Insert(felt, {"id": "1", "mood": "calm", "long": long}),
        Insert(kept, {"id": "1", "what": "a"}),
        Insert(kept, {"id": "2", "what": None}),
        Message(True, transactional.lsn, "other", b"\0\1\xff"),
    ]


@pytest.mark.parametrize("mode", ["", "read only"])
def test_messages_of_rolled_back_transactions_arrive(journal, mode):
    with journal.connection.transaction(force_rollback=True):
        if mode:
            journal.connection.execute("set transaction read only")
        journal.emit("read, then rolled back")
        journal.one("select pg_logical_emit_message(true, 'wardkey', 'transactional')") if not mode else None
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["read, then rolled back"]


def test_messages_of_failed_and_killed_sessions_arrive(journal):
    other = psycopg.connect(journal.dsn)
    with pytest.raises(psycopg.errors.DivisionByZero):
        other.execute("select pg_logical_emit_message(false, 'wardkey', 'fails'), 1 / (random() > 2)::int")
    other.rollback()
    other.execute("select pg_logical_emit_message(false, 'wardkey', 'killed')")
    journal.one("select pg_terminate_backend(%s)", other.info.backend_pid)
    other.close()
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["fails", "killed"]


def test_messages_come_before_the_transaction_they_were_written_in(journal):
    with journal.connection.transaction():
        journal.insert(1)
        journal.emit("first")
        journal.insert(2)
        journal.emit("second")
    journal.emit("third")
    with journal.stream() as stream:
        kinds = [type(event) for event in journal.everything(stream)]
    assert kinds == [Message, Message, Begin, Relation, Insert, Insert, Commit, Message]


def test_positions_grow_while_many_write(journal):
    def write(number: int) -> None:
        with psycopg.connect(journal.dsn, autocommit=True) as connection:
            for i in range(100):
                with connection.transaction(force_rollback=i % 3 == 0):
                    for message in ("begun", "done"):
                        connection.execute(
                            "insert into entries values (%s)", [number * 1000 + i * 2 + len(message) % 2]
                        )
                        connection.execute("select pg_logical_emit_message(false, 'wardkey', %s)", [message])

    writers = [threading.Thread(target=write, args=[number]) for number in range(4)]
    with journal.stream() as stream:
        for writer in writers:
            writer.start()
        events = []
        while any(writer.is_alive() for writer in writers):
            events += stream.receive(17, 0.05)
        events += journal.everything(stream)
    assert len(texts(events)) == 800
    assert sum(isinstance(event, Insert) for event in events) == 4 * 66 * 2
    assert positions(events) == sorted(set(positions(events)))
    depth = 0  # no transaction within another, no message of none within one
    for event in events:
        depth += isinstance(event, Begin)
        assert depth == (not isinstance(event, Message))
        depth -= isinstance(event, Commit)


def test_text_form_of_values_does_not_depend_on_who_set_what(journal):
    name = journal.connection.info.dbname
    for setting in ("datestyle = 'German'", "timezone = 'Asia/Kolkata'", "bytea_output = 'escape'"):
        journal.connection.execute(f"alter role postgres in database {name} set {setting}")
    journal.connection.execute("alter table entries add at timestamptz, add bytes bytea, add number float8")
    journal.connection.execute(
        "insert into entries values (1, 'é', '2026-01-02T03:04:05Z', '\\xff', 0.1::float4)"
    )
    with journal.stream() as stream:
        (insert,) = (event for event in journal.everything(stream) if isinstance(event, Insert))
    assert insert.new == {
        "id": "1",
        "what": "é",
        "at": "2026-01-02 03:04:05+00",
        "bytes": "\\xff",
        "number": "0.10000000149011612",
    }


def test_hundred_thousand_messages_arrive_once_each(journal):
    count, next_one = 100_000, 1
    with journal.stream() as stream:
        journal.one(
            "select count(pg_logical_emit_message(false, 'wardkey', lpad(i::text, 400)))"
            " from generate_series(1, %s) as i",
            count,
        )
        end = journal.wal_end()
        while stream.reached < end:
            for event in stream.receive():
                assert isinstance(event, Message) and int(event.content) == next_one
                next_one += 1
    assert next_one == count + 1


def test_long_messages_come_a_few_at_a_time(journal):
    """Rows of 100 kB are held in memory as they come: 20,000 of them would be 2 GB."""
    with journal.stream() as stream:
        journal.emit(*(f"{number:010}" * 1_000 for number in range(10)))
        journal.wal_end()
        messages = []
        deadline = time.monotonic() + 20
        while len(messages) < 10:
            events = stream.receive(10_000, 0.1, 25_000)
            assert len(events) <= 3
            messages += texts(events)
            assert time.monotonic() < deadline
    assert messages == [f"{number:010}" * 1_000 for number in range(10)]
