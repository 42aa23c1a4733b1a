"""Events are few among reads and writes: neither ``ward.events`` nor the doctor reads the rest of the log."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.database import Connection, Database

ENTRIES = 200_000
QUERIES = {
    "by slug": "select * from ward.events where slug = 'acme' order by id",
    "newest": "select * from ward.events where at > clock_timestamp() - interval '1 day'"
    " order by at desc limit 20",
    "by tenant": "select kind, detail from ward.events where tenant_id = '{tenant}'",
    "doctor's gaps": "select e.at, e.detail from ward_internal.audit_log as e where e.kind = 'e'"
    " and e.operation = 'journal_gap' and e.at > clock_timestamp() - interval '30 days'",
    "doctor's memory": "select exists (select from ward_internal.audit_log where tenant_id = '{tenant}'"
    " and kind = 'e' and operation = any ('{{x}}'))",
    "logins": "select distinct on (context) context, subject from ward_internal.audit_log"
    " where tenant_id = '{tenant}' and kind = 'e' and operation = 'login' and context is not null"
    " order by context, id",
}


@pytest.fixture(scope="module")
def admin(shared: Database) -> Any:
    with shared.admin() as connection:
        (tenant,) = connection.execute("select id from ward.tenants where slug = 'acme'").fetchone() or ("",)
        connection.execute(
            "insert into ward_internal.audit_log (tenant_id, kind, operation, row_id)"
            f" select '{tenant}', case when n % 200 = 0 then 'e' else 'r' end::\"char\","
            " case when n % 200 = 0 then 'refused' else 'read' end, n"
            f" from generate_series(1, {ENTRIES}) as n"
        )
        connection.execute("analyze ward_internal.audit_log")
        yield connection, tenant


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(each for part in plan.get("Plans", ()) for each in scans(part))]


@pytest.mark.parametrize("name", QUERIES)
def test_only_events_are_read(admin: tuple[Connection, str], name: str) -> None:
    connection, tenant = admin
    query = "explain (analyze, format json) " + QUERIES[name].format(tenant=tenant)
    ((plan,),) = connection.execute(query).fetchone() or ((None,),)
    large = [
        scan
        for scan in scans(plan["Plan"])
        if scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) > ENTRIES / 10
    ]
    assert not large, plan


def test_without_it_the_whole_log_is_read(admin: tuple[Connection, str]) -> None:
    connection, _ = admin
    with connection.transaction(force_rollback=True):
        connection.execute("drop index tenant_acme.audit_log_events")
        with pytest.raises(AssertionError):
            test_only_events_are_read(admin, "by tenant")
