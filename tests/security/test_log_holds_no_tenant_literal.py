"""ATTACKS 29, 36: whatever a tenant executes and sets, no literal, parameter or token is logged."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
import pytest

from .conftest import Wards

CANARY = "canary-999-66-1234"
SETTINGS = (
    "set debug_print_plan = on",
    "set debug_print_parse = on",
    "set debug_print_rewritten = on",
    "set client_min_messages = debug5",
    "set log_statement = 'all'",
    "set log_min_duration_statement = 0",
    "set log_min_messages = debug5",
    "set log_min_error_statement = debug5",
    "set log_parameter_max_length = -1",
    "set log_parameter_max_length_on_error = -1",
    "set log_error_verbosity = verbose",
    "set log_lock_waits = on",
    "set log_temp_files = 0",
    "set auto_explain.log_min_duration = 0",
    "load 'auto_explain'",
    "alter role current_user set log_statement = 'all'",
    "set plpgsql.print_strict_params = on",
    "set trace_notify = on",
    "set deadlock_timeout = '1ms'",
)
STATEMENTS = (
    f"select '{CANARY}'",
    f"select '{CANARY}'::integer",
    f"selekt '{CANARY}'",
    f"select * from patients where name = '{CANARY}'",
    f"insert into patients (id, name) values (50, '{CANARY}')",
    f"insert into patients (id, name) values (50, '{CANARY}')",
    f"insert into patients (id, name, city) values (51, null, '{CANARY}')",
    f"update patients set ssn = '{CANARY}' where id = 1",
    f"insert into people values (1, '{CANARY}')",
    "select name::integer from patients",
    f"do $$ begin raise warning '{CANARY}'; end $$",
    f"do $$ begin raise log '{CANARY}'; end $$",
    f"do $$ begin raise exception '{CANARY}'; end $$",
    f"notify channel, '{CANARY}'",
    f"select ward.login('{CANARY}')",
    f"alter role current_user password '{CANARY}'",
    f"comment on view patients is '{CANARY}'",
    f"prepare p as select '{CANARY}'; execute p; execute p; deallocate p",
    f"declare c cursor with hold for select '{CANARY}'; fetch c; close c",
    f"set application_name = '{CANARY}'",
    f"set statement_timeout = '50ms'; select pg_sleep(1), '{CANARY}'",
)


def logged(wards: Wards) -> str:
    return "".join(file.read_text() for file in wards.database.cluster.home.log.iterdir())


@pytest.fixture
def prying(wards: Wards) -> Wards:
    table = "create table clinic.people (id int primary key, ssn text check (ssn ~ '^000'))"
    wards.admin.execute(table)
    wards.admin.execute("select ward.protect('clinic.people', '{ssn}')")
    return wards


def pry(connection: psycopg.Connection) -> None:
    for setting in SETTINGS:
        with suppress(psycopg.Error):
            connection.execute(setting)


def test_statements(prying: Wards) -> None:
    slug = prying.database.new_tenant()  # its password gets changed
    with prying.database.tenant(slug, subject="x") as connection:
        pry(connection)
        for statement in STATEMENTS:
            with suppress(psycopg.Error):
                connection.execute(statement)
    assert CANARY not in logged(prying)


def test_parameters(prying: Wards) -> None:
    with prying.attacker() as connection:
        pry(connection)
        for statement in ("select %s::integer", "insert into people values (1, %s)", "select ward.login(%s)"):
            for binary in (False, True):
                with suppress(psycopg.Error):
                    connection.execute(statement, [CANARY], binary=binary, prepare=True)
    assert CANARY not in logged(prying)


def test_copy_with_bad_lines(prying: Wards) -> None:
    """The CONTEXT of such an error quotes the line: the client may see it, the log may not."""
    with prying.attacker() as connection:
        pry(connection)
        for lines in (f"x\t{CANARY}\n", f"60\t{CANARY}\n60\t{CANARY}\n", f"{CANARY}\n"):
            with (
                pytest.raises(psycopg.Error),
                connection.cursor().copy("copy people (id, ssn) from stdin") as copy,
            ):
                copy.write(lines)
    assert CANARY not in logged(prying)


def test_token_in_a_literal(prying: Wards) -> None:
    token = prying.token()
    with prying.attacker(None) as connection:
        pry(connection)
        connection.execute(f"select ward.login('{token}')")
        with pytest.raises(psycopg.Error):
            connection.execute(f"select ward.login('{token}'), 1/0")
    assert token.split(".")[2] not in logged(prying)


def test_deadlock(prying: Wards) -> None:
    with prying.attacker() as one, prying.attacker("other") as two:
        pry(one)
        one.execute("begin; select from patients where id = 1 for update")
        two.execute("begin; select from patients where id = 3 for update")

        def wait() -> None:
            with suppress(psycopg.Error):
                two.execute(f"select '{CANARY}' from patients where id = 1 for update")

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        with suppress(psycopg.Error):
            one.execute(f"select '{CANARY}' from patients where id = 3 for update")
        one.execute("rollback")
        thread.join()
        two.execute("rollback")
    assert CANARY not in logged(prying)


def test_the_attack_works_with_postgresqls_own_settings(prying: Wards) -> None:
    """By default an error is logged with its statement: this is what the role's settings keep away."""
    name = prying.database.name
    prying.admin.execute(f"alter role tenant_acme in database {name} reset all")
    prying.admin.execute(f"alter role tenant_acme in database {name} set log_min_messages = 'warning'")
    prying.admin.execute(f"alter role tenant_acme in database {name} set log_min_error_statement = 'error'")
    with prying.attacker(None) as connection, pytest.raises(psycopg.Error):
        connection.execute("select 'weakened-canary'::integer")
    assert "weakened-canary" in logged(prying)
