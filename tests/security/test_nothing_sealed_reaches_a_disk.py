"""ATTACKS 51: what a query keeps beyond work_mem would be plaintext in base/pgsql_tmp."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.database import Connection
from tests.support.sqlstate import refused

from .conftest import Wards

MARK = "mark-51-plaintext"
TOO_LARGE = "53400"
SMALL = "set work_mem = '64kB'"
DISK = (
    "set temp_tablespaces = ''",
    "set temp_tablespaces = 'pg_default'",
    "reset all",
    "discard all",
    "alter role current_user reset all",
    "set role ward_tenant; reset role",
)
SPILLS = {
    "sort": "declare c cursor for select note from notes order by note, id; fetch 1 from c",
    "materialised": "declare c cursor for with m as materialized (select note from notes)"
    " select a.note from m as a, (select count(*) from m) as b; fetch 1 from c",
    "hash join": "set enable_mergejoin = off; set enable_nestloop = off;"
    " declare c cursor for select a.note from notes as a join notes as b using (note); fetch 1 from c",
    "parallel hash": "set parallel_setup_cost = 0; set parallel_tuple_cost = 0;"
    " set min_parallel_table_scan_size = 0; set max_parallel_workers_per_gather = 2;"
    " set enable_mergejoin = off; set enable_nestloop = off;"
    " select a.note from notes as a join notes as b on a.other = b.other",
    "hash aggregate": "declare c cursor for select note, count(*) from notes group by note; fetch 1 from c",
    "distinct": "declare c cursor for select distinct note || id from notes; fetch 1 from c",
    "window": "declare c cursor for select note, count(*) over () from notes; fetch 1 from c",
    "recursive": "declare c cursor for with recursive r as (select note, 1 as n from notes union all"
    " select note, n + 1 from r where n < 2) select r.note from r, (select count(*) from r) as s;"
    " fetch 1 from c",
    "scroll": "declare c scroll cursor for select note || random() from notes;"
    " move all in c; fetch first from c",
    "with hold": "declare h cursor with hold for select note from notes; commit; begin",
    "returning": "update notes set other = 'x' returning note",
    "block": "do $$ declare c cursor for select note from notes order by note, id; r record;"
    " begin open c; fetch c into r; end $$",
}


@pytest.fixture(scope="module")
def notes(calm: Wards) -> Wards:
    calm.admin.execute("create table clinic.notes (id int primary key, note text, other text)")
    calm.admin.execute("select ward.protect('clinic.notes', seal => '{note}')")
    with calm.attacker() as connection:
        connection.execute(
            "insert into notes select n, repeat(%s, 12), repeat('other', 40) || n"
            " from generate_series(1, 4000) as n",
            [MARK],
        )
    calm.admin.execute("analyze sealed_acme.notes")
    return calm


def plaintext(wards: Wards) -> int:
    """How often the marker stands in any file of the server but the log's and the WAL's buffers."""
    files = [file for file in wards.database.cluster.home.data.rglob("*pgsql_tmp*/**/*") if file.is_file()]
    return sum(file.read_bytes().count(MARK.encode()) for file in files)


def spill(notes: Wards, connection: Connection, query: str) -> None:
    connection.execute("begin")
    connection.execute("select ward.login(%s)", [notes.token()])
    for statement in [query] if query.startswith("do ") else query.split("; "):
        connection.execute(statement)


@pytest.fixture
def attacker(notes: Wards) -> Iterator[Connection]:
    connection = notes.attacker()
    connection.execute(SMALL)
    yield connection
    connection.close()


@pytest.mark.parametrize("spilling", SPILLS)
def test_what_does_not_fit_into_memory_is_refused(notes: Wards, attacker: Connection, spilling: str) -> None:
    with refused(TOO_LARGE) as caught:
        spill(notes, attacker, SPILLS[spilling])
        assert plaintext(notes) == 0
        # what is still in a buffer would be written by reading on
        attacker.execute("fetch all from h" if spilling == "with hold" else "fetch all from c")
    assert MARK not in str(caught.value)
    assert plaintext(notes) == 0


@pytest.mark.parametrize("setting", DISK)
def test_no_setting_of_a_tenant_leads_to_the_disk(notes: Wards, setting: str) -> None:
    with notes.attacker() as connection:
        connection.execute(setting)
        connection.execute("select ward.login_session(%s)", [notes.token()])
        connection.execute(SMALL)
        with refused(TOO_LARGE):
            spill(notes, connection, SPILLS["sort"])
    for statement in ("set temp_file_limit = -1", "alter role current_user set temp_file_limit = -1"):
        notes.refuses(statement)


def test_what_fits_into_memory_is_answered(notes: Wards) -> None:
    with notes.attacker() as connection:
        for name in ("sort", "hash join", "with hold", "hash aggregate"):
            spill(notes, connection, SPILLS[name])
            connection.execute("rollback")
        assert connection.execute("show work_mem").fetchone() == ("64MB",)


def test_somebody_in_a_tenants_place_writes_none_either(notes: Wards) -> None:
    with notes.database.admin() as connection:
        connection.execute("set session authorization tenant_acme; set search_path = tenant_acme, pg_catalog")
        connection.execute("select ward.login_session(%s)", [notes.token()])
        connection.execute(SMALL)
        with refused(TOO_LARGE):
            spill(notes, connection, SPILLS["sort"])


def test_analysing_a_face_keeps_no_statistics(notes: Wards) -> None:
    notes.admin.execute("analyze tenant_acme.notes")
    values = "select count(*) from pg_statistic where starelid = 'tenant_acme.notes'::regclass"
    assert notes.admin.execute(values).fetchone() == (0,)
    query = "select count(*) from pg_stats where most_common_vals::text || histogram_bounds::text like %s"
    assert notes.admin.execute(query, [f"%{MARK}%"]).fetchone() == (0,)


def test_an_admin_takes_a_log_along_that_needs_files(notes: Wards) -> None:
    """The log has no plaintext of a sealed value."""
    with notes.attacker() as connection:
        connection.execute(SMALL)
        (count,) = connection.execute("select count(*) from (select ward.audit_entries()) as e").fetchone()
        assert count > 4000
        with refused(TOO_LARGE):
            spill(notes, connection, SPILLS["sort"])


def test_the_attack_works_without_the_limit(notes: Wards) -> None:
    with notes.attacker() as connection:
        connection.execute(SMALL)
        notes.admin.execute("grant set on parameter temp_file_limit to tenant_acme")
        try:
            connection.execute("set temp_file_limit = -1")
        finally:
            notes.admin.execute("revoke set on parameter temp_file_limit from tenant_acme")
        connection.execute("begin")
        for statement in SPILLS["sort"].split("; "):
            connection.execute(statement)
        assert plaintext(notes) > 0
    assert plaintext(notes) == 0
