"""ATTACKS 3, 9: the next transaction of a server connection, no matter whose, starts with nothing."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.support.database import Connection
from tests.support.sqlstate import refused

from .conftest import Wards

STATE = "select ward.tenant_id(), ward.subject(), (select count(*) from patients)"


def check_nobody(connection: Connection) -> None:
    assert connection.execute("select ward.tenant_id(), ward.subject()").fetchone() == (None, None)
    with refused("WK001"), connection.transaction():
        connection.execute("select count(*) from patients")


def _commit(connection: Connection) -> None:
    connection.execute("commit")


def _rollback(connection: Connection) -> None:
    connection.execute("rollback")


def _fail(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("select 1/0")
    connection.execute("rollback")


def _roll_back_to_savepoint(connection: Connection) -> None:
    connection.execute("rollback to before_login")
    connection.execute("release before_login")
    connection.execute("commit")


def _chain(connection: Connection) -> None:
    connection.execute("commit and chain")
    connection.execute("commit")


@pytest.mark.parametrize("end", [_commit, _rollback, _fail, _roll_back_to_savepoint, _chain])
def test_next_transaction_has_no_context(wards: Wards, end: Callable[[Connection], None]) -> None:
    with wards.attacker(None) as connection:
        connection.execute("begin")
        connection.execute("savepoint before_login")
        connection.execute("select ward.login(%s)", [wards.token(subject="first")])
        assert connection.execute(STATE).fetchone()[1:] == ("first", 2)
        end(connection)
        check_nobody(connection)
        connection.execute("begin")
        check_nobody(connection)


def test_chained_transaction_has_no_context(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [wards.token()])
        connection.execute("commit and chain")
        check_nobody(connection)


def test_transaction_of_a_procedure_has_no_context(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        connection.execute("select set_config('my.token', %s, false)", [wards.token()])
        connection.execute(
            """do $$ begin
              perform ward.login(current_setting('my.token'));
              assert (select count(*) = 2 from patients);
              commit;
              assert ward.tenant_id() is null, 'still there';
              begin
                assert (select count(*) is null from patients), 'no error';
              exception when sqlstate 'WK001' then null;
              end;
            end $$"""
        )


def test_failed_login_ends_the_context_there_was(wards: Wards) -> None:
    with wards.attacker(None) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [wards.token(subject="first")])
        with refused("WK002"), connection.transaction():
            connection.execute("select ward.login('no token')")
        check_nobody(connection)


def test_cursor_of_an_ended_transaction_is_gone_unless_held(wards: Wards) -> None:
    """WITH HOLD keeps rows: for later clients of the same login role, so of the same tenant, only."""
    with wards.attacker(None) as connection:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [wards.token()])
        connection.execute("declare plain cursor for select name from patients order by id")
        connection.execute("declare held cursor with hold for select name from patients order by id")
        connection.execute("commit")
        assert connection.execute("fetch all held").fetchall() == [("Ann Alpha",), ("Al Able",)]
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute("fetch all plain")
        connection.execute("discard all")
        with pytest.raises(psycopg.errors.InvalidCursorName):
            connection.execute("fetch all held")


@pytest.mark.parametrize("logout", ["select", "select ward.logout()"])
def test_cursor_is_not_fetched_by_another_subject(wards: Wards, logout: str) -> None:
    with wards.attacker(None) as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [wards.token(subject="first")])
        connection.execute("declare names cursor for select name from patients order by id")
        assert connection.execute("fetch names").fetchall() == [("Ann Alpha",)]
        connection.execute(logout)
        with refused("WK004"), connection.transaction():
            connection.execute("select ward.login(%s)", [wards.token(subject="second")])
        with refused("WK001"), connection.transaction():
            connection.execute("fetch names")
        connection.execute("select ward.login(%s)", [wards.token(subject="first")])


def test_prepared_statement_of_another_client_sees_nothing(wards: Wards) -> None:
    with wards.attacker(None) as connection:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [wards.token()])
        connection.execute("prepare everything as select name from patients")
        assert len(connection.execute("execute everything").fetchall()) == 2
        connection.execute("commit")
        with refused("WK001"):
            connection.execute("execute everything")


def test_the_attack_works_where_the_context_outlives_its_transaction(wards: Wards) -> None:
    """What pools get wrong most: a session setting of the last client is there for the next."""
    wards.admin.execute(
        """
        create table public.notes (owner text);
        insert into public.notes values ('first');
        alter table public.notes enable row level security;
        create policy by_setting on public.notes using (owner = current_setting('app.subject', true));
        grant select on public.notes to ward_tenant
        """
    )
    with wards.attacker(None) as connection:
        with connection.transaction():
            connection.execute("set app.subject = 'first'")
        assert connection.execute("select * from public.notes").fetchall() == [("first",)]


@pytest.mark.parametrize("reset", ["discard all", "reset all"])
def test_session_context_ends_when_a_pooler_resets_the_session(wards: Wards, reset: str) -> None:
    with wards.attacker("first") as connection:
        assert connection.execute(STATE).fetchone()[1:] == ("first", 2)
        mark = connection.execute("select current_setting('ward.session')").fetchone()[0]
        connection.execute(reset)
        connection.execute("select set_config('ward.session', %s, false)", [mark[::-1]])
        check_nobody(connection)
        connection.execute("select set_config('ward.session', %s, false)", [mark])
        check_nobody(connection)


def test_session_context_outlives_errors(wards: Wards) -> None:
    with wards.attacker("first") as connection:
        for _ in range(2):
            connection.execute("begin")
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("select 1/0 from patients")
            connection.execute("rollback")
            assert connection.execute(STATE).fetchone()[1:] == ("first", 2)


def test_context_cannot_be_had_by_standing_still(wards: Wards) -> None:
    """A pipeline's transactions come in messages of their own, each later than the last."""
    with wards.attacker(None) as connection, connection.pipeline() as pipeline:
        for _ in range(50):
            login = connection.execute("select ward.login(%s)", [wards.token()])
            pipeline.sync()
            subject = connection.execute("select ward.subject()")
            pipeline.sync()
            assert login.fetchone() is not None
            assert subject.fetchone() == (None,)
