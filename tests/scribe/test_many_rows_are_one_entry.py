"""An entry names many rows where a statement read many, in ranges or one by one, and names no other row."""

from __future__ import annotations

import time
from hashlib import sha256

from tests.scribe.scribes import (
    MODEL,
    Scribe,
    emit,
    new_tenant,
    now,
    read,
    read_message,
    verified,
    wait_signed,
)

NUMBERS = [*range(-3, 40), *range(50, 90), 1000, 1002, 1003, 1005, 2**62]
TEXTS = [f'é"\\\n{sha256(b"%d" % n).hexdigest()}' for n in range(300)] + ["7", "8", "9", "007", "[1, 2]"]
FEW = range(10)
NAMED = """
  select bool_or(ward_internal.names_row(detail, %s)),
    bool_or(%s in (select ward_internal.rows_of(row_id, detail)))
  from ward_internal.audit_log where tenant_id = %s and detail is not null"""


def test_each_row_that_was_read_is_named_and_no_other(scribe: Scribe) -> None:
    with scribe.database.admin() as connection:
        tenant, at = new_tenant(connection), now()
        scribe.start()
        deadline = time.monotonic() + 60
        while connection.execute("select from ward_internal.scribe_state").fetchone() is None:
            assert time.monotonic() < deadline, scribe.errors
            time.sleep(0.05)
        form = {"form": "t", "context": b"c" * 16, "model": MODEL}
        with connection.transaction():
            emit(
                connection,
                *(read(tenant, number, statement=at) for number in reversed(NUMBERS)),
                *(read_message(tenant, ["name"], t.encode(), statement=at + 1, **form) for t in TEXTS),
                *(read(tenant, number, statement=at + 2) for number in FEW),
            )
        deadline = time.monotonic() + 120
        query = """
            select e.statement, r.id
            from ward_internal.audit_log as e, ward_internal.rows_of(e.row_id, e.detail) as r (id)
            where e.tenant_id = %s and e.kind = 'r'"""
        wanted = sorted(
            (at + place, str(row)) for place, rows in enumerate((NUMBERS, TEXTS, FEW)) for row in rows
        )
        while (noted := sorted(connection.execute(query, [tenant]).fetchall())) != wanted:
            assert time.monotonic() < deadline and len(noted) < len(wanted), scribe.errors
            time.sleep(0.1)
        entries = connection.execute(
            "select statement, row_id, detail, length(detail::text) from ward_internal.audit_log"
            " where tenant_id = %s and kind = 'r' order by id",
            [tenant],
        ).fetchall()
        assert [row_id for statement, row_id, *_ in entries if statement == at + 2] == [str(n) for n in FEW]
        assert len(entries) < len(wanted) / 2 and max(length or 0 for *_, length in entries) < 200_000
        for row in ("-4", "40", "49", "90", "1001", "1004", "07", "7.0", "7", "1002", "[1, 2]", TEXTS[5]):
            named = connection.execute(NAMED, [row, row, tenant]).fetchone()
            assert named is not None and named[0] == named[1], row
        wait_signed(connection, tenant, len(entries), seconds=60)
        assert verified(scribe.database, tenant).defect is None
    assert scribe.stop() == 0, scribe.errors
