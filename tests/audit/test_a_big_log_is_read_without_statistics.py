"""A log that was never analyzed, which PostgreSQL takes for a small one, is read once, not once an entry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.audit.databases import START, Filled
from tests.support.database import Connection, Database
from wardkey.audit.source import open_log

ENTRIES = 40_000  # a nested loop over them takes half a minute, a hash join 0.1 s
SECONDS = 12


@pytest.fixture
def big(database: Database) -> Iterator[tuple[Connection, Filled]]:
    """A log whose last 100 entries have no place in the tree."""
    with database.admin() as connection:
        log = Filled(connection, "acme")
        connection.execute("select ward_internal.make_audit_partition(%s, %s)", [log.tenant, START])
        connection.execute(
            "insert into ward_internal.audit_log (tenant_id, at, kind, operation, row_id)"
            " select %s, %s, 'w', 'update', n::text from generate_series(1, %s) as n",
            [log.tenant, START, ENTRIES],
        )
        connection.execute(
            "insert into ward_internal.audit_batches (tenant_id, first_position, ids, leaf_hashes, lsn)"
            " select tenant_id, 40 * batch, array_agg(id), string_agg(sha256(''), ''), '0/1' from"
            " (select *, row_number() over (order by id) as place from ward_internal.audit_log"
            "   where tenant_id = %s) as e cross join lateral (select (place - 1) / 40 as batch) as b"
            " where place <= %s - 100 group by 1, 2",
            [log.tenant, ENTRIES],
        )
        with connection.transaction(force_rollback=True):
            connection.execute(f"set local statement_timeout = '{SECONDS}s'")
            yield connection, log


def test_entries_without_a_place_are_found(big: tuple[Connection, Filled]) -> None:
    connection, log = big
    assert len(list(open_log(connection, log.tenant).unsealed())) == 100
    assert connection.execute("show enable_nestloop").fetchone() == ("on",)


def test_the_export_in_sql_is_made(big: tuple[Connection, Filled]) -> None:
    connection, log = big
    lines = "select count(*) from ward.audit_export(p_tenant => %s::text) as line"
    counted = connection.execute(f"{lines} where line like '{{\"unsealed%%'", [log.tenant]).fetchone()
    assert counted == (ENTRIES,)
