"""A slot that cannot be read is refused with what is wrong, where, and what mends it."""

from __future__ import annotations

import psycopg
import pytest

from tests.scribe.conftest import PUBLICATION
from wardkey.errors import DatabaseError, SlotInUse, SlotMissing, StreamError, Unreachable
from wardkey.scribe.replication import Stream


def test_second_reader_is_told_the_first_ones_process(journal):
    with journal.stream(application_name="the first") as first:
        pid = journal.one("select active_pid from pg_replication_slots where slot_name = %s", journal.slot)
        with pytest.raises(SlotInUse) as caught:
            journal.stream(busy=True)
        assert caught.value.pid == pid
        assert f"process {pid} (the first from this machine since 20" in caught.value.message
        assert journal.slot in caught.value.message and "one reader" in caught.value.hint
        journal.emit("the first goes on")
        assert journal.everything(first)
    journal.stream().close()  # and closing freed it


def test_missing_slot(journal):
    journal.drop_slot()
    with pytest.raises(SlotMissing) as caught:
        journal.stream()
    assert journal.slot in caught.value.message
    mending = caught.value.hint.partition("made by: ")[2]
    journal.connection.execute(mending)
    journal.stream().close()


def test_missing_publication(journal):
    with pytest.raises(StreamError, match="no publication other"):
        Stream(journal.dsn, journal.slot, "other")
    journal.connection.execute(f'drop publication "{PUBLICATION}"')
    with pytest.raises(StreamError, match="no publication"):
        journal.stream()


def test_publication_dropped_while_reading(journal):
    with journal.stream() as stream:
        journal.connection.execute(f'drop publication "{PUBLICATION}"')
        journal.insert(1)
        with pytest.raises(DatabaseError, match=r"publication .* does not exist"):
            journal.everything(stream)


def test_slot_of_another_plugin(journal):
    journal.drop_slot()
    journal.one("select pg_create_logical_replication_slot(%s, 'test_decoding')", journal.slot)
    with pytest.raises(StreamError, match="is of test_decoding in database"):
        journal.stream()


def test_slot_of_physical_replication(journal):
    journal.drop_slot()
    journal.one("select pg_create_physical_replication_slot(%s)", journal.slot)
    with pytest.raises(StreamError, match="is of physical replication"):
        journal.stream()


def test_slot_of_another_database(journal):
    with pytest.raises(
        StreamError, match=f"in database {journal.connection.info.dbname}, not of pgoutput in"
    ):
        Stream(psycopg.conninfo.make_conninfo(journal.dsn, dbname="postgres"), journal.slot, PUBLICATION)


@pytest.mark.parametrize("dsn", ["host=/nowhere", "host=127.0.0.1 port=1", "nonsense"])
def test_no_server(dsn):
    with pytest.raises(Unreachable):
        Stream(dsn, "slot", "publication")


def test_refused_stream_leaves_no_connection(journal):
    journal.drop_slot()
    for _ in range(3):
        with pytest.raises(SlotMissing):
            journal.stream()
    query = "select count(*) from pg_stat_activity where backend_type = 'walsender' and datname = %s"
    for _ in range(100):
        if not journal.one(query, journal.connection.info.dbname):
            return
    pytest.fail("a walsender is left")
