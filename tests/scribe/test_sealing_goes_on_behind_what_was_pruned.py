"""Trees go on from a checkpoint below which nothing is left, over restarts too, as if all were there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

from tests.scribe.scribes import Scribe, emit, new_tenant, read, verified, wait_sealed, wait_signed, write
from tests.support.cli import Wardkey
from tests.support.clocks import clock_off
from tests.support.database import Connection

LONG_AGO = datetime(2018, 6, 15, tzinfo=UTC)


def write_long_ago(connection: Connection, tenant: UUID, count: int) -> None:
    connection.execute("select ward_internal.make_audit_partition(%s, %s)", [tenant, LONG_AGO])
    connection.execute(
        "insert into ward_internal.audit_log (tenant_id, at, kind, operation, row_id)"
        " select %s, %s::timestamptz + n * interval '1 minute', 'w', 'insert', n::text"
        " from generate_series(1, %s) as n",
        [tenant, LONG_AGO, count],
    )


def test_an_old_log_is_pruned_by_the_command_and_goes_on(scribe: Scribe) -> None:
    database = scribe.database
    wardkey = Wardkey(database.cluster.home.path)
    on = ["--dsn", database.dsn(), "audit"]
    with database.admin() as connection:
        tenant = new_tenant(connection)
        write_long_ago(connection, tenant, 5)
        with clock_off(-int((datetime.now(UTC) - LONG_AGO).total_seconds()) + 86_400):
            scribe.start()  # of the day after
        wait_signed(connection, tenant, 5)
        assert scribe.stop() == 0
        write(connection, tenant, 2)
        scribe.start()
        wait_signed(connection, tenant, 7, seconds=20)

        would = wardkey.json(*on, "prune", "--tenant", str(tenant), "--dry-run")
        assert (would[0]["months"], would[0]["entries"], would[0]["size"]) == (["2018-06"], 5, 5)
        assert verified(database, tenant).pruned is None
        connection.execute("select ward.hold_audit(%s, 'Doe v. Acme', 'counsel asked')", [str(tenant)])
        (held,) = [each for each in wardkey.json(*on, "holds") if each["tenant_id"] == str(tenant)]
        assert held["matter"] == "Doe v. Acme"
        assert "Doe v. Acme" in wardkey(*on, "prune", "--all").stdout
        wardkey(*on, "release", str(tenant), "--matter", "Doe v. Acme", "--reason", "settled")
        assert (
            "WK204"
            in wardkey(
                *on, "release", str(tenant), "--matter", "Doe v. Acme", "--reason", "again", code=1
            ).stderr
        )
        done = {each["slug"]: each for each in wardkey.json(*on, "prune", "--all")}
        assert done[str(tenant)]["months"] == ["2018-06"] and done["platform"]["months"] == []
        assert "nothing" in wardkey(*on, "prune", "--tenant", str(tenant)).stdout

        wait_sealed(connection, tenant, 10)  # held, released, pruned
        scribe.kill()
        emit(connection, read(tenant, 1))
        write(connection, tenant, 1)
        scribe.start()
        wait_signed(connection, tenant, 12, seconds=20)
    report = verified(database, tenant)
    assert report.ok and report.complete_from and report.pruned, report
    assert (report.pruned.entries, report.entries, report.unsealed) == (5, 7, 0)
    shown = wardkey(*on, "verify", "--live", "--tenant", str(tenant)).stdout
    assert "its first 5 entries, up to 2018-06-16" in shown
    exported = database.cluster.home.path.parent / f"{tenant}.jsonl"
    wardkey(*on, "export", "--tenant", str(tenant), "--output", str(exported))
    facts = json.loads(wardkey("--json", "audit", "verify", str(exported)).stdout)
    assert facts["ok"] and facts["complete_from"] and facts["pruned"]["entries"] == 5
    wardkey("audit", "prune", code=2)
    wardkey("audit", "prune", "--all", "--tenant", "acme", code=2)
