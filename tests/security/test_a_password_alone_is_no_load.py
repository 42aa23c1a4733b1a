"""ATTACKS 57, 60: who has a tenant's password and no token writes little, and holds up nobody."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
from wardkey_core.journal_reader import Event

from tests.support.database import Connection
from tests.support.journals import Journal, journal_of
from tests.support.sqlstate import refused

from .conftest import Wards

TIMES = 300
RUBBISH = "perform ward.unseal('\\x0103000001', uuid_send(gen_random_uuid()), int8send(n))"
FLOODS = {
    "logins": ("perform ward.login('rubbish' || n)", None),
    "no login": ("insert into patients (id, name) values (n, 'x')", None),
    "rubbish": (RUBBISH, "mallory"),
    "not allowed": ("perform ward.audit_entries()", "mallory"),
}


def flood(connection: Connection, statement: str) -> None:
    connection.execute(
        f"""do $$ begin for n in 1 .. {TIMES} loop
          begin {statement}; exception when others then null; end;
        end loop; end $$"""
    )


@pytest.fixture
def journal(wards: Wards) -> Iterator[Journal]:
    with journal_of(wards.database) as journal:
        yield journal


def events(journal: Journal) -> list[Event]:
    def counted(messages: list[object]) -> bool:
        return any(isinstance(one, Event) and (one.detail or {}).get("count") for one in messages)

    messages = journal.read(counted)
    return [one for one in messages if isinstance(one, Event) and one.operation in ("refusal", "tampered")]


@pytest.mark.parametrize("kind", FLOODS)
def test_refusals_are_counted(wards: Wards, journal: Journal, kind: str) -> None:
    statement, subject = FLOODS[kind]
    with wards.attacker(subject, role="VIEWER") as connection:
        flood(connection, statement)
    messages = events(journal)
    assert len(messages) <= 25
    assert sum((one.detail or {}).get("count", 1) for one in messages) == TIMES
    last = messages[-1]
    assert last.texts.get("database_role") == ("tenant_acme" if subject is None else None)


def test_the_attack_works_where_every_refusal_is_written(wards: Wards, journal: Journal) -> None:
    with wards.database.admin() as connection:
        connection.execute(
            "do language plpython3u $$\nfrom wardkey_pg import tally\ntally._WINDOW = 0\n$$;"
            " set session authorization tenant_acme"
        )
        flood(connection, FLOODS["logins"][0])
    messages = journal.read(lambda messages: len(messages) >= TIMES)
    assert len(messages) == TIMES


HOLDS = {
    "lock table": "lock table patients in access exclusive mode",
    "cursor": "declare c cursor for select name from patients",
    "plan": "explain select name from patients",
}


@pytest.mark.parametrize("hold", HOLDS)
def test_a_session_that_stays_in_a_transaction_stops_neither_ddl_nor_wards(wards: Wards, hold: str) -> None:
    """DDL gives way: it fails after a bounded time, and until then holds up others for no longer."""
    with wards.attacker(None) as attacker, wards.victim() as victim:
        attacker.execute("begin")
        attacker.execute(HOLDS[hold])
        alter = "alter table clinic.patients add column nickname text"
        with refused("55P03"):
            wards.admin.execute(alter)
        holders = wards.admin.execute("select pid, role, state from ward.lock_holders()").fetchall()
        assert holders == [(attacker.info.backend_pid, "tenant_acme", "idle in transaction")]
        _hurry(wards)
        with refused("WK114") as caught:
            wards.admin.execute("select ward.add_sealed_column('clinic.patients', 'secret', 'text')")
        message = caught.value.diag.message_primary or ""
        assert f"process {attacker.info.backend_pid} (tenant_acme, idle in transaction)" in message
        assert victim.execute("select count(*) from patients").fetchone() == (2,)
        attacker.execute("rollback")
        wards.admin.execute("select ward.add_sealed_column('clinic.patients', 'secret', 'text')")
        wards.admin.execute(alter)
        assert victim.execute("select nickname, secret from patients").fetchall() == [(None, None)] * 2


def _hurry(wards: Wards) -> None:
    """Have functions of ward give up after a second instead of half a minute."""
    definition = "select pg_get_functiondef('ward_internal.lock_together(regclass[],text)'::regprocedure)"
    ((text,),) = wards.admin.execute(definition).fetchall()
    wards.admin.execute(text.replace("interval '30 s'", "interval '1 s'"))


ADMINISTRATION = (
    "select ward.share('clinic.holidays')",
    "select ward.set_audit('clinic.patients', 'statement')",
    "select ward.unshare('clinic.holidays')",
    "select ward.suspend_tenant('acme'), ward.resume_tenant('acme')",
    "select ward.bound_tenant('acme', 'connections', '9')",
)


def test_what_needs_no_lock_of_a_ward_does_not_wait_for_one(wards: Wards) -> None:
    wards.admin.execute("create table clinic.holidays (day date primary key); set lock_timeout = '2s'")
    with wards.attacker(None) as attacker:
        attacker.execute("begin")
        attacker.execute(HOLDS["lock table"])
        with refused("42501"), attacker.transaction():
            attacker.execute("lock table clinic.icd10 in share mode")
        for statement in ADMINISTRATION:
            wards.admin.execute(statement)


def test_a_session_may_lift_its_timeouts_and_an_operator_may_end_it(wards: Wards) -> None:
    """LOCK TABLE cannot be refused: who may delete from a face may lock it. Its bounds are defaults."""
    with wards.attacker(None) as attacker:
        assert attacker.execute("show idle_in_transaction_session_timeout").fetchone() == ("10min",)
        attacker.execute("set idle_in_transaction_session_timeout = 0; begin")
        attacker.execute(HOLDS["lock table"])
        with refused("42501"), attacker.transaction():
            attacker.execute("lock table tenant_globex.patients")
        ((holder,),) = wards.admin.execute("select pid from ward.lock_holders()").fetchall()
        wards.admin.execute("select pg_terminate_backend(%s, 60000)", [holder])
        assert wards.admin.execute("select pid from ward.lock_holders()").fetchall() == []
        with pytest.raises(psycopg.OperationalError):
            attacker.execute("select 1")


def test_ddl_tries_again_and_others_go_on_meanwhile(wards: Wards) -> None:
    with wards.attacker(None) as attacker, wards.victim() as victim, ThreadPoolExecutor(1) as pool:
        attacker.execute("begin")
        attacker.execute(HOLDS["cursor"])
        statement = "select ward.add_sealed_column('clinic.patients', 'secret', 'text')"
        ddl = pool.submit(wards.admin.execute, statement)
        reads = 0
        while not ddl.done() and reads < 20:
            assert victim.execute("select count(*) from patients").fetchone() == (2,)
            reads += 1
            time.sleep(0.05)
        attacker.execute("rollback")
        ddl.result()
        assert victim.execute("select secret from patients").fetchall() == [(None,)] * 2


def test_the_attack_works_where_ddl_waits_for_ever(wards: Wards) -> None:
    wards.admin.execute("alter event trigger ward_bound_lock_waits disable; set statement_timeout = '8s'")
    with wards.attacker(None) as attacker:
        attacker.execute("begin")
        attacker.execute(HOLDS["lock table"])
        with refused("57014"):  # as long as it may
            wards.admin.execute("alter table clinic.patients add column nickname text")


def test_a_tenant_has_so_many_connections(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    wards.admin.execute("select ward.bound_tenant(%s, 'connections', '2')", [slug])
    for number in (2, 3):
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(wards.database.tenant(slug))
            if number == 2:
                with pytest.raises(psycopg.OperationalError, match="too many connections"):
                    wards.database.tenant(slug)
                with wards.victim() as victim:
                    assert victim.execute("select 1").fetchone() == (1,)
                wards.admin.execute("select ward.bound_tenant(%s, 'connections', '3')", [slug])
            else:
                stack.enter_context(wards.database.tenant(slug))


def test_bounds_come_back_with_a_repair_and_others_are_the_defaults(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    wards.admin.execute("select ward.bound_tenant(%s, 'statement_timeout', '90s')", [slug])
    wards.admin.execute("select ward.bound_tenant(%s, 'connections', '7')", [slug])
    with wards.database.tenant(slug) as connection:
        connection.execute("alter role current_user set statement_timeout = 0")
        connection.execute(f"alter role current_user in database {wards.database.name} reset all")
    wards.admin.execute(f"alter role tenant_{slug} connection limit -1")
    wards.admin.execute("select ward.repair_tenant(%s)", [slug])
    with wards.database.tenant(slug) as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("90s",)
        assert connection.execute("show idle_in_transaction_session_timeout").fetchone() == ("10min",)
    limit = "select rolconnlimit from pg_roles where rolname = %s"
    assert wards.admin.execute(limit, [f"tenant_{slug}"]).fetchone() == (7,)
    wards.admin.execute("select ward.bound_tenant(%s, 'connections', null)", [slug])
    assert wards.admin.execute(limit, [f"tenant_{slug}"]).fetchone() == (100,)  # half of max_connections
    with refused("WK204"):
        wards.admin.execute("select ward.bound_tenant(%s, 'search_path', 'x')", [slug])
