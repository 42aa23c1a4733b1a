"""A service's lines carry stable names of events; it reloads, and tells systemd that it lives."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Wardkey
from wardkey.daemon.lines import EVENTS, Line, reporter
from wardkey.daemon.units import SERVICES, USERS, install, units, users

ROOT = Path(__file__).parents[2]
ROOMS = ("keeper", "scribe", "publisher", "cache", "gateway", "daemon")


def _reports() -> Iterator[tuple[str, ast.Call]]:
    for room in ROOMS:
        for path in (ROOT / "src/wardkey" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
                    "report",
                    "_report",
                ):
                    yield f"{path.name}:{node.lineno}", node


def _event(call: ast.Call) -> str | None:
    match call.args:
        case [ast.Call(func=ast.Name(id="Line"), args=[ast.Constant(value=str() as event), _])]:
            return event
    return None


def test_every_line_has_an_event_and_every_event_a_line() -> None:
    events = {place: _event(call) for place, call in _reports() if "_administration" not in ast.unparse(call)}
    assert len(events) > 40
    assert {place for place, event in events.items() if event not in EVENTS} == set()
    assert set(events.values()) == EVENTS.keys()


def test_the_page_has_every_event() -> None:
    page = (ROOT / "docs/operations/logs.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.M))
    assert rows == {name: f"{level} | {meaning}" for name, (level, meaning) in EVENTS.items()}


def test_a_line_is_text_or_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    reporter("keeper")(Line("ready", "at last"))
    assert capsys.readouterr().err.endswith(" keeper: at last\n")
    reporter("keeper", "json")(Line("kms_failed", 'a "quote"\nand a line'))
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.keys() == {"time", "level", "service", "event", "message"}
    assert (told["level"], told["event"], told["message"]) == ("error", "kms_failed", 'a "quote"\nand a line')


@contextmanager
def _running(*words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[str], Any]]]:
    """Yield a service, and what waits for a line with an event and returns it."""
    command = [sys.executable, "-m", *words, "--log-format", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)

    def wait_for(event: str) -> Any:
        assert process.stderr is not None
        for line in process.stderr:
            if (told := json.loads(line))["event"] == event:
                return told
        raise AssertionError(f"it ended, and never said {event}")

    try:
        yield process, wait_for
        process.send_signal(signal.SIGTERM)
        wait_for("stopped")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def test_the_keeper_tells_the_watchdog_and_reloads(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        keeper = ("wardkey.keeper", "--directory", str(tmp_path / "k"), "--socket", str(tmp_path / "s"))
        notify = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with _running(*keeper, **notify) as (process, wait_for):
            assert wait_for("ready")["service"] == "keeper"
            told = [systemd.recv(99) for _ in range(4)]
            assert sorted(told) == [b"READY=1"] + 3 * [b"WATCHDOG=1"]
            process.send_signal(signal.SIGHUP)
            wait_for("reloaded")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))  # it still serves


def test_another_process_watchdog_is_not_ours(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        keeper = ("wardkey.keeper", "--directory", str(tmp_path / "k"), "--socket", str(tmp_path / "s"))
        notify = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
        with _running(*keeper, **notify) as (_, wait_for):
            wait_for("ready")
            systemd.settimeout(60)
            assert systemd.recv(99) == b"READY=1"
        systemd.setblocking(False)
        with pytest.raises(BlockingIOError):
            systemd.recv(99)


def test_the_scribe_begins_again_when_it_is_to_reload(tmp_path: Path) -> None:
    """There is no server here: it waits for one."""
    words = ("wardkey.scribe", "--dsn", f"host={tmp_path} dbname=x", "--keeper", str(tmp_path / "s"))
    with _running(*words) as (process, wait_for):
        wait_for("sealing_failed")
        process.send_signal(signal.SIGHUP)
        wait_for("reloaded")
        assert wait_for("sealing_failed")["service"] == "scribe"


def test_units_are_written_once_and_say_how_to_reload(tmp_path: Path) -> None:
    wardkey = Wardkey(tmp_path / "home")
    words = ("service", "install", *SERVICES, "--directory", str(tmp_path), "--log-format", "json")
    assert {row["state"] for row in wardkey.json(*words)} == {"written"}
    (tmp_path / "wardkey-scribe.service").write_text("altered")
    changed = {row["file"]: row["state"] for row in wardkey.json(*words)}
    assert changed.pop("wardkey-scribe.service") == "written" and set(changed.values()) == {"unchanged"}
    for service in SERVICES:
        path = tmp_path / f"wardkey-{service}.service"
        text = path.read_text()
        assert "ExecReload=/bin/kill -HUP $MAINPID\n" in text and path.stat().st_mode & 0o777 == 0o644
        assert ("WatchdogSec=" in text) == ("Type=notify" in text)
        assert re.search(r"^ExecStart=.* --log-format json$", text, re.M)
    assert install(units("keeper", log_format="json"), tmp_path) == []


def test_the_users_that_units_name_are_made(tmp_path: Path) -> None:
    """By systemd-sysusers, in a root of its own. The proxy's group is Debian's."""
    (tmp_path / "etc").mkdir()
    (tmp_path / USERS).write_text(users())
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(tmp_path / USERS)], check=True)
    made = {line.split(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = dict(re.findall(r"(?m)^([^:]+):.*:([^:]*)$", (tmp_path / "etc/group").read_text()))
    for service in SERVICES:
        (text,) = units(service).values()
        (user,) = re.findall("(?m)^User=(.*)$", text)
        assert {user, *re.findall(r"--(?:allow|scribe|status)-uid (\S+)", text)} <= made
        for group in re.findall("(?m)^SupplementaryGroups=(.*)$", text):
            assert group == "www-data" or user in groups[group].split(",")
    assert "postgres" in groups["ward-socket"].split(",")
