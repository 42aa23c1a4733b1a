"""ATTACKS 9, 16, 21, 22: locks, signals, maintenance and transactions of others."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.sqlstate import refused

from .conftest import Wards

ADVISORY = (
    "pg_advisory_lock(1)",
    "pg_try_advisory_lock(1)",
    "pg_advisory_xact_lock(1)",
    "pg_try_advisory_lock_shared(1, 2)",
    "pg_advisory_unlock(1)",
)


@pytest.mark.parametrize("call", ADVISORY)
def test_advisory_locks_are_refused(calm: Wards, call: str) -> None:
    """Numbers are common to all tenants: one could probe or hold another's, or fill the lock table."""
    calm.refuses(f"select {call}")


def test_asyncpg_resets_a_session(calm: Wards) -> None:
    with calm.attacker() as connection:
        connection.execute("select pg_advisory_unlock_all(); close all; unlisten *; reset all;")
        with refused("WK001"):
            connection.execute("select count(*) from patients")


def test_the_attack_works_where_advisory_locks_are_public(wards: Wards) -> None:
    wards.admin.execute(
        "grant execute on function pg_try_advisory_lock(bigint), pg_advisory_lock(bigint) to public"
    )
    with wards.victim() as victim, wards.attacker() as attacker:
        probe = "select pg_try_advisory_lock(42)"
        victim.execute("select pg_advisory_lock(42)")
        assert attacker.execute(probe).fetchone() == (False,)  # the victim works on 42


def test_locks_are_taken_in_the_own_ward_only(calm: Wards) -> None:
    for relation in ("tenant_globex.patients", "clinic.patients", "ward_internal.tenants"):
        calm.refuses(f"begin; lock table {relation} in access share mode")
    calm.refuses("begin; lock table clinic.icd10 in row exclusive mode")
    calm.refuses("begin; lock table pg_class in share mode")
    with calm.attacker() as attacker, calm.victim() as victim, attacker.transaction():
        attacker.execute("lock table patients in access exclusive mode")
        victim.execute("set statement_timeout = '5s'")
        assert victim.execute("select count(*) from patients").fetchone() == (2,)


def test_signals_reach_the_own_role_only(calm: Wards) -> None:
    with calm.victim() as victim, calm.attacker() as attacker:
        for function in ("pg_terminate_backend", "pg_cancel_backend"):
            with refused():
                attacker.execute(f"select {function}(%s)", [victim.info.backend_pid])
        assert victim.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize(
    "statement", ["vacuum {0}", "analyze {0}", "vacuum full {0}", "cluster {0} using patients_pkey"]
)
@pytest.mark.parametrize("table", ["clinic.icd10", "sealed_acme.patients", "pg_class"])
def test_maintenance_is_skipped_or_refused(calm: Wards, statement: str, table: str) -> None:
    with calm.attacker() as connection:
        notices: list[str] = []
        connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary or ""))
        try:
            connection.execute(statement.format(table))
        except psycopg.Error as error:
            assert error.sqlstate in ("42501", "42809", "42704")
        else:
            assert any("skipping" in notice for notice in notices)


@pytest.mark.parametrize(
    "statement",
    [
        "reindex table sealed_acme.patients",
        "reindex table clinic.icd10",
        "reindex schema tenant_acme",
        "checkpoint",
        "select pg_switch_wal()",
        "select pg_reload_conf()",
        "select pg_stat_reset()",
        "select pg_promote()",
    ],
)
def test_server_maintenance_is_refused(calm: Wards, statement: str) -> None:
    calm.refuses(statement)


def test_prepared_transactions_do_not_exist(calm: Wards) -> None:
    """ATTACKS 22: one could be finished by another user of the role, and holds its locks for ever."""
    with calm.attacker() as connection:
        connection.execute("begin")
        connection.execute("update patients set city = 'x' where id = 1")
        with refused("55000"):
            connection.execute("prepare transaction 'left'")


def test_triggers_cannot_be_skipped(calm: Wards) -> None:
    """ATTACKS 21."""
    calm.refuses("set session_replication_role = replica")
    calm.refuses("alter table patients disable trigger all")
    calm.refuses("alter table sealed_acme.patients disable trigger all")
    with calm.database.admin() as connection:  # and for a superuser a skipped face writes nothing at all
        connection.execute("set session_replication_role = replica")
        before = connection.execute("select count(*) from sealed_acme.patients").fetchone()
        connection.execute("insert into tenant_acme.patients (id, name) values (77, 'x')")
        assert connection.execute("select count(*) from sealed_acme.patients").fetchone() == before
