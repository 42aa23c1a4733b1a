"""What an ADMIN exports in SQL is, byte for byte, the file that the command writes: one code makes both."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import psycopg
import pytest
from wardkey_core.log.exporter import Period, export

from tests.audit.databases import START, Filled
from tests.support.database import Connection, Database, clone
from wardkey.audit.source import open_log
from wardkey.audit.verify import verify
from wardkey.embedded import Cluster

WORST = '\x01\x1f"\\/\b\f\n\r\t\x7f\u0080\u2028\ufeff\U0001f9ec'


@pytest.fixture(scope="module")
def database(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        yield database


@pytest.fixture(scope="module")
def admin(database: Database) -> Iterator[Connection]:
    with database.admin() as connection:
        connection.execute("set timezone = 'Asia/Kathmandu'; set datestyle = 'German'")
        yield connection


def in_sql(connection: Connection, log: Filled, period: Period) -> bytes:
    lines = connection.execute(
        "select ward.audit_export(%s, %s, %s)", [period.begin, period.end, str(log.tenant)]
    ).fetchall()
    return "".join(f"{line}\n" for (line,) in lines).encode()


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


PERIODS = [
    Period(),
    Period(minute(4)),
    Period(None, minute(6)),
    Period(minute(4), minute(6.1)),
    Period(minute(4.6), minute(5)),
    Period(minute(-5), minute(-1)),
    Period(minute(100), minute(200)),
    Period(minute(20.5)),
]


@pytest.fixture
def log(admin: Connection) -> Iterator[Filled]:
    """Entries under three checkpoints, one sealed beyond them, and some that wait; nothing stays."""
    with admin.transaction(force_rollback=True):
        yield small(admin)


def small(admin: Connection) -> Filled:
    log = Filled(admin, "acme")
    log.login("dr.jones", purpose="treatment")
    for number in range(9):
        log.read("dr.jones", str(number), '"odd ""name"", of",plain', minute=number + 1)
        if number in (2, 5, 8):
            log.seal(number + 1.5, settled=number > 2)
    log.put("w", "update", 20, row_id="1", columns="name", old={"name": WORST}, new={"name": None})
    log.seal(21)
    admin.execute("delete from ward_internal.audit_checkpoints where size > 10")
    log.read("dr.jones", "99", minute=21)
    log.put("e", "refusal", 2, detail={"sqlstate": "WK003"})
    return log


@pytest.mark.parametrize("period", PERIODS, ids=str)
def test_the_lines_of_an_export_are_the_same(admin: Connection, log: Filled, period: Period) -> None:
    export = in_sql(admin, log, period)
    with_command = _export(admin, log, period)
    assert export.splitlines() == with_command.splitlines()
    assert export == with_command and verify(io.BytesIO(export)).ok


def _export(connection: Connection, log: Filled, period: Period) -> bytes:
    stream = io.BytesIO()
    export(open_log(connection, log.tenant), log.slug, period, stream)
    return stream.getvalue()


def _edit(admin: Connection, ids: list[int]) -> None:
    admin.execute("update ward_internal.audit_log set row_id = '1' where id = %s", [ids[4]])


def _delete(admin: Connection, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_log where id = %s", [ids[4]])


def _twin(admin: Connection, ids: list[int], by: int = 1) -> None:
    admin.execute(
        "insert into ward_internal.audit_log (tenant_id, id, at, kind, operation)"
        " select tenant_id, id, at + %s * interval '1 second', kind, operation"
        " from ward_internal.audit_log where id = %s",
        [by, ids[4]],
    )


def _twin_ahead(admin: Connection, ids: list[int]) -> None:
    _twin(admin, ids, -1)


def _twin_beyond(admin: Connection, ids: list[int]) -> None:
    _twin(admin, [*ids[:4], ids[10]])


def _no_checkpoints(admin: Connection, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_checkpoints")


def _no_checkpoint(admin: Connection, ids: list[int]) -> None:
    admin.execute("delete from ward_internal.audit_checkpoints where size = 7")


@pytest.mark.parametrize(
    "tamper", [_edit, _delete, _twin, _twin_ahead, _twin_beyond, _no_checkpoints, _no_checkpoint]
)
def test_a_log_that_was_tampered_with_is_exported_as_it_is(
    admin: Connection, log: Filled, tamper: Callable[[Connection, list[int]], None]
) -> None:
    before = in_sql(admin, log, Period())
    row = admin.execute(
        "select array_agg(id order by id) from ward_internal.audit_log where tenant_id = %s", [log.tenant]
    ).fetchone()
    assert row is not None
    tamper(admin, row[0])
    export = in_sql(admin, log, Period())
    assert export.splitlines() == _export(admin, log, Period()).splitlines() != before.splitlines()


def test_lines_of_leaves_come_as_often(admin: Connection) -> None:
    with admin.transaction(force_rollback=True):
        log = Filled(admin, "acme")
        log.login("dr.jones")
        for number in range(2003):
            log.read("dr.jones", str(number), minute=1)
            if number in (998, 1999):
                log.seal(2)
        export = in_sql(admin, log, Period())
        assert export == _export(admin, log, Period()) and verify(io.BytesIO(export)).ok
    kinds = [next(iter(json.loads(line))) for line in export.splitlines()]
    assert kinds.count("leaves") == 3 and kinds.count("unsealed") == 3


def test_a_log_with_a_gap_in_its_order_is_refused_with_the_way(admin: Connection, log: Filled) -> None:
    admin.execute("delete from ward_internal.audit_batches where first_position > 3 and first_position < 8")
    with pytest.raises(psycopg.Error, match="order of the log ends") as refused:
        in_sql(admin, log, Period())
    assert refused.value.sqlstate == "WK209" and "audit verify" in (refused.value.diag.message_hint or "")
    assert refused.value.diag.context is None or "Traceback" not in refused.value.diag.context
