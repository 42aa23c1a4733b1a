"""Whatever is written, read or happens gets one place in its tenant's tree, in the order of the WAL."""

from __future__ import annotations

from tests.scribe.scribes import (
    MODEL,
    PLATFORM,
    Scribe,
    emit,
    event,
    new_tenant,
    now,
    read,
    sealed_ids,
    verified,
    wait_sealed,
    wait_signed,
    write,
)


def test_reads_writes_and_events_are_sealed_and_verify(scribe: Scribe) -> None:
    with scribe.database.admin() as connection:
        tenant, before = new_tenant(connection), 3
        write(connection, tenant, before)
        scribe.start()
        wait_signed(connection, tenant, before)
        statement = now()
        emit(
            connection,
            read(tenant, 1, ["name"], statement),
            read(tenant, 1, ["name", '"or""der"'], statement),
            read(tenant, 2, ["name", '"or""der"'], statement),
            event(tenant, "refusal", sqlstate="WK003", text='é"\\\n', big=10**30),
        )
        write(connection, tenant, 2)
        wait_sealed(connection, tenant, before + 5)
        assert scribe.stop() == 0
        wait_signed(connection, tenant, before + 5)
        rows = connection.execute(
            "select kind::text, operation, row_id, columns, model_id, journalled from ward_internal.audit_log"
            " where tenant_id = %s and id = any(%s) order by array_position(%s, id)",
            [tenant, sealed_ids(connection, tenant), sealed_ids(connection, tenant)],
        ).fetchall()
        assert [row[:4] for row in rows[before:6]] == [
            ("r", "read", "1", 'name,"or""der"'),
            ("r", "read", "2", 'name,"or""der"'),
            ("e", "refusal", None, None),
        ]
        assert rows[before][4] == MODEL
        assert [row[5] for row in rows] == [False] * 3 + [True] * 3 + [False] * 2
    report = verified(scribe.database, tenant)
    assert report.ok, report
    assert (report.entries, report.unsealed, report.checkpoints) == (before + 5, 0, 2)
    assert verified(scribe.database, PLATFORM).ok
