"""Second scribes, lost slots, forged messages, odd clocks, full disks: each is named, nothing is lost."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from wardkey_core import journal

from tests.scribe.scribes import (
    PLATFORM,
    Scribe,
    drop_slot,
    emit,
    event,
    new_tenant,
    now,
    read,
    read_message,
    sealed_ids,
    verified,
    wait_for,
    wait_sealed,
    wait_signed,
    write,
)
from wardkey.daemon.service import Stop
from wardkey.scribe.entries import Turn
from wardkey.scribe.supervisor import Scribe as InProcess


def platform(connection: psycopg.Connection[Any], operation: str) -> list[dict[str, Any]]:
    """Return the details of the platform's sealed events of this name."""
    rows = connection.execute(
        "select detail from ward_internal.audit_log where tenant_id = %s and operation = %s and id = any(%s)"
        " order by id",
        [PLATFORM, operation, sealed_ids(connection, PLATFORM)],
    ).fetchall()
    return [detail for (detail,) in rows]


def wait_platform(
    connection: psycopg.Connection[Any], operation: str, count: int = 1
) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 20
    while len(events := platform(connection, operation)) != count:
        assert time.monotonic() < deadline, events
        time.sleep(0.05)
    return events


def at_work(scribe: Scribe) -> None:
    deadline = time.monotonic() + 20
    while not (scribe.status_file.exists() and scribe.status().get("state") == "running"):
        assert time.monotonic() < deadline, scribe.errors
        time.sleep(0.02)


def test_a_second_scribe_is_refused_and_the_first_one_named(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        row = connection.execute(
            "select active_pid from pg_replication_slots where slot_name = %s", [scribe.slot]
        ).fetchone()
        tenant = new_tenant(connection)
        second = scribe.launch()
        for number in range(5):
            emit(connection, read(tenant, number))
            time.sleep(0.2)
        assert second.wait(30) == 1
        assert row and f"being read by server process {row[0]}" in scribe.errors
        assert "cannot work" in scribe.errors
        wait_sealed(connection, tenant, 5)
        assert platform(connection, "journal_gap") == []
        assert scribe.stop() == 0
    assert verified(scribe.database, tenant).ok


def test_a_dropped_slot_is_told_and_no_write_is_lost(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection, scribe.database.admin() as other:
        tenant = new_tenant(connection)
        emit(connection, read(tenant, 1))
        wait_sealed(connection, tenant, 1)
        scribe.kill()
        drop_slot(connection, scribe.slot)
        write(connection, tenant, 2_500)
        emit(connection, read(tenant, 2))  # nobody can have this any more
        other.execute("begin")
        write(other, tenant, 3)  # commits only when the new slot is being made
        scribe.start()
        slots = "select count(*) from pg_replication_slots where slot_name = %s"
        wait_for(connection, 1, slots, scribe.slot)
        other.execute("commit")
        (gap,) = wait_platform(connection, "journal_gap")
        write(connection, tenant, 4)
        emit(connection, read(tenant, 3))
        wait_sealed(connection, tenant, 1 + 2_500 + 3 + 4 + 1)
        assert "there is no replication slot" in gap["why"] and gap["from"] < gap["to"]
        drop_slot(connection, scribe.slot)  # under a scribe at work
        wait_platform(connection, "journal_gap", 2)
        write(connection, tenant, 1)
        wait_sealed(connection, tenant, 2_510)
        assert "there is no replication slot" in scribe.errors
        assert connection.execute(
            "select value from ward_internal.settings where name = 'audit_slot'"
        ).fetchone() == (scribe.slot,)
        assert scribe.stop() == 0
        ids = sealed_ids(connection, tenant)
        assert len(ids) == len(set(ids)) == 2_510
    report = verified(scribe.database, tenant)
    assert report.ok and report.unsealed == 0, report
    assert verified(scribe.database, PLATFORM).ok


@pytest.mark.parametrize(
    "change",
    [
        "alter publication wardkey_audit drop table ward_internal.audit_log",
        "drop publication wardkey_audit",
        "alter publication wardkey_audit set table ward_internal.audit_log where (kind = 'w')",
    ],
)
def test_a_publication_that_was_changed_is_told_and_no_write_is_lost(scribe: Scribe, change: str) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        write(connection, tenant, 3)
        wait_sealed(connection, tenant, 3)
        connection.execute(change)
        write(connection, tenant, 3)
        wait_platform(connection, "journal_gap")
        write(connection, tenant, 3)
        wait_sealed(connection, tenant, 9)
        assert scribe.stop() == 0
    assert verified(scribe.database, tenant).ok


def test_messages_that_are_not_ours_are_told_and_stop_nothing(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        good = read(tenant, 1)
        surrogate = event(tenant, "login", text="x").replace(b'"x"', b'"\\ud800"')
        nul = event(tenant, "login", text="x").replace(b'"x"', b'"\\u0000"')
        far = read(tenant, 1, statement=2**62)
        damaged = [b"", b"\0", good[:20], good[:-1], b"\x02" + good[1:], surrogate, nul, far]
        connection.execute("select pg_logical_emit_message(true, 'wardkey', %s)", [read(tenant, 666)])
        connection.execute("select pg_logical_emit_message(false, 'others', %s)", [read(tenant, 667)])
        emit(connection, *damaged, good)
        wait_sealed(connection, tenant, 1)
        told = wait_platform(connection, "journal_malformed", len(damaged))
        assert [detail["length"] for detail in told] == [len(message) for message in damaged]
        (forged,) = wait_platform(connection, "journal_forged")
        assert forged["length"] == len(good) and "lsn" in forged
        assert scribe.stop() == 0
    assert verified(scribe.database, tenant).ok and verified(scribe.database, PLATFORM).ok


def test_an_event_is_its_tenants_and_reads_may_lack_context_model_and_row(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    slug = scribe.database.new_tenant()
    tenant = scribe.database.tenant_id(slug)
    with scribe.database.admin() as connection:
        size = connection.execute(
            "select count(*) from ward_internal.audit_log where tenant_id = %s", [tenant]
        ).fetchone()
        assert size
        texts = {"subject": "jane\\ \t é", "database_role": f"tenant_{slug}", "role": None}
        login = journal.event(bytes(16), b"d" * 16, now(), "login", texts, {"n": 1.50, "b": [True, None]})
        level = read_message(tenant, ["a\\b"], None, form="")
        unknown = read_message(tenant, ["x"], b"\x01\xff", form="")
        emit(connection, login, level, unknown)
        wait_sealed(connection, tenant, size[0] + 3)
        rows = connection.execute(
            "select operation, subject, columns, row_id from ward_internal.audit_log"
            " where tenant_id = %s and journalled order by id",
            [tenant],
        ).fetchall()
        assert rows == [
            ("login", "jane\\ \t é", None, None),
            ("read", None, "a\\b", None),
            ("read", None, "x", "\\x01ff"),
        ]
        assert scribe.stop() == 0
    report = verified(scribe.database, tenant)
    assert report.ok and report.entries == size[0] + 3


def test_a_transaction_larger_than_memory_is_one_commit(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        ids = write(connection, tenant, 25_000)
        emit(connection, read(tenant, 1))
        sizes = set()
        deadline = time.monotonic() + 60
        while max(sizes, default=0) < 25_001:
            row = connection.execute(
                "select coalesce(max(size), 0) from ward_internal.audit_trees where tenant_id = %s", [tenant]
            ).fetchone()
            sizes.add(row[0] if row else 0)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert sizes <= {0, 25_000, 25_001}
        assert scribe.stop() == 0
        assert sealed_ids(connection, tenant)[:25_000] == ids


def test_long_messages_are_written_before_they_are_many(
    scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of a read has all its columns: 20,000 of 65 kB would be put together at once."""
    written: list[int] = []
    write_turn = Turn.write

    def spy(turn: Turn, *arguments: Any) -> Any:
        written.append(turn.size)
        return write_turn(turn, *arguments)

    monkeypatch.setattr(Turn, "write", spy)
    monkeypatch.setattr("wardkey.scribe.drain._MUCH", 100_000)
    stop = Stop()
    here = InProcess(scribe.database.dsn(), scribe.keeper.socket, slot=scribe.slot, report=print, stop=stop)
    working = threading.Thread(target=here.run)
    working.start()
    try:
        with scribe.database.admin() as connection:
            tenant = new_tenant(connection)
            wait_platform(connection, "journal_begins")
            emit(connection, *(read(tenant, number, ["c" * 9_000]) for number in range(100)))
            wait_sealed(connection, tenant, 100)
    finally:
        stop.set()
        working.join()
    assert 100_000 <= max(written) < 210_000
    assert verified(scribe.database, tenant).ok


def test_a_clock_that_was_set_back_is_seen_and_checkpoints_stay_in_order(scribe: Scribe) -> None:
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        emit(
            connection, read(tenant, 1, statement=now() + 3_600_000_000)
        )  # before it was set back by an hour
        wait_signed(connection, tenant, 1)
        emit(connection, read(tenant, 2))
        wait_sealed(connection, tenant, 2)
        assert scribe.stop() == 0
    report = verified(scribe.database, tenant)
    assert report.ok and report.checkpoints == 2 and report.ahead == 0, report


def test_a_restored_database_goes_on_once_the_keeper_is_told(scribe: Scribe) -> None:
    """The tables come back as they were; the keeper remembers a newer checkpoint, and refuses another."""
    scribe.start()
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        write(connection, tenant, 1)
        wait_signed(connection, tenant, 1)
        scribe.kill()
        scribe.keeper.ask(op="checkpoint", tenant=str(tenant))
        forged_later(scribe, connection, tenant)
        write(connection, tenant, 1)
        scribe.start()
        wait_sealed(connection, tenant, 2)
        deadline = time.monotonic() + 20
        while "the keeper refuses a checkpoint" not in scribe.errors:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        scribe.kill()
        scribe.keeper.ask(op="checkpoint", tenant=str(tenant), readmit=True)
        scribe.start()
        wait_signed(connection, tenant, 2)
        assert scribe.stop() == 0
    assert verified(scribe.database, tenant).ok


def forged_later(scribe: Scribe, connection: psycopg.Connection[Any], tenant: UUID) -> None:
    """Have the keeper sign the checkpoint that the database has lost."""
    from wardkey_core.log.checkpoint import Checkpoint, next_checkpoint

    row = connection.execute(
        "select checkpoint, key from ward_internal.audit_checkpoints where tenant_id = %s", [tenant]
    ).fetchone()
    assert row
    last = Checkpoint.decode(row[0].encode())
    lost = next_checkpoint(last, tenant=str(tenant), size=5, root=bytes(32), at=last.at, public_key=row[1])
    scribe.keeper.ask(op="checkpoint", tenant=str(tenant), statement=lost.encode().decode())


def test_a_server_that_refuses_writes_is_waited_for(scribe: Scribe) -> None:
    """As a full disk does: writing fails for a while, nothing is lost, and the status says why."""
    scribe.start()
    at_work(scribe)
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        name = scribe.database.name
        connection.execute(
            "create function public.disk_full() returns trigger language plpgsql as"
            " $$begin raise exception 'No space left on device' using errcode = '53100';"
            " end$$;"
            "create trigger full_disk before insert on ward_internal.audit_batches"
            " for each row execute function public.disk_full()"
        )
        emit(connection, *(read(tenant, number) for number in range(50)))
        deadline = time.monotonic() + 20
        while "No space left" not in str(scribe.status().get("trouble")):
            assert time.monotonic() < deadline, scribe.status()
            time.sleep(0.05)
        assert sealed_ids(connection, tenant) == []
        connection.execute("drop trigger full_disk on ward_internal.audit_batches")
        wait_sealed(connection, tenant, 50)
        assert scribe.stop() == 0, name
        row = connection.execute(
            "select count(*) from ward_internal.audit_log where tenant_id = %s", [tenant]
        ).fetchone()
        assert row == (50,)
    assert verified(scribe.database, tenant).ok


def test_a_checkpoint_is_made_at_once_when_asked(scribe: Scribe) -> None:
    scribe.start()
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        write(connection, tenant)
        wait_signed(connection, tenant, 1)
        write(connection, tenant)
        connection.execute("select pg_notify('wardkey_checkpoint', %s)", [str(tenant)])
        wait_signed(connection, tenant, 2, seconds=5)
        connection.execute("select pg_notify('wardkey_checkpoint', 'nonsense')")
        connection.execute("select pg_notify('wardkey_checkpoint', %s)", [str(uuid4())])
        write(connection, tenant)
        wait_signed(connection, tenant, 3)
        wait_for(
            connection, 0, "select count(*) from ward_internal.audit_unsigned where tenant_id = %s", tenant
        )
        assert scribe.stop() == 0
