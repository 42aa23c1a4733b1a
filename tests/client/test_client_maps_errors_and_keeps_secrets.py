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
from tests.support.sqlstate import refused
from wardkey import errors
from wardkey.client import Ward

SECRET = "999-77-1234"
LIBRARY = Path(wardkey.__file__).parent


@pytest.fixture
def ward(database) -> Iterator[Ward]:
    with wardkey.connect(database.dsn("tenant_acme")) as ward:
        yield ward


def locals_of_the_library(trace: TracebackType | None) -> str:
    """Everything that a crash reporter would find in the frames of wardkey and psycopg's callers."""
    values = []
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).is_relative_to(LIBRARY):
            values += [repr(value) for value in dict(trace.tb_frame.f_locals).values()]
        trace = trace.tb_next
    return "\n".join(values)


def test_context_is_that_of_the_token(ward, database):
    with ward.transaction(database.token("acme", subject="ann", role="EVALUATOR")) as cursor:
        cursor.execute("select ward.subject(), ward.role()")
        assert cursor.fetchone() == ("ann", "EVALUATOR")
    with ward.transaction(database.token("acme", subject="bob"), row_factory=dict_row) as cursor:
        assert cursor.execute("select ward.subject() as who").fetchone() == {"who": "bob"}


def test_commit_at_the_end_rollback_on_an_error(ward, database):
    token = database.token("acme")
    with ward.transaction(token) as cursor:
        cursor.execute("insert into patients (name) values ('kept')")
    with pytest.raises(ZeroDivisionError), ward.transaction(token) as cursor:
        cursor.execute("insert into patients (name) values ('lost')")
        raise ZeroDivisionError
    with ward.transaction(token) as cursor:
        cursor.execute("insert into patients (name) values ('undone')")
        raise psycopg.Rollback
    with ward.transaction(token) as cursor:
        assert cursor.execute("select name from patients").fetchall() == [("kept",)]


def test_savepoint_inside(ward, database):
    with ward.transaction(database.token("acme")) as cursor:
        with pytest.raises(psycopg.errors.NotNullViolation), cursor.connection.transaction():
            cursor.execute("insert into patients (name) values (null)")
        cursor.execute("insert into patients (name) values ('after')")
    with ward.transaction(database.token("acme")) as cursor:
        assert cursor.execute("select name from patients").fetchall() == [("after",)]


@pytest.mark.parametrize(
    ("expected", "slug", "role", "tail"),
    [
        (errors.WrongTenant, "globex", "ADMIN", ""),
        (errors.InvalidToken, "acme", "ADMIN", "x"),
        (errors.RoleMayNotWrite, "acme", "VIEWER", ""),
    ],
)
def test_errors_are_classes_without_secrets(ward, database, expected, slug, role, tail):
    token = database.token(slug, role=role) + tail
    with pytest.raises(expected) as caught, ward.transaction(token) as cursor:
        cursor.execute("insert into patients (name) values (%s)", [SECRET])
    error = caught.value
    assert error.sqlstate == expected.sqlstate
    assert error.hint
    assert (error.__cause__, error.__context__) == (None, None)
    told = f"{error!r} {error} {error.hint} {locals_of_the_library(error.__traceback__)}"
    assert token not in told
    assert SECRET not in told


def test_error_is_of_its_class_inside_the_block_too(ward, database):
    with ward.transaction(database.token("acme", role="VIEWER")) as cursor:
        with pytest.raises(errors.RoleMayNotWrite):
            cursor.execute("insert into patients (name) values ('x')")
        raise psycopg.Rollback


def test_other_errors_are_psycopgs(ward, database):
    with pytest.raises(psycopg.errors.DivisionByZero), ward.transaction(database.token("acme")) as cursor:
        cursor.execute("select 1/0")


def test_without_a_token_there_is_nothing(ward, database):
    with ward.transaction(database.token("acme")) as cursor:
        cursor.execute("insert into patients (name) values ('Ann')")
    with psycopg.connect(database.dsn("tenant_acme")) as plain, refused("WK001"):
        plain.execute("select name from patients")


def test_connection_that_broke_is_opened_again(ward, database):
    token = database.token("acme")
    with pytest.raises(psycopg.OperationalError), ward.transaction(token) as cursor:
        with database.admin() as admin:
            admin.execute("select pg_terminate_backend(%s)", [cursor.connection.info.backend_pid])
        cursor.execute("select 1")
    with ward.transaction(token) as cursor:
        assert cursor.execute("select ward.subject()").fetchone() == ("tester",)


def test_pool_is_shared_by_threads(database):
    seen: list[str] = []

    def work(ward: Ward, who: str) -> None:
        for _ in range(20):
            with ward.transaction(database.issuer.sign_token(tenant, who, "ADMIN")) as cursor:
                seen.append(f"{who}={cursor.execute('select ward.subject()').fetchone()[0]}")

    tenant = database.tenant_id("acme")
    with wardkey.connect(database.dsn("tenant_acme"), pool=2) as ward:
        threads = [threading.Thread(target=work, args=[ward, f"user{number}"]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 80
    assert all(left == right for left, right in (entry.split("=") for entry in seen))


def test_importing_wardkey_waits_for_nothing():
    script = "import sys, wardkey; print('psycopg' in sys.modules, wardkey.__version__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")
