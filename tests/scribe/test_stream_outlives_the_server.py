"""Crash, shutdown, silence of the server: the stream says so, and another goes on without a loss."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.scribe.conftest import Journal, texts
from wardkey.embedded import Cluster
from wardkey.errors import SlotMoved, StreamLost, Unreachable


@pytest.fixture
def server(new_home) -> Cluster:
    """A server of the test's own."""
    server = Cluster(new_home(), settings={"max_slot_wal_keep_size": "1MB"})
    server.start()
    return server


@pytest.fixture
def crashing(server) -> Iterator[Journal]:
    journal = Journal(server.dsn(), "audit").make()
    yield journal
    journal.connection.close()


def test_kill_nine(server, crashing):
    crashing.emit("stored and confirmed", "stored", "received", "not even sent")
    crashing.wal_end()
    stream = crashing.stream()
    first, second, *_ = events = [*crashing.everything(stream)]
    assert len(events) == 4
    stream.confirm(first.lsn)
    stored = second.lsn

    os.kill(server.status().postgres_pid, signal.SIGKILL)
    with pytest.raises(StreamLost):
        for _ in range(20):
            stream.receive()
    with pytest.raises(Unreachable):
        crashing.stream(busy=True)
    server.start()

    after = Journal(server.dsn(), "audit")
    after.emit("after")
    with after.stream(after=stored) as stream:
        assert texts(after.everything(stream)) == ["received", "not even sent", "after"]
    with after.stream() as stream:  # what the slot itself knows may be older, never newer
        assert texts(after.everything(stream))[-4:] == ["stored", "received", "not even sent", "after"]
    after.connection.close()


def test_shutdown_does_not_wait_for_confirmation(server, crashing):
    """A server that shuts down waits until its walsenders' clients have everything; unconfirmed is enough."""
    crashing.emit("not confirmed")
    stream = crashing.stream()
    crashing.everything(stream)
    lost = threading.Event()

    def read() -> None:
        try:
            while True:
                stream.receive()
        except StreamLost:
            lost.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 20
    reader.join(timeout=10)
    assert lost.is_set()
    server.start()
    after = Journal(server.dsn(), "audit")
    with after.stream() as stream:
        assert texts(after.everything(stream)) == ["not confirmed"]
    after.connection.close()


def test_wal_thrown_away_is_noticed(crashing):
    crashing.emit("lost")
    for _ in range(4):
        crashing.connection.execute("create table filler as select 1; drop table filler")
        crashing.one("select pg_switch_wal()")
    crashing.connection.execute("checkpoint")
    with pytest.raises(SlotMoved, match="thrown away"):
        crashing.stream()


def test_silent_server_is_given_up(journal):
    stream = journal.stream(patience=1)
    pid = journal.one("select active_pid from pg_replication_slots where slot_name = %s", journal.slot)
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(StreamLost, match="has not answered for 1 s"):
            for _ in range(20):
                stream.receive()
        assert time.monotonic() - started < 8
    finally:
        os.kill(pid, signal.SIGCONT)


def test_idle_stream_stays(journal):
    """Whichever side is the less patient one."""
    with journal.stream(patience=0.5, options="-c wal_sender_timeout=0") as quiet:
        assert quiet.receive(wait=2) == []
    with journal.stream(options="-c wal_sender_timeout=500ms") as stream:
        assert stream.receive(wait=2) == []
        journal.emit("still there")
        assert texts(journal.everything(stream)) == ["still there"]


def test_reader_that_was_busy_for_too_long_starts_again(journal):
    journal.emit("one")
    with journal.stream(options="-c wal_sender_timeout=300ms") as stream:
        time.sleep(1.5)
        with pytest.raises(StreamLost):
            for _ in range(20):
                stream.receive()
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["one"]


def test_busy_reader_does_not_take_its_own_absence_for_the_servers(journal):
    with journal.stream(patience=0.5, options="-c wal_sender_timeout=0") as stream:
        for _ in range(3):
            time.sleep(1)
            assert stream.receive(wait=0.6) == []
