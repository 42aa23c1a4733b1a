"""Without a context a query on a face fails with WK001: an empty result could be taken for "no allergies"."""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
import pytest

from .conftest import Wards

QUERIES = [
    "select * from patients",
    "select count(*) from patients",
    "select max(id) from patients",
    "select from patients where id = 4711",  # not there: the index finds nothing to filter
    "select 1 where not exists (select from patients where id = 4711)",
    "select (select name from patients where id = 1)",
    "select c.code from clinic.icd10 c left join patients p on p.city = c.code",
    "select a.id from patients a join patients b using (id) where b.id = 4711",
    "select code from clinic.icd10 where code not in (select city from patients)",
    "with p as (select id from patients) select * from p",
    "select id from patients where id = 1 for update",
    "update patients set city = 'x'",
    "update patients set city = 'x' where id = 4711",
    "delete from patients where id = 4711",
    "insert into patients (id, name) values (9, 'x')",
    "copy (select * from patients) to stdout",
    "select * from empty",
]
MODEL = """
create table clinic.empty (id int primary key);
select ward.protect('clinic.empty');
create index on clinic.patients (city);
"""


def outcome(connection: psycopg.Connection, query: str) -> object:
    try:
        if query.startswith("copy"):
            with connection.cursor().copy(query) as copy:
                return len(list(copy))
        cursor = connection.execute(query)
        return cursor.rowcount
    except psycopg.Error as error:
        return error.sqlstate


@pytest.fixture(scope="module")
def modelled(calm: Wards) -> Wards:
    calm.admin.execute(MODEL)
    return calm


@pytest.mark.parametrize("query", QUERIES)
def test_no_row_and_an_error(modelled: Wards, query: str) -> None:
    with modelled.attacker(None) as forgotten:
        assert outcome(forgotten, query) == "WK001"
        forgotten.execute(
            "select ward.login(%s)", [modelled.token(subject="a")]
        )  # of its own transaction only
        assert outcome(forgotten, query) == "WK001"
    with modelled.attacker() as connection:
        connection.autocommit = False
        assert isinstance(outcome(connection, query), int)
        connection.rollback()
    with psycopg.connect(modelled.database.dsn(), autocommit=True) as superuser:
        superuser.execute("set search_path = tenant_acme, public")
        assert outcome(superuser, query) == "WK001"


@pytest.mark.parametrize(
    ("key", "value", "rows"), [("city", "'Springfield'", 2), ("city", "'Nowhere'", 1), ("id", "4711", 1)]
)
def test_an_outer_join_asks_unless_an_index_without_tenants_finds_no_row(
    modelled: Wards, key: str, value: str, rows: int
) -> None:
    """From PostgreSQL 16 on: where the ward has no such row, a forgotten login gets what a login would get.

    The face's condition is part of the join's then, the leaf's policies are a filter of the index's rows. In
    the index of a key they are part of what it looks for.
    """
    query = f"select p.ssn from (values ({value})) as v ({key}) left join patients as p using ({key})"
    asks = value != "'Nowhere'" or modelled.admin.info.server_version < 160000
    for subject, expected in ((None, "WK001" if asks else rows), ("tester", rows)):
        with modelled.attacker(subject) as connection:
            for way in ("hashjoin", "mergejoin", "seqscan", "bitmapscan"):
                connection.execute(f"set enable_{way} = off")
            assert outcome(connection, query) == expected
            plan = "".join(line for (line,) in connection.execute(f"explain {query}").fetchall())
            assert re.search(rf"Index Cond: \(.*{key} = ", plan)


def test_leaves_ask_where_the_face_does_not(modelled: Wards) -> None:
    """In an outer join PostgreSQL 16 and later ask the face's condition only for a row that joins."""
    with modelled.database.admin() as connection:
        connection.execute("set role ward_owner")
        assert outcome(connection, "select from sealed_acme.patients") == "WK001"


def test_prepared_statements_ask_each_time(modelled: Wards) -> None:
    with modelled.attacker(None) as connection:
        connection.execute("prepare q as select count(*) from patients where id = 4711")
        with connection.transaction():
            connection.execute("select ward.login(%s)", [modelled.token(subject="a")])
            for _ in range(8):  # a generic plan
                assert connection.execute("execute q").fetchone() == (0,)
        assert outcome(connection, "execute q") == "WK001"


def test_what_reads_no_row_needs_no_context(modelled: Wards) -> None:
    """Tools look so at the columns of a query."""
    with modelled.attacker(None) as connection:
        cursor = connection.execute("select * from patients limit 0")
        assert cursor.fetchall() == [] and cursor.description and len(cursor.description) == 6
        connection.execute("explain select * from patients")


def messages(admin: psycopg.Connection, work: Callable[[], object]) -> int:
    """How many messages, which the journal consists of, are in the WAL of ``work``."""
    admin.execute("create extension if not exists pg_walinspect; create table if not exists commits ()")

    def now() -> object:
        # the commit puts what is before it on disk: pg_walinspect reads no further
        admin.execute("set synchronous_commit = on")
        admin.execute("insert into commits default values")
        (position,) = admin.execute("select pg_current_wal_flush_lsn()").fetchone() or (None,)
        return position

    before = now()
    work()
    query = "select count(*) from pg_get_wal_records_info(%s, %s) where resource_manager = 'LogicalMessage'"
    (count,) = admin.execute(query, [before, now()]).fetchone() or (None,)
    assert isinstance(count, int)
    return count


def test_a_password_alone_leaves_no_entry(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        query = "select * from patients"
        assert outcome(connection, query) == "WK001"
        assert messages(wards.admin, lambda: [outcome(connection, query) for _ in range(500)]) == 0
        bad = "select ward.login('rubbish')"  # the first ones are entries
        assert messages(wards.admin, lambda: outcome(connection, bad)) > 0


def test_who_wants_zero_rows_gets_them(wards: Wards) -> None:
    wards.admin.execute("select ward.set('no_context', 'empty')")
    with wards.attacker(None) as connection:
        for query, rows in ((QUERIES[0], 0), (QUERIES[4], 1), (QUERIES[11], 0), (QUERIES[13], 0)):
            assert outcome(connection, query) == rows
    wards.admin.execute("select ward.set('no_context', 'error')")
    wards.refuses(QUERIES[0], "WK001", subject=None)
    with pytest.raises(psycopg.Error) as caught:
        wards.admin.execute("select ward.set('no_context', 'rows')")
    assert caught.value.sqlstate == "WK212"


@pytest.mark.parametrize("query", [QUERIES[0], QUERIES[3], QUERIES[4], QUERIES[13]])
def test_the_silence_is_there_without_the_question(wards: Wards, query: str) -> None:
    (face,) = wards.admin.execute("select pg_get_viewdef('tenant_acme.patients'::regclass)").fetchone() or (
        "",
    )

    wards.admin.execute(f"create or replace view tenant_acme.patients as {face[: face.index('WHERE')]}")
    unasked = "on sealed_acme.patients using (tenant_id = (select ward.tenant_id()))"
    wards.admin.execute(f"alter policy ward_tenant {unasked}; alter policy ward_fence {unasked}")
    with wards.attacker(None) as connection:
        assert isinstance(outcome(connection, query), int)
