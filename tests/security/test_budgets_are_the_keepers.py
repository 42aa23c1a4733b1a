"""What somebody opens is counted in the keeper: no transaction, backend or superuser sets a count back."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from wardkey_core import keeper_client as client
from wardkey_core.errors import KeeperUnavailable

from tests.support.database import Connection, Database, clone
from tests.support.journals import journal_of
from tests.support.sqlstate import refused
from wardkey.access import budgets
from wardkey.embedded import Cluster
from wardkey.keeper.budgets import BUDGETS_FILE

PATIENTS = "clinic.patients"
ONE = "select name from patients where id = %s"
MANY = "select name, ssn from patients where id between %s and %s"
LIMIT = 40


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database whose tenants have 300 patients each."""
    with clone(cluster, template) as database:
        for slug in ("acme", "globex"):
            with database.tenant(slug, role="ADMIN") as connection:
                connection.execute(
                    "insert into patients (id, name, ssn)"
                    " select n, 'P' || n, '999-' || n from generate_series(1, 300) as n"
                )
        yield database
    (cluster.home.keeper / BUDGETS_FILE).unlink(missing_ok=True)


class Budgeted:
    """A test's own subject, under a budget of rows of acme's patients."""

    def __init__(self, database: Database, subject: str) -> None:
        self.database = database
        self.subject = subject
        self.keeper = database.cluster.home.keeper

    def set(self, rows: int = LIMIT, *, role: str = "VIEWER", **options: Any) -> None:
        with self.database.admin() as admin:
            budgets.set_(admin, self.keeper, "acme", role, PATIENTS, rows, **options)

    def connect(self, slug: str = "acme", role: str = "VIEWER") -> Connection:
        return self.database.tenant(slug, subject=self.subject, role=role)

    def is_used_up(self) -> bool:
        with self.connect() as fresh:
            try:
                fresh.execute(ONE, [299])
            except psycopg.Error as error:
                return error.sqlstate == "WK253"
        return False


@pytest.fixture
def viewer(filled: Database, request: pytest.FixtureRequest) -> Budgeted:
    viewer = Budgeted(filled, request.node.name)
    viewer.set()
    return viewer


def read(connection: Connection, first: int, last: int) -> int:
    return len(connection.execute(MANY, [first, last]).fetchall())


def test_so_many_rows_are_opened_and_no_more(viewer: Budgeted) -> None:
    with viewer.connect() as connection, journal_of(viewer.database) as journal:
        assert read(connection, 1, 20) == 20
        for row in range(21, LIMIT + 1):
            assert connection.execute(ONE, [row]).fetchone() == (f"P{row}",)
        with refused("WK253"):
            connection.execute(ONE, [1])
        with refused("WK253"):
            connection.execute(ONE, [2])
        assert connection.execute("select count(*) from patients").fetchone() == (300,)  # opens nothing
        told = [
            one
            for one in journal.read(lambda all_: any("exhausted" in str(one) for one in all_))
            if getattr(one, "operation", "").startswith("budget_")
        ]
    assert [one.operation for one in told] == ["budget_near", "budget_exhausted"]  # once each
    assert {str(one.tenant) for one in told} == {str(viewer.database.tenant_id("acme"))}


@pytest.mark.parametrize("begin", ["begin", "begin read only", "begin isolation level repeatable read"])
def test_a_rollback_gives_nothing_back(viewer: Budgeted, begin: str) -> None:
    with viewer.connect() as connection:
        for first in (1, 21):
            connection.execute(begin)
            assert read(connection, first, first + 19) == 20
            connection.execute("rollback")
        with refused("WK253"):
            connection.execute(ONE, [41])
    assert viewer.is_used_up()


def test_savepoints_and_blocks_that_catch_errors_give_nothing_back(viewer: Budgeted) -> None:
    with viewer.connect() as connection:
        connection.execute(
            "do $$ begin for n in 1 .. 9 loop begin perform name from patients where id between n * 6 and"
            " n * 6 + 5; raise 'undo'; exception when others then null; end; end loop; end $$"
        )
        with refused("WK253"):
            connection.execute(ONE, [200])


def test_cursors_count_what_they_open(viewer: Budgeted) -> None:
    with viewer.connect() as connection, connection.transaction():
        connection.execute("declare c no scroll cursor for select name from patients order by id")
        opened = 0
        with refused("WK253"):
            while True:
                opened += len(connection.execute("fetch 3 from c").fetchall())
    assert LIMIT - 3 < opened <= LIMIT


def test_a_condition_on_a_sealed_column_opens_what_it_looks_at(viewer: Budgeted) -> None:
    with viewer.connect() as connection, refused("WK253"):
        connection.execute("select count(*) from patients where name = 'P299'")


def test_a_row_counts_once_a_statement_whatever_is_shown_of_it(viewer: Budgeted) -> None:
    with viewer.connect() as connection:
        query = "select a.name, b.ssn, a.ssn from patients a join patients b using (id) where id <= %s"
        assert len(connection.execute(query, [LIMIT]).fetchall()) == LIMIT
        with refused("WK253"):
            connection.execute(ONE, [1])


@pytest.mark.parametrize(
    "statement",
    [
        "update ward_internal.budgets set row_limit = 1000000",
        "delete from ward_internal.budgets",
        "select ward.set_budget('acme', 'VIEWER', 'clinic.patients', 1000000)",
        "select ward.drop_budget('acme', 'VIEWER', 'clinic.patients')",
        "update ward_internal.tenants set key_epoch = key_epoch + 1",
        "select ward.set_audit('clinic.patients', 'off', 'to see whether that counts')",
        "select ward.set_audit('clinic.patients', 'statement')",
    ],
)
def test_a_superuser_of_the_database_gets_nothing_back(viewer: Budgeted, statement: str) -> None:
    with viewer.connect() as connection, viewer.database.admin() as admin:
        assert read(connection, 1, 30) == 30
        level = admin.execute("select audit from ward.models where relation = 'clinic.patients'::regclass")
        before = level.fetchone()
        admin.execute(statement)
        try:
            assert read(connection, 31, 40) == 10
            with refused("WK253"):
                connection.execute(ONE, [41])
            assert viewer.is_used_up()
            with refused("WK253"):
                connection.execute(MANY, [1, 2])
        finally:
            admin.execute("select ward.set_audit('clinic.patients', %s)", before)


def test_all_backends_count_together(viewer: Budgeted) -> None:
    def work(first: int) -> int:
        opened = 0
        with viewer.connect() as connection:
            for row in range(first, first + LIMIT):
                try:
                    opened += connection.execute(ONE, [row]).rowcount
                except psycopg.Error as error:
                    assert error.sqlstate == "WK253"
                    break
        return opened

    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(work, range(1, 7)))
    assert sum(opened) <= LIMIT and len([number for number in opened if number]) > 1
    assert viewer.is_used_up()


def test_short_connections_do_not_waste_it(viewer: Budgeted) -> None:
    """What a lease left over is given back when the backend ends."""
    viewer.set(8)
    for row in range(1, 9):
        with viewer.connect() as connection:
            pid = connection.info.backend_pid
            assert connection.execute(ONE, [row]).rowcount == 1
        with viewer.database.admin() as admin:
            while admin.execute("select from pg_stat_activity where pid = %s", [pid]).rowcount:
                pass
    assert viewer.is_used_up()


def test_others_have_budgets_of_their_own(viewer: Budgeted) -> None:
    with viewer.connect() as connection, refused("WK253"):
        read(connection, 1, 100)
    with viewer.connect(role="EVALUATOR") as other_role, viewer.connect("globex") as other_tenant:
        assert read(other_role, 1, 100) == read(other_tenant, 1, 100) == 100
    with viewer.database.tenant("acme", subject="somebody else", role="VIEWER") as other_subject:
        assert read(other_subject, 1, 30) == 30


def test_distinct_rows_are_opened_again_for_nothing(viewer: Budgeted) -> None:
    viewer.set(30, distinct=True)
    with viewer.connect() as first, viewer.connect() as second:
        for _ in range(3):
            assert read(first, 1, 20) == 20
        assert read(second, 11, 29) == 19
        second.close()
        assert read(first, 1, 30) == 30
        with refused("WK253"):
            first.execute(ONE, [31])
        assert read(first, 1, 30) == 30  # what was opened before
    with viewer.connect() as fresh:
        assert read(fresh, 5, 15) == 11
        with refused("WK253"):
            fresh.execute(ONE, [31])


def test_what_is_set_holds_at_the_next_transaction(viewer: Budgeted) -> None:
    with viewer.connect(role="ANALYST") as connection, viewer.database.admin() as admin:
        admin.execute("select ward.set_audit('clinic.patients', 'off', 'not to be told')")
        try:
            assert read(connection, 1, 100) == 100
            viewer.set(10, role="ANALYST")
            assert read(connection, 1, 10) == 10
            with refused("WK253"):
                connection.execute(ONE, [1])
            budgets.drop(admin, viewer.keeper, "acme", "ANALYST", PATIENTS)
            assert read(connection, 1, 100) == 100
        finally:
            admin.execute("select ward.set_audit('clinic.patients', 'row')")


def test_what_is_set_while_a_transaction_lasts_holds_in_the_next(viewer: Budgeted) -> None:
    """Its keys go on in the newer epoch, under which the keeper was never asked."""
    with viewer.connect(role="EVALUATOR") as connection:
        with connection.transaction():
            assert read(connection, 1, 20) == 20
            viewer.set(5, role="EVALUATOR")
            deadline = time.monotonic() + 1.1  # after which a transaction looks again
            while time.monotonic() < deadline:
                connection.execute("select 1")
            connection.execute(ONE, [1])
        with refused("WK253"):
            read(connection, 1, 20)
    with viewer.database.admin() as admin:
        budgets.drop(admin, viewer.keeper, "acme", "EVALUATOR", PATIENTS)


def test_a_mask_without_a_key_opens_nothing(viewer: Budgeted) -> None:
    viewer.set(5, role="ANALYST")
    with viewer.database.admin() as admin:
        admin.execute("update ward_internal.sealed_columns set class = 'note' where name = 'ssn'")
        admin.execute("select ward.set_policy('ANALYST', 'note', 'mask')")
        try:
            with viewer.connect(role="ANALYST") as connection:
                assert connection.execute("select ssn from patients").fetchone() == ("[redacted]",)
                with refused("WK253"):
                    connection.execute("select ssn, name from patients")
        finally:
            admin.execute("update ward_internal.sealed_columns set class = 'clinical' where name = 'ssn'")
            admin.execute("select ward_internal.forget_keys()")
            budgets.drop(admin, viewer.keeper, "acme", "ANALYST", PATIENTS)


def test_without_the_keeper_a_running_lease_is_spent_and_no_more(viewer: Budgeted) -> None:
    viewer.set(400)  # leases of 25
    socket = viewer.database.cluster.home.keeper_socket
    with tempfile.TemporaryDirectory(dir="/tmp") as directory, viewer.database.admin() as admin:
        Path(directory).chmod(0o755)
        link = Path(directory) / "keeper.sock"
        link.symlink_to(socket)
        admin.execute("select ward.set('keeper_socket', %s)", [str(link)])
        with viewer.connect() as connection:
            assert connection.execute(ONE, [1]).rowcount == 1
            link.unlink()
            assert read(connection, 2, 25) == 24
            with refused("WK102"):
                connection.execute(ONE, [26])
            link.symlink_to(socket)
            assert connection.execute(ONE, [26]).rowcount == 1
        admin.execute("select ward.set('keeper_socket', %s)", [str(socket)])


def test_counts_outlive_the_keeper(viewer: Budgeted) -> None:
    socket = viewer.database.cluster.home.keeper_socket
    with viewer.connect() as connection:
        assert read(connection, 1, 39) == 39
        before = client.status(socket)["pid"]
        os.kill(before, signal.SIGKILL)
        while _pid(socket) in (None, before):
            time.sleep(0.02)
        assert connection.execute(ONE, [40]).rowcount == 1
        with refused("WK253"):
            connection.execute(ONE, [41])
    assert viewer.is_used_up()


def _pid(socket: Path) -> int | None:
    try:
        return int(client.status(socket, timeout=2)["pid"])
    except KeeperUnavailable:
        return None


def test_a_tenant_neither_sees_nor_changes_budgets(viewer: Budgeted) -> None:
    with viewer.connect(role="ADMIN") as connection:
        for statement in (
            "select * from ward.budgets",
            "select * from ward_internal.budgets",
            "select ward.set_budget('acme', 'VIEWER', 'clinic.patients', 1000000)",
            "select ward.drop_budget('acme', 'VIEWER', 'clinic.patients')",
            "select * from ward.honey_rows",
            "select ward.drop_honey('acme', 'clinic.patients', '{1}')",
        ):
            with refused():
                connection.execute(statement)


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        ("'acme', 'NURSE', 'clinic.patients', 5", "WK254"),
        ("'acme', null, 'clinic.patients', 5", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', 0", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', null", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', 100001, true", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', 5, false, '59 s'", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', 5, false, '367 days'", "WK254"),
        ("'acme', 'VIEWER', 'clinic.patients', 5, false, '9999999 days'", "WK254"),
        ("'nobody', 'VIEWER', 'clinic.patients', 5", "WK203"),
        ("'acme', 'VIEWER', 'pg_class', 5", "WK204"),
    ],
)
def test_bad_input_is_one_clear_error(filled: Database, arguments: str, sqlstate: str) -> None:
    with filled.admin() as admin, refused(sqlstate):
        admin.execute(f"select ward.set_budget({arguments})")


def test_neither_is_changed_where_one_cannot_be(viewer: Budgeted) -> None:
    path = viewer.keeper / BUDGETS_FILE
    before = path.read_bytes()
    with viewer.database.admin(autocommit=False) as admin:
        admin.execute("set local role pg_monitor")
        with pytest.raises(psycopg.Error):
            budgets.set_(admin, viewer.keeper, "acme", "ADMIN", PATIENTS, 5)
        admin.rollback()
    assert path.read_bytes() == before


def test_a_damaged_file_of_the_keeper_gives_no_key(viewer: Budgeted) -> None:
    path = viewer.keeper / BUDGETS_FILE
    before = path.read_bytes()
    path.write_text('{"budgets": [{"rows": "many"}]}')
    try:
        with viewer.connect() as connection, refused("WK103"):
            connection.execute(ONE, [1])
    finally:
        path.write_bytes(before)
