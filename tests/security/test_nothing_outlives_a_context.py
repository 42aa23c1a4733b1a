"""ATTACKS 53, 54, 55: what a message of several transactions, a DO block or a snapshot keeps of a context.

The weakened object is the program in one backend: ``weakened`` replaces a piece of it and then acts as acme.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Connection
from tests.support.sqlstate import refused
from wardkey.embedded.issuer import EmbeddedIssuer

from .conftest import Wards

COUNT = "select count(*) from patients"
READ = "select count(name) from patients"
NOTHING_AT_END = "entry._host.at_end(lambda: None)"
NEVER_EXPIRED = "context.Session.current = lambda self, **_: self._context"
OLD_SNAPSHOT = "entry._host.query_now = entry._host.query"
ANY_ISSUER = (
    "entry._session._keyring.get = "
    "lambda tenant, *_: next(iter(entry._session._keyring._keys.values()), None)"
)


@contextmanager
def weakened(wards: Wards, *pieces: str) -> Iterator[Connection]:
    """A backend of acme's login role, without token, in which the program is another."""
    with wards.database.admin() as connection:
        code = "\n".join(["from wardkey_pg import context, entry", *pieces])
        connection.execute(f"do language plpython3u $code$\n{code}\n$code$")
        connection.execute("set session authorization tenant_acme; set search_path = tenant_acme, pg_catalog")
        yield connection


def log_in(connection: Connection, token: str) -> None:
    connection.execute("select ward.login(%s)", [token])


def short(wards: Wards, seconds: float = 2) -> str:
    """A token for so long, of an issuer that allows no skew."""
    (document,) = wards.admin.execute("select document from ward_internal.issuers").fetchone()
    wards.admin.execute("select ward.add_issuer(%s)", [Jsonb({**document, "max_skew": 0})])
    return wards.database.token("acme", lifetime=seconds)


@pytest.mark.parametrize("function", ["login", "login_session"])
def test_null_for_a_token_ends_the_context_there_was(wards: Wards, function: str) -> None:
    def attack(connection: Connection) -> int:
        with connection.transaction(force_rollback=True):
            log_in(connection, token)
            try:
                with connection.transaction():
                    connection.execute(f"select ward.{function}(null)")
            except psycopg.Error as error:
                assert error.sqlstate == "WK002"
            return seen(connection)

    token = wards.token()
    with wards.attacker(None) as connection:
        assert attack(connection) == 0
        wards.admin.execute(f"alter function ward.{function}(text) strict")
        assert attack(connection) == 2


def seen(connection: Connection, query: str = COUNT) -> int:
    """How many rows ``query`` counts: 0 also when it is refused for want of a context."""
    try:
        with connection.transaction():
            (count,) = connection.execute(query).fetchone()
            return int(count)
    except psycopg.Error as error:
        assert error.sqlstate == "WK001", error
        return 0


@pytest.mark.parametrize("end", ["commit", "rollback", "commit and chain", "end; begin; rollback"])
def test_no_later_transaction_of_a_message_has_the_context(wards: Wards, end: str) -> None:
    """In a message of several statements they all begin at one time."""

    def attack(connection: Connection) -> int:
        login = f"select ward.login('{wards.token()}')"
        message = f"begin; {login}; {end}; select ward.tenant_id(); rollback"
        with connection.cursor() as cursor:
            cursor.execute(message)
            count = 0
            while True:
                if cursor.description and cursor.description[0].name == "tenant_id":
                    count += cursor.fetchone() != (None,)
                if not cursor.nextset():
                    return count

    with wards.attacker(None) as connection:
        assert attack(connection) == 0
    with weakened(wards, NOTHING_AT_END) as connection:
        assert attack(connection) == 1


def test_no_later_transaction_of_a_block_opens_a_value(wards: Wards) -> None:
    """Also one that was at hand before the COMMIT, which asks no policy."""
    value = "select ssn, uuid_send(c.id), int8send(l.id) from sealed_acme.patients as l, " + (
        "ward_internal.sealed_columns as c join ward_internal.models as m on m.id = c.model_id "
        "where l.id = 1 and c.name = 'ssn' and m.face = 'patients'"
    )
    sealed, column, row = wards.admin.execute(value).fetchone()  # type: ignore[misc]
    block = f"""do $$ begin
      perform ward.login('{{token}}');
      perform ward.unseal('\\x{sealed.hex()}', '\\x{column.hex()}', '\\x{row.hex()}');
      commit;
      perform ward.unseal('\\x{sealed.hex()}', '\\x{column.hex()}', '\\x{row.hex()}');
    end $$"""
    with wards.attacker(None) as connection, refused("WK001"):
        connection.execute(block.format(token=wards.token()))
    with weakened(wards, NOTHING_AT_END) as connection:
        connection.execute(block.format(token=wards.token()))


LOOPS = {
    "queries": "loop perform count(name) from patients; {next} end loop;",
    "cursor": "open c; loop fetch c into r; exit when not found; {next} end loop;",
    "for": "for r in select name from patients loop {next} end loop;",
    "writes": "loop update patients set city = 'x' where id = 1; {next} end loop;",
}


def block(loop: str, times: int) -> str:
    declared = "declare n int := 0; r record; c cursor for select name from patients"
    step = f"perform pg_sleep(0.1); n := n + 1; exit when n > {times};"
    return f"do $$ {declared}; begin {LOOPS[loop].format(next=step)} end $$"


@pytest.fixture
def many(wards: Wards) -> Wards:
    with wards.attacker() as connection:
        connection.execute("insert into patients (id, name) select n, 'p' from generate_series(100, 400) n")
    return wards


@pytest.mark.parametrize("loop", LOOPS)
def test_a_block_reads_and_writes_nothing_past_expiry(many: Wards, loop: str) -> None:
    with many.attacker(None) as connection, connection.transaction(force_rollback=True):
        log_in(connection, short(many))
        with refused("WK003"), connection.transaction():
            connection.execute(block(loop, 200))
    with weakened(many, NEVER_EXPIRED) as connection, connection.transaction(force_rollback=True):
        log_in(connection, short(many, 1))
        connection.execute(block(loop, 15))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_block_reads_and_writes_nothing_of_a_suspended_tenant(database: Any, loop: str) -> None:
    slug = database.new_tenant()
    with database.tenant(slug, subject="s") as connection:
        connection.execute("insert into patients (id, name) select n, 'p' from generate_series(1, 300) n")
    with database.admin() as admin, database.tenant(slug) as connection, connection.transaction():
        log_in(connection, database.token(slug))
        timer = threading.Timer(0.5, admin.execute, ["select ward.suspend_tenant(%s)", [slug]])
        timer.start()
        with refused("WK005"), connection.transaction():
            connection.execute(block(loop, 200))
        timer.join()


@pytest.mark.parametrize(
    "query",
    [
        "select query_to_xml('select name from patients where id = ' || n, false, false, '') from s",
        "select count(*) from s, lateral ts_stat('select to_tsvector(name) from patients where id <> ' || n)",
    ],
)
def test_a_function_begins_no_query_past_expiry(wards: Wards, query: str) -> None:
    """Functions of PostgreSQL that run a query themselves, again and again in one statement."""
    slowly = "with s as materialized (select n, pg_sleep(0.2) from generate_series(1, 20) n) "
    with wards.attacker(None) as connection, connection.transaction(force_rollback=True):
        token = short(wards)
        log_in(connection, token)
        connection.execute("with s as (select 1 as n) " + query)
        with refused("WK003"), connection.transaction():
            connection.execute(slowly + query)


def test_a_copy_that_began_in_time_ends(wards: Wards) -> None:
    with wards.attacker(None) as connection, connection.transaction(force_rollback=True):
        log_in(connection, short(wards))
        with connection.cursor().copy("copy patients (id, name) from stdin") as copy:
            copy.write("700\tbegun\n")
            time.sleep(2.2)
            copy.write("701\tended\n")
        with refused("WK003"), connection.transaction():
            connection.execute("insert into patients (id, name) values (702, 'late')")


REVOCATIONS = {
    "suspended": ("select ward.suspend_tenant('{slug}')", "WK005"),
    "issuer removed": ("select ward.remove_issuer('{issuer}')", "WK002"),
    "key retired": (
        "select ward.add_issuer(jsonb_set(document, '{{keys,0,kid}}', '\"other\"')) from ward.issuers",
        "WK002",
    ),
}


@pytest.mark.parametrize("level", ["repeatable read", "serializable", "serializable read only"])
@pytest.mark.parametrize("revocation", REVOCATIONS)
def test_a_snapshot_from_before_a_revocation_logs_nobody_in(
    wards: Wards, revocation: str, level: str
) -> None:
    slug = wards.database.new_tenant()
    statement, sqlstate = REVOCATIONS[revocation]
    with wards.database.tenant(slug) as connection:
        token = wards.database.token(slug)
        with connection.transaction():
            log_in(connection, token)
        connection.execute(f"begin isolation level {level}")
        connection.execute("select 1")
        wards.admin.execute(statement.format(slug=slug, issuer=wards.database.issuer.name))
        with refused(sqlstate):
            log_in(connection, token)


def test_the_attack_works_where_the_registry_is_read_with_the_transactions_snapshot(wards: Wards) -> None:
    with weakened(wards, OLD_SNAPSHOT) as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select 1")
        wards.admin.execute("select ward.suspend_tenant('acme')")
        log_in(connection, wards.token())
        assert connection.execute(COUNT).fetchone() == (2,)


def test_a_session_is_renewed_with_a_snapshot_of_now(wards: Wards) -> None:
    with wards.attacker() as connection:
        connection.execute("begin isolation level repeatable read")
        connection.execute("select 1")
        wards.admin.execute("select ward.suspend_tenant('acme')")
        with refused("WK005"):
            connection.execute(COUNT)


@pytest.mark.parametrize("rogue", ["added", "replaced"])
def test_an_issuer_of_the_database_only_gets_nothing_of_a_warm_backend(
    wards: Wards, rogue: str, tmp_path: Any
) -> None:
    forger = EmbeddedIssuer.open(tmp_path / "forger", "forged")
    document = forger.document()
    if rogue == "replaced":  # what the keeper knows by that name has another key
        document["issuer"] = wards.database.issuer.name
        forger = EmbeddedIssuer(wards.database.issuer.name, forger._key)

    def attack(connection: Connection) -> None:
        with connection.transaction():
            log_in(connection, wards.token())
            assert connection.execute(READ).fetchone() == (2,)
        wards.admin.execute("select ward.add_issuer(%s)", [Jsonb(document)])
        with connection.transaction():
            log_in(connection, forger.sign_token(wards.database.tenant_id("acme"), "forger", "ADMIN"))
            assert connection.execute(READ).fetchone() == (2,)

    with wards.attacker(None) as connection, refused("WK002", "WK103"):
        attack(connection)
    wards.admin.execute("select ward.add_issuer(%s)", [Jsonb(wards.database.issuer.document())])
    with weakened(wards, ANY_ISSUER) as connection:
        attack(connection)
