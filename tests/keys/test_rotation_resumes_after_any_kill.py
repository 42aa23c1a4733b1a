"""kill -9 of whatever takes part, at any moment: the next run goes on, and every row opens.

On a server of its own that flushes to disk as a real one does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database
from wardkey.errors import WardError

from .wards import Ward, make_ward

ROWS = 4000


@pytest.fixture
def ward(own_database: Database) -> Ward:
    return make_ward(own_database, ROWS)


@pytest.fixture
def worker(ward: Ward) -> Iterator[subprocess.Popen[str]]:
    """The command, in the middle of resealing the ward's rows."""
    ward.rotate()
    command = _command(ward)
    arguments = command.command("keys", "reseal", ward.slug, "--rate", "4000", "--dsn", ward.database.dsn())
    process = subprocess.Popen(
        arguments, env=command.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _until(lambda: ward.fields() / 3 < _moved(ward), process)
    yield process
    process.kill()
    process.communicate()


def test_command_is_killed(ward, worker):
    worker.kill()
    worker.wait()
    _resumes(ward)


def test_command_is_interrupted_and_says_how_to_go_on(ward, worker):
    worker.send_signal(signal.SIGINT)
    output, errors = worker.communicate(timeout=10)
    assert worker.returncode == 130, errors
    assert f"wardkey keys reseal {ward.slug}" in output
    _resumes(ward)


def test_backend_is_killed(ward, worker):
    """PostgreSQL restarts all backends then."""
    query = "select pid from pg_stat_activity where application_name = 'wardkey keys'"
    ((pid,),) = ward.query(query)
    os.kill(pid, signal.SIGKILL)
    _, errors = worker.communicate(timeout=20)
    assert worker.returncode in (1, 3)
    assert "error: " in errors
    assert "Traceback" not in errors
    _resumes(ward)


def test_keeper_is_killed_and_the_command_goes_on_by_itself(ward, worker):
    cluster = ward.database.cluster
    cluster.keeper.process.signal(signal.SIGKILL)
    output, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, output + errors
    assert ward.is_whole()


def test_keeper_stays_away(ward, worker):
    cluster = ward.database.cluster
    cluster.keeper.stop()
    outcome = _command(ward)("keys", "pause", ward.slug, "--dsn", ward.database.dsn())
    assert "paused" in outcome.stdout
    output, _ = worker.communicate(timeout=60)
    assert (worker.returncode, "paused" in output) == (1, True)
    ward.query("select ward.pause_rotation('{slug}', false)")
    cluster.start()
    _resumes(ward)


def test_postgresql_is_killed(ward, worker):
    """Batches are committed without waiting for the disk: the last ones may be lost, no row with them."""
    cluster = ward.database.cluster
    pid = int((cluster.home.data / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
    worker.communicate(timeout=20)
    assert worker.returncode in (1, 3)
    cluster.start()
    _resumes(ward)


def _resumes(ward: Ward) -> None:
    """Begin the command again and look at every row."""
    _until(lambda: _answers(ward), None)
    assert ward.read() == ward.rows
    already = _moved(ward)
    done = _command(ward)("keys", "reseal", ward.slug, "--rate", "0", "--json", "--dsn", ward.database.dsn())
    assert '"finished"' in done.stdout
    assert 0 < already < ward.fields()
    assert ward.states() == {1: "retired", 2: "active"}
    assert ward.is_whole()


def _command(ward: Ward) -> Wardkey:
    return Wardkey(ward.database.cluster.home.path)


def _moved(ward: Ward) -> int:
    (row,) = ward.query("select fields from ward.rotations where slug = '{slug}'")
    fields: int = row[0]
    return fields


def _answers(ward: Ward) -> bool:
    try:
        ward.read()
    except (psycopg.Error, WardError):
        return False
    return True


def _until(condition: Callable[[], bool], process: subprocess.Popen[str] | None) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
