"""Whatever anyone executes, no literal, parameter or token reaches a log of the home."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.embedded import Cluster, Home

SECRET = "999-77-1234"


@pytest.fixture(scope="module")
def own_cluster(cluster):
    """A cluster with the settings of production, not those of the other tests."""
    directory = make_directory(cluster.home.python)
    own = Cluster(Home(directory / "home"))
    own.start()
    yield own
    throw_away(directory)


def logged(cluster: Cluster) -> str:
    return "".join(file.read_text() for file in cluster.home.log.iterdir())


@pytest.mark.parametrize(
    "statement",
    [
        f"select '{SECRET}'::integer",
        f"select 1/0, '{SECRET}'",
        f"selekt '{SECRET}'",
        f"do $$ begin raise exception '{SECRET}'; end $$",
        f"do $$ begin raise warning '{SECRET}'; end $$",
        f"do $$ raise Exception('{SECRET}') $$ language plpython3u",
        f"do $$ plpy.warning('{SECRET}') $$ language plpython3u",
        f"select ward.login('{SECRET}')",
        f"select ward.create_tenant('{SECRET}')",
        f"set debug_print_plan = on; set debug_print_parse = on; select '{SECRET}' from pg_class",
    ],
)
def test_failing_statement(own_cluster, statement):
    with psycopg.connect(own_cluster.dsn(), autocommit=True) as connection, suppress(psycopg.Error):
        connection.execute(statement)
    assert SECRET not in logged(own_cluster)


def test_parameter_of_a_failing_statement(own_cluster):
    with psycopg.connect(own_cluster.dsn(), autocommit=True) as connection, suppress(psycopg.Error):
        connection.execute("set log_parameter_max_length_on_error = -1")
        connection.execute("select %s::text::integer", [SECRET])
    assert SECRET not in logged(own_cluster)


def test_crash_of_a_backend(own_cluster):
    before = logged(own_cluster).count("ready to accept connections")
    with psycopg.connect(own_cluster.dsn(), autocommit=True) as connection:
        kill = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
        code = f"do $$ {kill} # {SECRET}\n$$ language plpython3u"
        with suppress(psycopg.Error):
            connection.execute(code)
    deadline = time.monotonic() + 30
    while logged(own_cluster).count("ready to accept connections") == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "was terminated by signal 9" in logged(own_cluster)
    assert SECRET not in logged(own_cluster)


def test_deadlock(own_cluster):
    with (
        psycopg.connect(own_cluster.dsn()) as one,
        psycopg.connect(own_cluster.dsn()) as two,
    ):
        one.execute("select pg_advisory_xact_lock(1)")
        two.execute("select pg_advisory_xact_lock(2)")
        two.execute("set deadlock_timeout = '10s'")
        one.execute("set deadlock_timeout = '100ms'")
        waiting = two.cursor()
        query = f"select pg_advisory_xact_lock(1), '{SECRET}'"
        thread = threading.Thread(target=waiting.execute, args=[query])
        thread.start()
        time.sleep(0.2)
        with pytest.raises(psycopg.errors.DeadlockDetected):
            one.execute(f"select pg_advisory_xact_lock(2), '{SECRET}'")
        one.rollback()
        thread.join()
    assert SECRET not in logged(own_cluster)


def test_logs_command_shows_the_logs(own_cluster):
    shown = Wardkey(own_cluster.home.path)("logs", "-n", "500").stdout
    assert "ready to accept connections" in shown
    assert "keeper: ready" in shown


def test_tenant_cannot_turn_logging_on(own_cluster):
    wardkey = Wardkey(own_cluster.home.path)
    if not wardkey.json("tenant", "list"):
        wardkey("tenant", "create", "acme")
    with psycopg.connect(own_cluster.dsn(user="tenant_acme"), autocommit=True) as connection:
        for name in ("log_statement", "log_min_error_statement", "log_min_messages", "log_error_verbosity"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"set {name} = default")
        for name in ("debug_print_parse", "debug_print_rewritten", "debug_print_plan"):
            with suppress(psycopg.Error):
                connection.execute(f"set {name} = on")
        with suppress(psycopg.Error):
            connection.execute(f"select '{SECRET}' from pg_class")
    assert SECRET not in logged(own_cluster)
