"""After kill -9 of any part, a reboot or Ctrl-C, ``up`` gives a whole server with its data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.daemon.processes import Process
from wardkey.embedded import Cluster

_numbers = count(1)


@pytest.fixture
def wardkey(new_home) -> Wardkey:
    return Wardkey(new_home().path)


@pytest.fixture(scope="module")
def with_data(cluster: Cluster) -> Iterator[Wardkey]:
    """One home that the tests of this file crash in turn."""
    directory = make_directory(cluster.home.python)
    wardkey = Wardkey(directory / "home")
    facts = wardkey.json("up")
    with psycopg.connect(facts["dsn"]) as connection:
        connection.execute("create table kept as select 7 as number")
    yield wardkey
    throw_away(directory)


def whole(wardkey: Wardkey) -> bool:
    facts = wardkey.json("up")
    with psycopg.connect(facts["dsn"]) as connection:
        kept = connection.execute("select number from kept").fetchall()
    wardkey("tenant", "create", f"after{next(_numbers)}")  # needs server, extension and keeper
    return facts["running"] and kept == [(7,)]


@pytest.mark.parametrize("parts", [["postgres"], ["keeper"], ["postgres", "keeper"]])
def test_kill_nine(with_data, parts):
    facts = with_data.json("status")
    for part in parts:
        os.kill(facts[part]["pid"], signal.SIGKILL)
    if "postgres" in parts:
        while Process.of(facts["postgres"]["pid"]):  # it dies when the kernel comes to it
            time.sleep(0.01)
        assert with_data.json("status", code=3)["running"] is False
    assert whole(with_data)


def test_kill_nine_while_a_session_is_busy(with_data):
    facts = with_data.json("status")
    busy = subprocess.Popen(
        with_data.command("psql", "-c", "do $$ begin loop end loop; end $$"), stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    os.kill(facts["postgres"]["pid"], signal.SIGKILL)
    assert whole(with_data)
    assert busy.wait(timeout=30) != 0


def test_reboot_leaves_files_that_name_other_processes(with_data):
    facts = with_data.json("status")
    home = with_data.home
    for part in ("supervisor", "postgres", "keeper"):
        os.kill(facts[part]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Process.of(facts["postgres"]["pid"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    try:
        pid_file = home / "postgres" / "postmaster.pid"
        pid_file.write_text("\n".join([str(stranger.pid), *pid_file.read_text().splitlines()[1:]]))
        record = home / "supervisor" / "keeper.pid"
        record.write_text(" ".join([str(stranger.pid), *record.read_text().split()[1:]]))
        (home / "run" / f".s.PGSQL.{facts['port']}.lock").write_text(f"{stranger.pid}\n")
        assert with_data.json("status", code=3)["postgres"]["pid"] is None
        assert whole(with_data)
        with_data("down")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("made", ["lock", "python.new", "postgres.new", "postgres/postmaster.pid"])
def test_interrupted_up_is_completed_by_the_next(wardkey, made):
    if made == "python.new":  # while pip works
        shutil.rmtree(wardkey.home / "python")
    up = subprocess.Popen(wardkey.command("up"), stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (wardkey.home / made).exists() and up.poll() is None:
        time.sleep(0.01)
    os.killpg(up.pid, signal.SIGINT)
    _, stderr = up.communicate(timeout=60)
    assert up.returncode in (130, 0), stderr
    assert "Traceback" not in stderr
    assert wardkey.json("up")["running"]
    assert not (wardkey.home / "postgres.new").exists()  # a half-made one is thrown away
    wardkey("tenant", "create", "acme")


def test_damaged_configuration_is_an_error_with_a_hint(wardkey):
    (wardkey.home / "config.json").write_text("{")
    stderr = wardkey("up", code=1).stderr
    assert "config.json is damaged" in stderr
    assert "hint:" in stderr


def test_home_with_blanks_and_quotes_in_its_path(new_home):
    home = new_home().path
    odd = Wardkey(home.rename(home.with_name("a b'ö")))
    assert odd.json("up")["running"]
    odd("tenant", "create", "acme")
    query = ["psql", "--tenant", "acme", "--subject", "me", "-Atc", "select ward.subject()"]
    assert odd(*query).stdout == "me\n"
    odd("down")


@pytest.mark.parametrize("name", ["a,b", "a:b", 'a"b', "a$b"])
def test_home_whose_path_cannot_work_is_refused(tmp_path, name):
    wardkey = Wardkey(tmp_path / name)
    assert "not allowed" in wardkey("up", code=1).stderr


def test_home_too_long_for_a_socket_is_refused(tmp_path):
    wardkey = Wardkey(tmp_path / ("x" * 100))
    assert "too long" in wardkey("up", code=1).stderr
