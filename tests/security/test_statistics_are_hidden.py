"""ATTACKS 18, 26, 28: statistics, sizes, activity, locks, counters, large objects, messages."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.database import Connection
from tests.support.sqlstate import refused
from wardkey.install.extension import prepare_extension

from .conftest import SECRET, Wards

THEIRS = (
    "(select oid from pg_class where relname = 'patients'"
    " and relnamespace::regnamespace::text = 'sealed_globex')"
)
QUERIES = (
    "select * from pg_stats",
    "select * from pg_statistic",
    "select * from pg_stats_ext",
    "select * from pg_stats_ext_exprs",
    "select * from pg_stat_activity",
    "select * from pg_stat_user_tables",
    "select * from pg_statio_all_tables",
    "select * from pg_stat_database",
    "select * from pg_stat_replication",
    "select * from pg_stat_ssl",
    "select * from pg_stat_progress_vacuum",
    "select * from pg_stat_wal",
    "select * from pg_stat_bgwriter",
    "select * from pg_locks",
    "select * from pg_prepared_xacts",
    "select * from pg_replication_slots",
    "select * from pg_largeobject_metadata",
    "select * from pg_largeobject",
    "select * from pg_db_role_setting",
    "select rolconfig from pg_roles",
    "select useconfig from pg_user",
    "select reltuples from pg_class",
    "select relpages from pg_class",
    "select relfrozenxid from pg_class",
    "select xmin from pg_class",
    f"select pg_relation_size({THEIRS})",
    f"select pg_total_relation_size({THEIRS})",
    f"select pg_table_size({THEIRS})",
    f"select pg_indexes_size({THEIRS})",
    "select pg_database_size(current_database())",
    "select pg_tablespace_size('pg_default')",
    f"select pg_stat_get_live_tuples({THEIRS})",
    f"select pg_stat_get_numscans({THEIRS})",
    "select pg_stat_get_activity(null)",
    "select pg_stat_get_backend_idset()",
    "select pg_lock_status()",
    "select pg_blocking_pids(1)",
    "select pg_current_wal_lsn()",
    "select pg_current_wal_insert_lsn()",
    "select checkpoint_lsn from pg_control_checkpoint()",
    "select txid_current()",
    "select pg_current_xact_id()",
    "select pg_current_snapshot()",
    "select age('3'::xid)",
    "select mxid_age('3'::xid)",
    "select pg_cancel_backend(1)",
    "select pg_terminate_backend(1)",
    "select pg_notify('channel', 'payload')",
    "select * from pg_listening_channels()",
    "select pg_notification_queue_usage()",
)


@pytest.mark.parametrize("query", QUERIES)
def test_it_is_refused(calm: Wards, query: str) -> None:
    calm.refuses(query)


def test_nothing_is_open_to_public(calm: Wards) -> None:
    assert calm.admin.execute("select * from ward_internal.open_to_public()").fetchall() == []


def test_what_is_opened_again_is_reported_and_mended(wards: Wards) -> None:
    wards.admin.execute("grant select on pg_stats to public")
    wards.admin.execute("grant select on pg_class to public")
    wards.admin.execute("grant execute on function pg_current_wal_lsn() to public")
    wards.admin.execute(f"grant temporary on database {wards.database.name} to public")
    open_ones = {
        row[0] for row in wards.admin.execute("select object from ward_internal.open_to_public()").fetchall()
    }
    assert {
        "relation pg_stats",
        "column pg_class.reltuples",
        "function pg_current_wal_lsn()",
        f"temporary on database {wards.database.name}",
    } <= open_ones
    wards.admin.execute("select ward_internal.harden()")
    assert wards.admin.execute("select * from ward_internal.open_to_public()").fetchall() == []


def test_pg_stat_statements_is_hidden_too(wards: Wards) -> None:
    """Its views and functions are PUBLIC's when it is created: hardening again closes them."""
    wards.admin.execute("create extension pg_stat_statements")
    open_ones = repr(wards.admin.execute("select object from ward_internal.open_to_public()").fetchall())
    assert "pg_stat_statements_info" in open_ones
    assert "pg_stat_statements(boolean)" in open_ones
    wards.admin.execute("select ward_internal.harden()")
    wards.refuses("select * from public.pg_stat_statements")
    wards.refuses("select * from public.pg_stat_statements(true)")


@pytest.mark.parametrize(
    ("weaken", "query"),
    [
        ("grant select on pg_class to public", f"select reltuples::int from pg_class where oid = {THEIRS}"),
        (
            "grant execute on function pg_stat_get_live_tuples(oid) to public",
            f"select pg_stat_get_live_tuples({THEIRS})::int",
        ),
    ],
)
def test_the_attack_works_where_statistics_are_public(wards: Wards, weaken: str, query: str) -> None:
    """The victim's number of patients, from outside."""
    wards.admin.execute("analyze sealed_globex.patients")
    wards.refuses(query)
    wards.admin.execute(weaken)
    with wards.attacker() as connection:
        assert connection.execute(query).fetchone() == (2,)


def test_the_attack_works_where_large_objects_are_public(wards: Wards) -> None:
    number = wards.admin.execute("select lo_from_bytea(0, convert_to(%s, 'UTF8'))", [SECRET]).fetchone()[0]
    wards.admin.execute(f"grant select on large object {number} to public")
    query = f"select convert_from(lo_get({number}), 'UTF8')"
    wards.refuses(query)
    wards.admin.execute("grant execute on function lo_get(oid) to public")
    assert wards.sees(query)


def test_names_are_visible_and_values_are_not(calm: Wards) -> None:
    """The bound: names of schemas, roles and columns, and ids of tenants, are to be seen in any database."""
    with calm.attacker() as connection:
        names = connection.execute("select nspname from pg_namespace where nspname ~ '^tenant_'").fetchall()
        assert ("tenant_globex",) in names
        assert ("tenant_globex",) in connection.execute("select rolname from pg_roles").fetchall()
        source = connection.execute("select prosrc from pg_proc where proname ~ '^patients_write'").fetchall()
        assert str(calm.database.tenant_id("globex")) in repr(source)
        assert SECRET not in repr(source)


def test_notify_is_heard_by_all_tenants(calm: Wards) -> None:
    """The other bound: there is no privilege for NOTIFY and LISTEN. Payloads must not carry anything."""
    with calm.attacker() as attacker, calm.victim() as victim:
        attacker.execute("listen jobs")
        victim.execute("notify jobs, 'visible'")
        heard = list(attacker.notifies(timeout=5, stop_after=1))
        assert [n.payload for n in heard] == ["visible"]
        with refused():
            victim.execute("select pg_notify('jobs', 'computed')")


def test_starting_again_closes_what_an_upgrade_opened(wards: Wards) -> None:
    """pg_upgrade makes pg_catalog again and does not run the extension's script."""
    wards.admin.execute("grant execute on function pg_current_wal_lsn() to public")
    assert prepare_extension(wards.admin) == "what PostgreSQL grants to PUBLIC taken back"
    assert prepare_extension(wards.admin) is None
    wards.refuses("select pg_current_wal_lsn()")


def test_nothing_that_a_tenant_writes_shows_the_counter_of_transactions(calm: Wards) -> None:
    """ATTACKS 61: xmin of a catalog's row that it can make itself, as its default privileges were."""
    calm.refuses("alter default privileges grant select on tables to current_user", "WK212")
    calm.refuses("select xmin from pg_db_role_setting")
    calm.refuses("comment on role tenant_acme is 'x'")
    calm.refuses("select xmin from pg_authid")


def test_the_attack_works_where_signals_are_publics(wards: Wards) -> None:
    """ATTACKS 61: the pids of others can be told from those of nobody."""

    def is_there(connection: Connection, pid: int) -> bool:
        try:
            return connection.execute("select pg_cancel_backend(%s)", [pid]).fetchone() != (False,)
        except psycopg.Error as error:
            return "permission denied for function" not in str(error)

    with wards.victim() as victim, wards.attacker() as attacker:
        there = [is_there(attacker, pid) for pid in (victim.info.backend_pid, 2**22 + 1)]
        assert there == [False, False]
        wards.admin.execute("grant execute on function pg_cancel_backend(int) to public")
        there = [is_there(attacker, pid) for pid in (victim.info.backend_pid, 2**22 + 1)]
        assert there == [True, False]


SIZES = (
    "select * from pg_class limit 1",
    "select pg_total_relation_size('clinic.icd10')",
    r"select pg_table_size('pg_class')",
)


def test_a_cell_may_accept_that_sizes_and_counts_show(wards: Wards) -> None:
    for value, opens in (("open", True), ("closed", False)):
        wards.admin.execute("select ward.set('catalog', %s)", [value])
        assert wards.admin.execute("select * from ward_internal.open_to_public()").fetchall() == []
        for query in SIZES:
            if opens:
                with wards.attacker() as connection:
                    assert connection.execute(query).fetchone() is not None
            else:
                wards.refuses(query)
        wards.refuses("select * from pg_locks")
        wards.refuses("select * from pg_roles")
    with refused("WK212"):
        wards.admin.execute("select ward.set('catalog', 'ajar')")
