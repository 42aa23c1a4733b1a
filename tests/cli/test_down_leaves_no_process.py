"""``up`` starts all of it, ``down`` ends all of it, and two homes do not know of each other."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.daemon.processes import Process, find
from wardkey.embedded import Cluster, Home


def processes_of(home: Path) -> list[Process]:
    """Every process that works below ``home`` or names it in its arguments."""
    return find(lambda process: any(str(home) in said for said in facts_of(process)))


def facts_of(process: Process) -> list[str]:
    proc = Path(f"/proc/{process.pid}")
    with suppress(OSError):
        return [str((proc / "cwd").readlink()), *(proc / "cmdline").read_bytes().decode().split("\0")]
    return []


def pids(facts: dict) -> tuple[int, int]:
    return facts["postgres"]["pid"], facts["keeper"]["pid"]


@pytest.fixture(scope="module")
def wardkey(cluster: Cluster) -> Iterator[Wardkey]:
    """One home for the tests of this file: each brings it up."""
    directory = make_directory(cluster.home.python)
    yield Wardkey(directory / "home")
    throw_away(directory)


def test_down_leaves_no_process(wardkey):
    facts = wardkey.json("up")
    assert facts["running"]
    assert {process.pid for process in processes_of(wardkey.home)} >= set(pids(facts))
    assert wardkey.json("down") == {"home": str(wardkey.home), "stopped": True}
    assert processes_of(wardkey.home) == []
    assert list((wardkey.home / "run").iterdir()) == []
    assert wardkey.json("down") == {"home": str(wardkey.home), "stopped": False}


def test_down_ends_the_orphans_of_a_killed_postmaster(wardkey):
    facts = wardkey.json("up")
    busy = subprocess.Popen(
        wardkey.command("psql", "-c", "do $$ begin loop end loop; end $$"), stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    os.kill(facts["postgres"]["pid"], signal.SIGKILL)
    wardkey("down")
    assert busy.wait(timeout=30) != 0
    assert processes_of(wardkey.home) == []


def test_up_again_changes_nothing(wardkey):
    first = wardkey.json("up")
    second = wardkey.json("up")
    assert (pids(first), first["port"]) == (pids(second), second["port"])


def test_two_homes_side_by_side(wardkey, new_home):
    other = Wardkey(new_home().path)
    first, second = wardkey.json("up"), other.json("up")
    assert first["port"] != second["port"]
    wardkey("tenant", "create", "acme")
    other("tenant", "create", "acme", "globex")
    wardkey("down")
    assert processes_of(wardkey.home) == []
    assert pids(other.json("status")) == pids(second)
    assert len(other.json("tenant", "list")) == 2
    assert wardkey.json("up")["port"] == first["port"]


def test_port_moves_when_it_is_taken(wardkey):
    facts = wardkey.json("up")
    wardkey("down")
    with socket.create_server(("127.0.0.1", facts["port"])):
        moved = wardkey.json("up")
    assert moved["port"] != facts["port"]
    wardkey("tenant", "list")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs them as two OS users")
def test_server_and_keeper_cannot_read_each_other(wardkey):
    wardkey("up")
    home = Home(wardkey.home)
    server, keeper = home.server_user(), home.keeper_user()
    reading = ["/usr/bin/ls"]
    for user, directory in ((server, home.keeper), (server, home.issuer), (keeper, home.data)):
        done = subprocess.run(user.command([*reading, str(directory)]), capture_output=True, check=False)
        assert done.returncode != 0, (user, directory)
    # and the server cannot change the code it runs
    writable = subprocess.run(
        server.command(["/usr/bin/find", str(home.python), "-writable", "-not", "-type", "l"]),
        capture_output=True,
        check=True,
    )
    assert writable.stdout == b""


def test_status_without_a_home_makes_none(tmp_path):
    wardkey = Wardkey(tmp_path / "none")
    facts = json.loads(wardkey("--json", "status", code=3).stdout)
    assert (facts["made"], facts["running"]) == (False, False)
    wardkey("down")
    assert "wardkey up" in wardkey("tenant", "list", code=3).stderr
    assert not wardkey.home.exists()
