"""What the scribe cannot digest it passes over, what was put in by hand it marks: an event says so.

Where something fails again and again behind one position, status and doctor say so (attacks 50 and 65).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.scribe.scribes import (
    PLATFORM,
    Scribe,
    new_tenant,
    sealed_ids,
    verified,
    wait_for,
    wait_sealed,
    write,
)
from tests.support.database import Connection
from wardkey.scribe import slot as slots

LONG = "to_jsonb(repeat('x', 70000000))"
STOP = """
  create function public.stop() returns trigger language plpgsql as $$ begin raise 'no room'; end $$;
  create trigger stop before insert on ward_internal.audit_batches execute function public.stop()"""
_INSERT = """insert into ward_internal.audit_log (tenant_id, id, transaction, kind, operation, at, detail)
  values (%s, ward_internal.lease_audit_ids(1), {transaction}, {kind}, 'login', {at}, {detail})
  returning id"""


def insert(connection: Connection, tenant: UUID, **columns: str) -> int:
    """Put an entry in by hand: as wardkey's functions do, but for ``columns``."""
    whole = {
        "transaction": "pg_current_xact_id()",
        "kind": "'e'",
        "at": "clock_timestamp()",
        "detail": "null",
    }
    whole |= columns
    # an hour from now may be another month
    connection.execute(f"select ward_internal.make_audit_partition(%s, {whole['at']})", [tenant])
    row = connection.execute(_INSERT.format(**whole), [tenant]).fetchone()
    assert row is not None
    return int(row[0])


def marks(connection: Connection, tenant: UUID, count: int) -> list[dict[str, Any]]:
    """Wait for the events that mark entries; return their details."""
    query = """select detail from ward_internal.audit_log
      where tenant_id = %s and operation = 'tampered_log' order by id"""
    deadline = time.monotonic() + 60
    while len(rows := connection.execute(query, [tenant]).fetchall()) < count:
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)
    return [detail for (detail,) in rows]


def wait_until_settled(scribe: Scribe, connection: Connection, tenant: UUID) -> None:
    """Wait until the scribe knows that no entry of an hour ago is still to come."""
    query = """
        select count(*) from ward_internal.audit_checkpoints
        where tenant_id = %s and checkpoint::jsonb ->> 'settled' is not null"""
    deadline = time.monotonic() + 60
    while connection.execute(query, [tenant]).fetchone() == (0,):
        write(connection, tenant)
        assert time.monotonic() < deadline, scribe.errors
        time.sleep(0.5)


def test_a_row_too_long_to_be_read_is_passed_over(scribe: Scribe) -> None:
    with scribe.database.admin() as connection:
        tenant, other = new_tenant(connection), new_tenant(connection)
        scribe.start()
        write(connection, other)
        wait_sealed(connection, other, 1)
        long = insert(connection, tenant, detail=LONG)
        write(connection, other)
        wait_sealed(connection, other, 2, seconds=60)
        (mark,) = marks(connection, tenant, 1)
        assert mark["entries"] == [str(long)] and mark["defect"] == "is too long to be read: not sealed"
        assert long not in sealed_ids(connection, tenant)
        written = write(connection, tenant)
        wait_sealed(connection, tenant, 2)
        assert sealed_ids(connection, tenant)[-1:] == written
        report = verified(scribe.database, tenant)
        assert report.defect is None and report.unsealed > 0
    assert scribe.stop() == 0, scribe.errors


@pytest.mark.parametrize("prefix", ["wardkey", "other"])
def test_a_message_too_long_to_be_read_is_passed_over(scribe: Scribe, prefix: str) -> None:
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        scribe.start()
        write(connection, tenant)
        wait_sealed(connection, tenant, 1)
        connection.execute("select pg_logical_emit_message(false, %s, repeat('x', 20000000))", [prefix])
        connection.execute("select pg_logical_emit_message(true, %s, repeat('x', 20000000))", [prefix])
        write(connection, tenant)
        wait_sealed(connection, tenant, 2, seconds=60)
        query = """select operation, detail ->> 'length' from ward_internal.audit_log
          where tenant_id = %s and operation like 'journal%%' and detail ? 'length' order by id"""
        told = connection.execute(query, [PLATFORM]).fetchall()
    assert scribe.stop() == 0, scribe.errors
    ours = [("journal_malformed", "20000000"), ("journal_forged", "20000000")]
    assert told == (ours if prefix == "wardkey" else [])


def test_no_row_fills_the_memory_of_the_scribe(scribe: Scribe) -> None:
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        scribe.start()
        write(connection, tenant)
        wait_sealed(connection, tenant, 1)
        long = insert(connection, tenant, detail=LONG.replace("70000000", "150000000"))
        (mark,) = marks(connection, tenant, 1)
        assert mark["entries"] == [str(long)]
        assert scribe.process is not None
        status = Path(f"/proc/{scribe.process.pid}/status").read_text()
        assert int(status.split("VmHWM:")[1].split()[0]) < 500_000, "kB, code included"
        write(connection, tenant)
        wait_sealed(connection, tenant, 2, seconds=60)
    assert scribe.stop() == 0, scribe.errors


PUT_IN = [
    ({"transaction": "null"}, "is not of the transaction that wrote it"),
    ({"transaction": "'5'::xid8"}, "is not of the transaction that wrote it"),
    ({"at": "clock_timestamp() - interval '1 hour'"}, "is dated before it was written"),
    ({"at": "clock_timestamp() + interval '1 hour'"}, "is dated after it was written"),
    ({"kind": "'z'"}, "is no entry: not sealed"),
]


def test_what_was_put_in_by_hand_is_marked_and_a_long_transaction_is_not(scribe: Scribe) -> None:
    with scribe.database.admin() as connection, scribe.database.admin(autocommit=False) as slow:
        tenant = new_tenant(connection)
        scribe.start()
        wait_until_settled(scribe, connection, tenant)
        write(slow, tenant)
        began = time.monotonic()
        for number, (columns, defect) in enumerate(PUT_IN, 1):
            first, _ = insert(connection, tenant, **columns), write(connection, tenant, 2)
            *_, mark = marks(connection, tenant, number)
            assert mark == {"defect": defect, "entries": [str(first)], "count": 1, "investigate": True}
            assert (first in sealed_ids(connection, tenant)) == ("not sealed" not in defect)
        time.sleep(max(0, began + 3 - time.monotonic()))  # 2 seconds before its commit: it is looked at
        slow.commit()
        (written,) = write(connection, tenant)
        wait_for(
            connection, 1, "select count(*) from ward_internal.audit_batches where %s = any (ids)", written
        )
        assert len(marks(connection, tenant, len(PUT_IN))) == len(PUT_IN)
    assert scribe.stop() == 0, scribe.errors
    report = verified(scribe.database, tenant)
    assert report.is_whole and report.unfit_count == 1, report


def test_what_fails_again_and_again_is_told_until_it_goes_on(scribe: Scribe) -> None:
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        scribe.start()
        write(connection, tenant)
        wait_sealed(connection, tenant, 1)
        connection.execute(STOP)
        write(connection, tenant)
        deadline = time.monotonic() + 60
        while "no room" not in (told := slots.failing(connection) or ""):
            assert time.monotonic() < deadline, scribe.errors
            time.sleep(0.05)
        assert "times behind position" in told
        connection.execute("drop trigger stop on ward_internal.audit_batches")
        wait_sealed(connection, tenant, 2, seconds=60)
        while slots.failing(connection):
            assert time.monotonic() < deadline + 60
            time.sleep(0.05)
    assert scribe.stop() == 0, scribe.errors
