"""Of two transactions that change a row through the face one waits, and is told to retry."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from tests.support.database import Connection, Database

Inside = Callable[..., Connection]


@pytest.fixture(autouse=True)
def counter(shared: Database) -> None:
    with shared.tenant("acme", subject="t") as ward:
        ward.execute("delete from patients")
        ward.execute("insert into patients (id, name, ssn) values (1, '0', 'x'), (2, '0', 'y')")


def waits(shared: Database, connection: Connection, statement: str) -> tuple[threading.Thread, list[object]]:
    """Start ``statement`` and return once it waits for a lock."""
    outcome: list[object] = []

    def run() -> None:
        try:
            outcome.append(connection.execute(statement).rowcount)
        except psycopg.Error as error:
            outcome.append(error.sqlstate)

    thread = threading.Thread(target=run)
    thread.start()
    with shared.admin() as admin:
        for _ in range(500):
            query = "select wait_event_type from pg_stat_activity where pid = %s"
            if (
                admin.execute(query, [connection.info.backend_pid]).fetchone() == ("Lock",)
                or not thread.is_alive()
            ):
                break
            threading.Event().wait(0.01)
    return thread, outcome


@pytest.mark.parametrize(
    "second",
    [
        "update patients set name = (name::int + 1)::text where id = 1",
        "update patients set ssn = 'z' where id = 1",
        "delete from patients where id = 1",
    ],
)
@pytest.mark.parametrize("first", ["update patients set name = (name::int + 1)::text where id = 1",
                                   "update patients set city = 'Rome' where id = 1"])  # fmt: skip
def test_the_second_is_told_to_retry(shared: Database, inside: Inside, first: str, second: str) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    one.execute(first)
    thread, outcome = waits(shared, two, second)
    one.commit()
    thread.join(10)
    assert outcome == ["40001"]
    two.execute(second)


def test_after_a_rollback_the_second_goes_on(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    one.execute("update patients set name = '5' where id = 1")
    thread, outcome = waits(shared, two, "update patients set name = '6' where id = 1")
    one.rollback()
    thread.join(10)
    assert outcome == [1]


def test_a_row_deleted_meanwhile_is_passed_over(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    one.execute("delete from patients where id = 1")
    thread, outcome = waits(shared, two, "update patients set name = '6'")
    one.commit()
    thread.join(10)
    assert outcome == [1]


def test_other_rows_do_not_wait(inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    one.execute("update patients set name = '5' where id = 1")
    assert two.execute("update patients set name = '6' where id = 2").rowcount == 1
    one.commit()


def test_increments_of_many_clients_add_up(shared: Database, inside: Inside) -> None:
    retries: list[int] = []

    def increment(connection: Connection) -> None:
        for _ in range(15):
            while True:
                try:
                    connection.execute("update patients set name = (name::int + 1)::text where id = 1")
                    break
                except psycopg.errors.SerializationFailure:
                    retries.append(1)

    connections = [inside() for _ in range(4)]
    threads = [threading.Thread(target=increment, args=[connection]) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert inside().execute("select name from patients where id = 1").fetchone() == ("60",)


def test_select_for_update_locks_the_row(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    assert one.execute("select name from patients where id = 1 for update").fetchone() == ("0",)
    assert two.execute("select id from patients order by id for update skip locked").fetchall() == [(2,)]
    with pytest.raises(psycopg.errors.LockNotAvailable):
        two.execute("select id from patients where id = 1 for update nowait")
    thread, outcome = waits(shared, two, "update patients set ssn = 'z' where id = 1")
    assert thread.is_alive()
    one.rollback()
    thread.join(10)
    assert outcome == [1]


def test_what_was_locked_first_is_changed_without_retry(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = two.autocommit = False
    one.execute("select from patients where id = 1 for update")
    thread, outcome = waits(shared, two, "select from patients where id = 1 for update")
    one.execute("update patients set name = '7' where id = 1")
    one.commit()
    thread.join(10)
    assert outcome == [1]
    assert two.execute(
        "update patients set name = (name::int + 1)::text where id = 1 returning name"
    ).fetchone() == ("8",)
    two.commit()


def test_own_changes_are_no_conflict(inside: Inside) -> None:
    one = inside()
    with one.transaction():
        for number in range(3):
            with one.transaction():
                one.execute("update patients set name = %s where id = 1", [str(number)])
            assert one.execute("update patients set ssn = name where id = 1").rowcount == 1
        assert one.execute("delete from patients where id = 1").rowcount == 1


def test_repeatable_read_too(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    two.execute("begin isolation level repeatable read")
    two.execute("select name from patients")
    one.execute("update patients set name = '5' where id = 1")
    with pytest.raises(psycopg.errors.SerializationFailure):
        two.execute("update patients set name = '6' where id = 1")
    two.execute("rollback")


def test_inserts_of_one_key_collide(shared: Database, inside: Inside) -> None:
    one, two = inside(), inside()
    one.autocommit = False
    one.execute("insert into patients (id, name) values (9, 'a')")
    thread, outcome = waits(shared, two, "insert into patients (id, name) values (9, 'b')")
    one.commit()
    thread.join(10)
    assert outcome == ["23505"]
