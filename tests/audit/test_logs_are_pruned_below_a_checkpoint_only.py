"""Six years, a legal hold, a signed checkpoint: what has not all three behind it stays in the log."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from wardkey_core.log.exporter import Period, export

from tests.audit.databases import START, Filled
from tests.support.database import Connection, Database
from tests.support.sqlstate import refused
from wardkey.audit import retention
from wardkey.audit.live import prove_live, verify_live
from wardkey.audit.report import Report
from wardkey.audit.source import open_log
from wardkey.audit.verify import verify
from wardkey.doctor import Server, checks


def minute(*date: int) -> float:
    """Return that time as ``Filled`` counts it."""
    return (datetime(*date, tzinfo=UTC) - START) / timedelta(minutes=1)


@pytest.fixture
def admin(database: Database) -> Connection:
    with database.admin() as connection:
        yield connection


@pytest.fixture
def log(admin: Connection) -> Filled:
    """Three months of 2018, whose checkpoints were made some seconds into the next one, and one of 2026.

    Kept is what is younger than the middle of August 2018.
    """
    log = Filled(admin, "acme")
    admin.execute("select ward.set('audit_retention', (current_date - date '2018-08-15')::text)")
    for month in (5, 6, 7):
        log.login("dr.jones", minute=minute(2018, month, 2))
        for day in (3, 4, 31 if month == 5 else 30):
            log.read("dr.jones", str(day), minute=minute(2018, month, day, 23, 59))
        log.read("dr.jones", "99", minute=minute(2018, month + 1, 1) + 0.05)  # on either side of midnight
        log.seal(minute(2018, month + 1, 1) + 0.1)
    log.login("dr.jones", minute=0)
    log.read("dr.jones", "1", minute=1)
    log.seal(2)
    return log


def months(log: Filled) -> list[str]:
    rows = log.connection.execute(
        "select to_char(begins at time zone 'UTC', 'YYYY-MM') from ward_internal.audit_months(%s)"
        " where begins < '2026-03-01'",
        [log.tenant],
    )
    return [month for (month,) in rows]


def verified(log: Filled, **options: object) -> Report:
    with log.connection.transaction():
        log.connection.execute("set transaction isolation level repeatable read, read only")
        return verify_live(log.connection, log.tenant, **options)


def seal_what_waits(log: Filled) -> None:
    """Do what the scribe does with events."""
    log._waiting += [
        row[0] for row in log.connection.execute(
            "select id from ward_internal.audit_log where tenant_id = %s and id > %s order by id",
            [log.tenant, max(log.ids)],
        )
    ]  # fmt: skip
    log.seal((datetime.now(UTC) - START) / timedelta(minutes=1) + 1)


def test_old_months_go_and_the_log_goes_on_from_a_checkpoint(log: Filled) -> None:
    assert verified(log).pruned is None
    before = log.tree.end
    gone = retention.prune(log.connection, log.tenant)
    assert gone["months"] == ["2018-05", "2018-06", "2018-07"] and gone["why"] is None
    assert (gone["number"], gone["size"]) == (3, log.signed[2].checkpoint.size)
    assert months(log) == ["2018-08"]  # not whole six years old; but its entry below the checkpoint is gone
    left = log.connection.execute(
        "select count(*) filter (where at < '2019-01-01'), count(*) filter (where kind = 'r') from"
        " ward_internal.audit_log where tenant_id = %s",
        [log.tenant],
    ).fetchone()
    assert left == (0, 1)
    report = verified(log)
    assert report.ok and report.complete_from and report.pruned
    assert report.pruned.entries == log.signed[2].checkpoint.size == before - 2
    assert report.pruned.until == log.signed[2].checkpoint.at
    seal_what_waits(log)
    report = verified(log, known=log.signed[3].checkpoint)
    assert report.ok and report.known and report.pruned and not report.unsealed
    older = verified(log, known=log.signed[0].checkpoint)
    assert older.ok and older.known is None and older.known_is_older
    assert retention.prune(log.connection, log.tenant)["months"] == []
    assert verified(log).ok


def test_the_doctor_sees_what_nobody_prunes(database: Database, log: Filled) -> None:
    (check,) = [each for theme in checks().values() for each in theme if each.name == "logs-pruned"]
    (problem,) = check.run("", Server(log.connection, database.cluster.home)).problems
    assert "acme" in problem.object and "2018-05" in problem.detail and "prune --all" in problem.fix
    retention.prune(log.connection, log.tenant)
    assert not check.run("", Server(log.connection, database.cluster.home)).problems


def test_what_stays_is_proven_as_before(log: Filled) -> None:
    entry = log.ids[-1]
    retention.prune(log.connection, log.tenant)
    with log.connection.transaction():
        log.connection.execute("set transaction isolation level repeatable read")
        proof = prove_live(log.connection, log.tenant, entry)
    assert proof.check()["row"] == "1" and proof.position == log.tree.end - 1


@pytest.mark.parametrize(
    "period",
    [
        Period(),
        Period(begin=datetime(2018, 5, 5, tzinfo=UTC)),
        Period(end=datetime(2018, 6, 5, tzinfo=UTC)),
        Period(begin=datetime(2026, 3, 2, 8, 2, tzinfo=UTC)),
    ],
)
def test_what_stays_is_exported_by_command_and_sql_alike(log: Filled, period: Period) -> None:
    retention.prune(log.connection, log.tenant)
    seal_what_waits(log)
    stream = io.BytesIO()
    with log.connection.transaction():
        log.connection.execute("set transaction isolation level repeatable read, read only")
        export(open_log(log.connection, log.tenant), log.slug, period, stream)
        lines = log.connection.execute(
            "select ward.audit_export(%s, %s, %s)", [period.begin, period.end, str(log.tenant)]
        ).fetchall()
    assert stream.getvalue() == "".join(f"{line}\n" for (line,) in lines).encode()
    stream.seek(0)
    report = verify(stream)
    assert report.ok and report.header and report.header.first >= log.signed[2].checkpoint.size
    assert (report.pruned is not None) == (period == Period())


def test_six_years_are_the_least(log: Filled) -> None:
    """And what a policy of more years keeps is kept."""
    for days in ("2191", "0", "-1", "many", None):
        with refused("WK212"):
            log.connection.execute("select ward.set('audit_retention', %s)", [days])
    log.connection.execute("select ward.set('audit_retention', '36500')")
    assert retention.prune(log.connection, log.tenant)["months"] == []
    assert len(months(log)) == 4


def test_a_month_with_an_entry_that_was_sealed_late_stays(log: Filled) -> None:
    """Below no checkpoint of its time; else the log would have a hole where nothing vouches for it."""
    log.read("dr.jones", "late", minute=minute(2018, 6, 20))
    log.seal(10)
    gone = retention.prune(log.connection, log.tenant)
    assert gone["months"] == ["2018-05"] and gone["why"].startswith("1 entries of 2018-06")
    assert months(log) == ["2018-06", "2018-07", "2018-08"]
    assert verified(log).ok


def test_a_month_with_an_entry_that_was_never_sealed_stays(log: Filled) -> None:
    log.read("dr.jones", "never", minute=minute(2018, 5, 20))
    assert retention.prune(log.connection, log.tenant)["months"] == []


def test_old_entries_without_a_checkpoint_of_their_time_stay(admin: Connection) -> None:
    log = Filled(admin, "acme")
    log.put("e", "rotated", minute(2018, 5, 20))
    log.seal(10)
    gone = retention.prune(admin, log.tenant)
    assert gone["months"] == [] and gone["why"]


@pytest.mark.parametrize(
    "tamper",
    [
        "delete from ward_internal.audit_log where tenant_id = %(tenant)s and operation = 'log_pruned'",
        "update ward_internal.audit_log set detail = jsonb_set(detail, '{root}', '\"00\"')"
        " where tenant_id = %(tenant)s and operation = 'log_pruned'",
        "update ward_internal.audit_log set detail = detail - 'size'"
        " where tenant_id = %(tenant)s and operation = 'log_pruned'",
        "update ward_internal.audit_log set kind = 'w'"
        " where tenant_id = %(tenant)s and operation = 'log_pruned'",
    ],
)
def test_a_beginning_that_no_entry_accounts_for_was_cut(log: Filled, tamper: str) -> None:
    retention.prune(log.connection, log.tenant)
    assert verified(log).ok
    log.connection.execute(tamper, {"tenant": log.tenant})
    defect = verified(log).defect
    assert defect and defect.kind == "cut head"


def test_more_than_was_pruned_cannot_be_cut(log: Filled) -> None:
    """By somebody who may write everything: the entry that tells of the pruning does not tell of that."""
    retention.prune(log.connection, log.tenant)
    size = log.signed[3].checkpoint.size
    for table in ("audit_checkpoints where size < %s", "audit_batches where first_position < %s"):
        log.connection.execute(f"delete from ward_internal.{table} and tenant_id = %s", [size, log.tenant])
    log.connection.execute(
        "delete from ward_internal.audit_log where tenant_id = %s and operation <> 'log_pruned'", [log.tenant]
    )
    defect = verified(log).defect
    assert defect and defect.kind == "cut head"


def test_a_hold_keeps_log_tenant_and_keys(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    log = Filled(admin, slug)
    log.put("e", "rotated", minute(2018, 5, 20))
    log.seal(minute(2018, 6, 1))
    for matter in ("Doe v. Acme", "OCR 2026-7"):
        for _ in range(2):
            admin.execute("select ward.hold_audit(%s, %s, 'counsel asked')", [slug, matter])
    admin.execute(
        "update ward_internal.tenant_keys set state = 'retired', retired_at = now() where tenant_id = %s",
        [log.tenant],
    )
    code = admin.execute("select ward_internal.shredding_facts(%s) ->> 'code'", [slug]).fetchone()
    assert code
    forbidden = (
        ("select ward.prune_audit(%s)", [slug]),
        ("select ward.drop_tenant(%s, %s, true)", [slug, slug]),
        ("select ward_internal.begin_shredding(%s, %s)", [slug, code[0]]),
        ("select ward.destroy_key(%s, 1, true)", [slug]),
    )
    for matter in ("OCR 2026-7", "Doe v. Acme"):
        for query, values in forbidden:
            with refused("WK217") as because:
                admin.execute(query, values)
            assert matter in str(because.value)
        assert retention.prune(admin, log.tenant)["held"]
        assert months(log) == ["2018-05"]
        admin.execute("select ward.release_audit(%s, %s, 'settled')", [slug, matter])
    with refused("WK204"):
        admin.execute("select ward.release_audit(%s, 'Doe v. Acme', 'settled')", [slug])
    assert retention.prune(admin, log.tenant)["months"] == ["2018-05"]
    told = admin.execute(
        "select operation, count(*) from ward_internal.audit_log where tenant_id = %s"
        " and operation like 'log%%' group by 1 order by 1",
        [log.tenant],
    ).fetchall()
    assert told == [("log_held", 2), ("log_pruned", 1), ("log_released", 2)]
    admin.execute("select ward_internal.begin_shredding(%s, %s)", [slug, code[0]])


def test_the_log_of_a_tenant_that_is_gone_is_pruned_by_its_id(database: Database, admin: Connection) -> None:
    slug = database.new_tenant()
    log = Filled(admin, slug)
    log.put("e", "rotated", minute(2018, 5, 20))
    log.seal(minute(2018, 6, 1))
    admin.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    assert str(log.tenant) in [name for _, name in retention.logs(admin)]
    with refused("WK203"):
        admin.execute("select ward.prune_audit(%s)", [slug])
    assert retention.prune(admin, log.tenant)["months"] == ["2018-05"]
    assert months(log) == [] and verified(log).ok


def test_who_reads_the_log_is_waited_for_and_then_nothing_was_done(
    database: Database, log: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_TRIES", 1)
    log.connection.execute("alter function ward.prune_audit(text) set lock_timeout = '200ms'")
    with database.admin(autocommit=False) as reader:
        reader.execute("select count(*) from ward_internal.audit_log where tenant_id = %s", [log.tenant])
        with refused("55P03"):
            log.connection.execute("select ward.prune_audit('acme')")
        with pytest.raises(Exception, match="lock"):
            retention.prune(log.connection, log.tenant)
        assert len(months(log)) == 4 and verified(log).ok
    assert len(retention.prune(log.connection, log.tenant)["months"]) == 3


def test_tenants_have_no_part_in_it(database: Database, log: Filled) -> None:
    with database.tenant("acme", subject="root", role="ADMIN") as connection:
        for query in (
            "select ward.prune_audit('acme')",
            "select ward.release_audit('acme', 'x', 'y')",
            "select ward.hold_audit('acme', 'x', 'y')",
            "select * from ward.audit_holds",
            "select ward_internal.plan_audit_pruning(%s)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query, [log.tenant] if "%s" in query else None)
