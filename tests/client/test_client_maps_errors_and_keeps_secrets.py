"""The client library: a context per transaction, exceptions by SQLSTATE, no token or parameter in one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import psycopg
import pytest
from psycopg.rows import dict_row

import wardkey
from wardkey import Wards, errors

SECRET = "999-77-1234"
LIBRARIES = [Path(library.__file__).parent for library in (wardkey, psycopg)]


@pytest.fixture
def wards(database) -> Iterator[Wards]:
    slugs = {str(database.tenant_id(slug)): slug for slug in ("acme", "globex")}
    with Wards(database.dsn("tenant_{tenant}"), tenants=slugs) as wards:
        yield wards


def locals_of_the_libraries(trace: TracebackType | None) -> str:
    """Everything that a crash reporter would find in the frames of wardkey and psycopg."""
    values = []
    while trace is not None:
        if any(Path(trace.tb_frame.f_code.co_filename).is_relative_to(library) for library in LIBRARIES):
            values += [repr(value) for value in dict(trace.tb_frame.f_locals).values()]
        trace = trace.tb_next
    assert values
    return "\n".join(values)


def test_context_is_that_of_the_token(wards, database):
    with wards.transaction(database.token("acme", subject="ann", role="EVALUATOR")) as connection:
        who = connection.execute("select ward.subject(), ward.role(), session_user")
        assert who.fetchone() == ("ann", "EVALUATOR", "tenant_acme")
    with wards.transaction(database.token("globex", subject="bob")) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        cursor.execute("select ward.subject() as who, session_user")
        assert cursor.fetchone() == {"who": "bob", "session_user": "tenant_globex"}


def test_commit_at_the_end_rollback_on_an_error(wards, database):
    token = database.token("acme")
    with wards.transaction(token) as connection:
        connection.execute("insert into patients (name) values ('kept')")
    with pytest.raises(ZeroDivisionError), wards.transaction(token) as connection:
        connection.execute("insert into patients (name) values ('lost')")
        raise ZeroDivisionError
    with wards.transaction(token) as connection:
        connection.execute("insert into patients (name) values ('undone')")
        raise psycopg.Rollback
    with wards.transaction(token) as connection:
        assert connection.execute("select name from patients").fetchall() == [("kept",)]


def test_savepoint_inside(wards, database):
    with wards.transaction(database.token("acme")) as connection:
        with pytest.raises(psycopg.errors.NotNullViolation), connection.transaction():
            connection.execute("insert into patients (name) values (null)")
        connection.execute("insert into patients (name) values ('after')")
    with wards.transaction(database.token("acme")) as connection:
        assert connection.execute("select name from patients").fetchall() == [("after",)]


@pytest.mark.parametrize(
    ("expected", "claims", "tail"),
    [
        (errors.WrongTenant, {"slug": "globex", "tenant": "acme"}, ""),
        (errors.InvalidToken, {"slug": "acme"}, "x"),
        (errors.RoleMayNotWrite, {"slug": "acme", "role": "VIEWER"}, ""),
    ],
)
def test_errors_are_classes_without_secrets(wards, database, expected, claims, tail):
    token = database.token(**claims) + tail
    with pytest.raises(expected) as caught, wards.transaction(token) as connection:
        connection.execute("insert into patients (name) values (%s)", [SECRET])
    error = caught.value
    assert error.sqlstate == expected.sqlstate
    assert error.hint
    assert (error.__cause__, error.__context__) == (None, None)
    told = f"{error!r} {error} {error.hint} {locals_of_the_libraries(error.__traceback__)}"
    assert token not in told
    assert SECRET not in told


@pytest.mark.parametrize("token", ["", "not a token", "a.b.c", "a." + "e30" + ".c", "ä.ü.ö"])
def test_what_is_no_token_is_refused_before_it_is_sent(wards, token):
    with pytest.raises(errors.InvalidToken) as caught, wards.transaction(token) as connection:
        connection.execute("select 1")
    assert not token or repr(token) not in locals_of_the_libraries(caught.value.__traceback__)


def test_error_is_of_its_class_inside_the_block_too(wards, database):
    with wards.transaction(database.token("acme", role="VIEWER")) as connection:
        with pytest.raises(errors.RoleMayNotWrite):
            connection.execute("insert into patients (name) values ('x')")
        raise psycopg.Rollback


def test_other_errors_are_psycopgs(wards, database):
    with (
        pytest.raises(psycopg.errors.DivisionByZero),
        wards.transaction(database.token("acme")) as connection,
    ):
        connection.execute("select %s/0", [SECRET[:3]])


def test_without_a_token_there_is_nothing(wards, database):
    with wards.transaction(database.token("acme")) as connection:
        connection.execute("insert into patients (name) values ('Ann')")
    connection = wards.getconn("acme")
    with pytest.raises(errors.NoContext):
        connection.execute("select name from patients")
    wards.putconn(connection)


def test_connection_that_broke_is_opened_again(wards, database):
    token = database.token("acme")
    with pytest.raises(psycopg.OperationalError), wards.transaction(token) as connection:
        with database.admin() as admin:
            admin.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
        connection.execute("select 1")
    with wards.transaction(token) as connection:
        assert connection.execute("select ward.subject()").fetchone() == ("tester",)


def test_threads_share_the_connections_of_two_tenants(database):
    seen: list[tuple[str, ...]] = []

    def work(wards: Wards, tenant: str, who: str) -> None:
        for _ in range(20):
            with wards.transaction(database.token(tenant, who, tenant=tenant)) as connection:
                row = connection.execute("select session_user::text, ward.subject()").fetchone()
                seen.append((f"tenant_{tenant}", who, *row))

    with Wards(database.dsn("tenant_{tenant}"), max_size=3, max_per_tenant=2) as wards:
        threads = [
            threading.Thread(target=work, args=[wards, ("acme", "globex")[number % 2], f"user{number}"])
            for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 120
    assert all(row[:2] == row[2:] for row in seen)


def test_importing_wardkey_waits_for_nothing():
    script = "import sys, wardkey; print('psycopg' in sys.modules, wardkey.__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")
