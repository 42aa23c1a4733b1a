"""A rotation moves every row while others read, write and hold locks; the old version goes when it can."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from tests.support.sqlstate import refused
from wardkey.errors import RotationRunning
from wardkey.keys import run
from wardkey.keys.orchestrator import Orchestrator, Request
from wardkey.keys.run import Progress, Throttle


def test_all_rows_are_moved_and_the_old_version_is_retired(ward):
    assert ward.rotate() == 2
    assert ward.read() == ward.rows
    seen: list[Progress] = []
    outcome = ward.reseal(watch=seen.append)
    assert (outcome.state, outcome.rows, outcome.fields) == ("finished", 500, ward.fields())
    assert (outcome.retired, ward.states()) == ((1,), {1: "retired", 2: "active"})
    assert ward.is_whole()
    assert (seen[-1].blocks, seen[-1].fields) == (seen[-1].of_blocks, ward.fields())


def test_done_rotation_is_no_work(ward):
    ward.rotate()
    ward.reseal()
    assert (ward.reseal().state, ward.reseal().rows) == ("finished", 0)


def test_ward_without_rows_rotates(new_ward):
    ward = new_ward(0)
    ward.rotate()
    assert ward.reseal().retired == (1,)


def test_new_values_are_under_the_new_version_at_once(ward):
    ward.rotate()
    with ward.tenant() as connection:
        connection.execute("update patients set name = 'Renamed' where id = 1")
    assert ward.counts() == {1: ward.fields() - 1, 2: 1}


def test_older_transaction_may_write_and_is_waited_for(ward):
    with ward.tenant() as connection, connection.transaction():
        connection.execute("select ward.login(%s)", [ward.database.token(ward.slug)])
        connection.execute("insert into patients (name) values ('before the rotation')")
        ward.rotate()
        outcome = ward.reseal(patience=0.5)
        assert (outcome.state, outcome.rows) == ("waiting", 500)
        assert ward.states()[1] == "decrypt-only"
        connection.execute("insert into patients (name) values ('after it')")
    ward.rows = ward.read()
    assert ward.counts()[1] >= 1  # the second is under the new key, once a second has passed since login
    assert ward.reseal().state == "finished"
    assert len(ward.rows) == 502
    assert ward.is_whole()


def test_worker_that_waits_goes_on_when_the_transaction_ends(ward):
    outcomes = []
    with ward.tenant() as connection:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [ward.database.token(ward.slug)])
        connection.execute("update patients set name = 'Renamed' where id = 3")
        ward.rotate()
        worker = threading.Thread(target=lambda: outcomes.append(ward.reseal(patience=30)))
        worker.start()
        time.sleep(0.5)
        connection.execute("commit")
    worker.join(30)
    ward.rows = ward.read()
    assert [outcome.state for outcome in outcomes] == ["finished"]
    assert ward.is_whole()


def test_rows_that_are_locked_are_taken_in_another_pass(ward):
    ward.rotate()
    with ward.tenant() as connection:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [ward.database.token(ward.slug)])
        connection.execute("select from patients where id <= 5 for update")
        outcome = ward.reseal(patience=0.5)
        assert (outcome.state, outcome.rows) == ("waiting", 495)
        assert outcome.reason == "other transactions hold rows"
    assert ward.reseal().rows == 5
    assert ward.is_whole()


def test_incident_rotates_while_a_rotation_is_under_way(ward):
    ward.rotate()
    with ward.database.admin() as connection:
        connection.execute(
            "select ward_internal.reseal(%s, id, 0, 1) from ward_internal.models where face = 'patients'",
            [ward.slug],
        )
    with refused("WK213"):
        ward.rotate()
    assert ward.rotate(incident=True) == 3
    assert sorted(ward.counts()) == [1, 2]
    assert ward.reseal().retired == (1, 2)
    assert ward.is_whole()


def test_rotation_during_resealing_is_taken_up_by_the_same_worker(ward):
    ward.rotate()
    rotated = threading.Event()

    def watch(progress: Progress) -> None:
        if not rotated.is_set():
            rotated.set()
            ward.rotate(incident=True)

    assert ward.reseal(watch=watch).state == "finished"
    assert ward.states() == {1: "retired", 2: "retired", 3: "active"}
    assert ward.is_whole()


def test_pause_ends_the_worker_and_resume_lets_the_next_one_go_on(ward):
    ward.rotate()
    ward.query("select ward.pause_rotation('{slug}')")
    outcome = ward.reseal()
    assert (outcome.state, outcome.rows) == ("paused", 0)
    ward.query("select ward.pause_rotation('{slug}', false)")
    assert ward.reseal().state == "finished"


def test_value_that_does_not_open_is_named_and_keeps_its_key(ward):
    ward.query(
        "update sealed_{slug}.patients"
        " set ssn = set_byte(ssn, 20, 255 - get_byte(ssn, 20)) where id = 4 returning id"
    )
    ward.rotate()
    outcome = ward.reseal()
    assert (outcome.state, outcome.failed, outcome.fields) == ("failed", 1, ward.fields() - 1)
    assert ward.states()[1] == "decrypt-only"
    ((_, detail),) = ward.events("unopened")
    assert (detail["table"], detail["values"]) == ("patients", 1)


def test_stopped_worker_ends_after_its_batch_and_the_next_one_finishes(new_ward):
    ward = new_ward(3000)
    ward.rotate()
    stop = threading.Event()
    with ward.database.admin() as connection:
        outcome = run.reseal(connection, ward.slug, Throttle(), stop, watch=lambda progress: stop.set())
    assert outcome.state == "interrupted"
    assert 0 < outcome.rows < 3000
    assert outcome.rows + ward.reseal().rows == 3000
    assert ward.is_whole()


def test_rate_is_kept_to(ward):
    ward.rotate()
    with ward.database.admin() as connection:
        outcome = run.reseal(connection, ward.slug, Throttle(rate=2000), threading.Event())
    assert outcome.seconds >= ward.fields() / 2000 * 0.9


def test_of_many_who_rotate_at_once_one_wins(ward, cluster):
    """Each saw version 1; the others are told to look again, and nothing of theirs is left."""
    with open_orchestrator(ward, cluster) as reader:
        (tenant,) = reader.tenants([ward.slug])
    barrier, results = threading.Barrier(6), []

    def work() -> None:
        with open_orchestrator(ward, cluster) as orchestrator:
            barrier.wait()
            try:
                results.append(orchestrator.rotate(tenant, Request("at once", incident=True)))
            except RotationRunning as error:
                assert error.hint
                results.append(error.sqlstate)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["2", *["WK213"] * 5]
    assert ward.states() == {1: "decrypt-only", 2: "active"}


def test_of_two_workers_one_works(new_ward):
    ward = new_ward(3000)
    ward.rotate()
    started, outcomes = threading.Event(), []

    def work() -> None:
        with ward.database.admin() as connection:
            throttle, stop = Throttle(rate=2000), threading.Event()
            outcomes.append(run.reseal(connection, ward.slug, throttle, stop, watch=lambda _: started.set()))

    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(10)
    with pytest.raises(RotationRunning):
        ward.reseal()
    worker.join()
    assert [outcome.state for outcome in outcomes] == ["finished"]
    assert ward.is_whole()


def test_readers_and_writers_go_on_meanwhile(new_ward):
    ward = new_ward(3000)
    stop, errors, counts = threading.Event(), [], {"reads": 0, "writes": 0}

    def read() -> None:
        with ward.tenant() as connection:
            while not stop.is_set():
                rows = connection.execute("select id, ssn, birth_date from patients order by id").fetchall()
                if rows != [(row[0], row[2], row[3]) for row in ward.rows]:
                    errors.append("a reader saw something else")
                counts["reads"] += 1

    def write() -> None:
        with ward.tenant() as connection:
            for number in range(10**6):
                if stop.is_set():
                    return
                connection.execute(
                    "update patients set name = %s where id = %s", [f"N{number}", number % 3000 + 1]
                )
                counts["writes"] += 1

    def guarded(work) -> None:
        try:
            work()
        except psycopg.Error as error:
            errors.append(error.sqlstate)

    threads = [threading.Thread(target=guarded, args=[work]) for work in (read, write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            ward.rotate()
            assert ward.reseal(patience=20).state == "finished"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert min(counts.values()) > 0
    ward.rows = ward.read()
    assert ward.is_whole()


def open_orchestrator(ward, cluster) -> Orchestrator:
    return Orchestrator(ward.database.admin, cluster.home.orchestrator, threading.Event())
