"""What was killed comes back by itself, once; a killed supervisor is replaced by ``up``; homes stay apart."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_down_leaves_no_process import facts_of, processes_of
from tests.support.cli import Wardkey
from tests.support.homes import make_directory, throw_away
from wardkey.daemon.processes import Process
from wardkey.embedded import Cluster, Home
from wardkey.embedded.parts import Part

PATIENCE = 60.0


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Cluster:
    cluster = Cluster(new_home(), settings={"fsync": "off"})
    cluster.start()
    return cluster


def back(part: Part, killed: Process) -> Process:
    """Wait for the process that comes in the place of ``killed`` and is at work."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        process = part.process
        if process and process != killed and part.is_at_work(process):
            return process
        time.sleep(0.02)
    raise AssertionError(f"the {part.name} does not come back")


def kill(part: Part) -> Process:
    process = part.process
    assert process
    process.signal(signal.SIGKILL)
    return process


def modules(home: Home) -> list[str]:
    """Which of our modules run in processes of this home."""
    said = [facts_of(process) for process in processes_of(home.path)]
    return sorted(word for words in said for word in words if word.startswith("wardkey.") and "-m" in words)


ALL = ["wardkey.daemon.supervisor", "wardkey.keeper", "wardkey.scribe"]


def test_killed_processes_come_back_by_themselves(home: Cluster) -> None:
    wardkey = Wardkey(home.home.path)
    keeper, scribe = kill(home.keeper), kill(home.scribe)
    back(home.keeper, keeper)
    scribe = back(home.scribe, scribe)
    assert modules(home.home) == ALL
    told = wardkey.json("status")["restarts"]
    assert [(told[name]["restarts"], told[name]["last_exit"]) for name in ("keeper", "scribe")] == [
        (1, "SIGKILL"),
        (1, "SIGKILL"),
    ]
    assert "restarted once" in wardkey("status").stdout
    if os.geteuid() == 0:  # the keeper gets the CPU first, also where the kernel groups processes by session
        for process, nice in ((home.keeper.process, -10), (scribe, 0)):
            assert process and os.getpriority(os.PRIO_PROCESS, process.pid) == nice
            group = Path(f"/proc/{process.pid}/autogroup")
            assert not group.exists() or group.read_text().endswith(f" nice {nice}\n")

    supervisor = home.supervision.supervisor
    assert supervisor
    supervisor.signal(signal.SIGKILL)
    while supervisor.alive:
        time.sleep(0.02)
    assert "supervisor  not running" in wardkey("status", code=3).stdout
    before = home.keeper.process
    home.start()
    assert (home.keeper.process, home.scribe.process) == (before, scribe), "taken over, not started again"
    assert before
    kill(home.keeper)  # no child of the new supervisor
    back(home.keeper, before)
    assert home.status().restarts["keeper"]["restarts"] == 2
    assert modules(home.home) == ALL

    supervisor = home.supervision.supervisor
    assert supervisor
    supervisor.signal(signal.SIGKILL)
    kill(home.scribe)
    home.stop()
    assert processes_of(home.home.path) == []


def test_what_cannot_start_is_not_tried_for_ever(home: Cluster) -> None:
    wardkey = Wardkey(home.home.path)
    home.keeper.stop()
    ledger = home.home.keeper / "ledger.jsonl"
    assert not home.home.keeper_socket.exists()
    for file in home.home.keeper.glob("*.jsonl"):
        file.unlink()
    ledger.mkdir()
    shutil.chown(ledger, home.home.keeper_user().uid)
    stderr = wardkey("up", code=1).stderr
    assert "the keeper does not start" in stderr
    assert "wardkey.keeper" not in modules(home.home)
    ledger.rmdir()
    assert wardkey.json("up")["running"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mount namespaces are root's")
def test_two_homes_of_one_path_do_not_end_each_other(cluster: Cluster) -> None:
    """As in two containers that see each other's processes: one path, two directories."""
    base, python = make_directory(), cluster.home.python
    sides = [base / "one", base / "two"]
    mount = base / "mounted"
    for directory in (*sides, mount):
        directory.mkdir(mode=0o755)
    for side in sides:
        shutil.copytree(python, side / "home" / "python", copy_function=os.link)

    def command(side: Path, *arguments: str) -> str:
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        inside = ["/bin/sh", "-c", script, "sh", str(side), str(mount)]
        inside += [sys.executable, "-m", "wardkey", "--home", str(mount / "home"), *arguments]
        done = subprocess.run(["unshare", "-m", *inside], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def running(side: Path) -> list[Process | None]:
        parts = ("keeper", "scribe", "supervisor")
        return [Process.recorded(side / "home" / "supervisor" / f"{part}.pid") for part in parts]

    try:
        command(sides[0], "up")
        first = running(sides[0])
        assert None not in first
        command(sides[1], "up")
        second = running(sides[1])
        assert None not in second and not set(first) & set(second)
        assert running(sides[0]) == first
        command(sides[1], "down")
        assert running(sides[0]) == first and running(sides[1]) == [None] * 3
        assert "running for" in command(sides[0], "status")
    finally:
        for side in sides:
            command(side, "down")
        throw_away(base)
