"""Nothing is lost and nothing is skipped between one stream and the next, however the first one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.scribe.conftest import PUBLICATION, texts
from wardkey.errors import SlotInUse, SlotMoved, StreamLost
from wardkey.scribe.pgoutput import Begin, Commit, Insert, Message
from wardkey.scribe.replication import lsn_text

READER = """
import sys
from wardkey.scribe.replication import Stream
with Stream(sys.argv[1], sys.argv[2], sys.argv[3]) as stream:
    while True:
        for event in stream.receive():
            print(event.content, flush=True)
"""


def test_from_every_position(journal):
    """Whatever was the last thing stored, the next stream begins with the one after it."""
    for i in range(4):
        journal.emit(f"message {i}")
        journal.insert(i * 2, i * 2 + 1)
    with journal.stream() as stream:
        events = journal.everything(stream)
    ends = [i for i, event in enumerate(events) if isinstance(event, Commit | Message)]
    assert len(ends) == 8
    for end in ends:
        event = events[end]
        with journal.stream(after=event.lsn if isinstance(event, Message) else event.end_lsn) as stream:
            again = journal.everything(stream)
        # Relations come once per connection, so they are no measure.
        assert [e for e in again if not isinstance(e, type(events[2]))] == [
            e for e in events[end + 1 :] if not isinstance(e, type(events[2]))
        ]


def test_unconfirmed_comes_again_confirmed_does_not(journal):
    journal.emit("one", "two")
    with journal.stream() as stream:
        events = journal.everything(stream)
        assert texts(events) == ["one", "two"]
        stream.confirm(events[0].lsn)
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["two"]
    with journal.stream() as stream:
        journal.everything(stream)
        stream.confirm(stream.reached)
    with journal.stream() as stream:
        assert journal.everything(stream) == []


def test_stored_position_counts_when_the_server_forgot_the_confirmation(journal):
    """A crash can set the slot back; ``after`` is what keeps things from coming twice."""
    journal.emit("stored, not confirmed", "new")
    with journal.stream() as stream:
        stored = journal.everything(stream)[0].lsn
    assert journal.confirmed() < stored
    with journal.stream(after=stored) as stream:
        assert stream.reached == stored
        assert texts(journal.everything(stream)) == ["new"]


def test_slot_moves_by_confirmation_only(journal):
    before = journal.confirmed()
    journal.emit("one")
    with journal.stream(options="-c wal_sender_timeout=400ms") as stream:  # asks for answers all the time
        journal.everything(stream)
        assert stream.receive(wait=1.5) == []
        assert journal.confirmed() == before
    assert journal.confirmed_at_last() == before


def test_others_writing_lets_the_slot_move_on(journal):
    """Else the server would keep its WAL for ever when nothing is journalled."""
    journal.connection.execute("create table other as select generate_series(1, 1000)")
    with journal.stream() as stream:
        assert journal.everything(stream) == []
        end = stream.reached
        stream.confirm(end)
    assert journal.confirmed_at_last() == end


def test_part_of_a_transaction_is_not_reached(journal):
    journal.emit("before")
    journal.insert(*range(100))
    end = journal.wal_end()
    with journal.stream() as stream:
        events = []
        while len(events) < 10:
            events += stream.receive(most=10 - len(events))
        message, begin, *_ = events
        assert isinstance(begin, Begin) and isinstance(events[-1], Insert)
        assert stream.reached == message.lsn
        with pytest.raises(ValueError, match="not been reached"):
            stream.confirm(end)
        stream.confirm(stream.reached)
    with journal.stream() as stream:
        whole = journal.everything(stream, most=7)
        assert sum(isinstance(event, Insert) for event in whole) == 100
        assert isinstance(whole[-1], Commit) and stream.reached >= whole[-1].end_lsn


def test_confirmation_does_not_go_back(journal):
    journal.emit("one", "two")
    with journal.stream() as stream:
        one, two = journal.everything(stream)
        stream.confirm(two.lsn)
        stream.confirm(one.lsn)
    assert journal.confirmed_at_last() == two.lsn


def test_slot_moved_by_somebody_else_is_noticed(journal):
    with journal.stream() as stream:
        journal.everything(stream)
        stored = stream.reached
        stream.confirm(stored)
    journal.emit("never seen")
    end = journal.wal_end()
    journal.wait_until_free()
    journal.one("select pg_replication_slot_advance(%s, %s::pg_lsn)", journal.slot, lsn_text(end))
    with pytest.raises(SlotMoved, match="left off at"):
        journal.stream(after=stored)
    journal.stream().close()  # going on from where it is now, with open eyes


def test_slot_made_again_is_noticed(journal):
    stored = journal.confirmed()
    journal.drop_slot()
    journal.emit("never seen")
    journal.make_slot()
    with pytest.raises(SlotMoved):
        journal.stream(after=stored)


def test_position_of_another_server_is_noticed(journal):
    with pytest.raises(SlotMoved):
        journal.stream(after=journal.wal_end() + (1 << 40))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_reader_is_ended(journal, number):
    """By Ctrl-C or kill -9: the slot is soon free, and has lost nothing."""
    journal.emit("one")
    journal.wal_end()
    arguments = [sys.executable, "-c", READER, journal.dsn, journal.slot, PUBLICATION]
    reader = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert "one" in reader.stdout.readline()
    with pytest.raises(SlotInUse):
        journal.stream(busy=True)
    started = time.monotonic()
    reader.send_signal(number)
    reader.communicate(timeout=10)
    assert reader.returncode == -number
    assert time.monotonic() - started < 3
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["one"]


def test_interrupt_in_receive_closes_the_stream(journal):
    """What that call had received would otherwise be missing from the next one's list."""

    def interrupt(*_):
        raise KeyboardInterrupt

    journal.emit("one")
    journal.wal_end()
    stream = journal.stream()
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        assert texts(stream.receive()) == ["one"]
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            while True:
                stream.receive(wait=30)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    with pytest.raises(StreamLost):
        stream.receive()
    with journal.stream() as stream:
        assert texts(journal.everything(stream)) == ["one"]


def test_terminated_by_an_administrator(journal):
    journal.emit("one")
    with journal.stream() as stream:
        journal.everything(stream)
        pid = journal.one("select active_pid from pg_replication_slots where slot_name = %s", journal.slot)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(StreamLost, match="administrator command"):
            for _ in range(50):
                stream.receive()
