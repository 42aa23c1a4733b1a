"""Keeper, scribe and publisher stand on wardkey.daemon, not on one another; systemd runs them as printed."""

from __future__ import annotations

import ast
import getpass
import grp
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import wardkey
from wardkey.daemon.appending import AppendFile
from wardkey.daemon.service import Backoff, ServiceError, Stop
from wardkey.daemon.units import SERVICES, units

ROOMS = ("keeper", "scribe", "publisher")  # the metrics service reads their lists of what is counted


@pytest.mark.parametrize("room", ROOMS)
def test_no_service_imports_another(room: str) -> None:
    directory = Path(wardkey.__file__).parent / room
    for file in directory.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                name = f"{'wardkey.' if node.level == 2 else ''}{node.module or ''}"
                names = {f"{name}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            else:
                continue
            for other in set(ROOMS) - {room}:
                assert not any(name.startswith(f"wardkey.{other}") for name in names), (file, names)


def test_printed_commands_start_the_services(tmp_path: Path) -> None:
    """Each takes its options: what it says then is of the database or file that is not there."""
    here = {
        "/var/lib/wardkey-keeper": str(tmp_path / "keeper"),
        "/var/lib/wardkey/publisher": str(tmp_path),
        "/var/lib/wardkey/invalidator": str(tmp_path),
        "/run/wardkey": str(tmp_path),
        "ward-socket": grp.getgrgid(os.getgid()).gr_name,
        "/etc/wardkey": str(tmp_path),
        "www-data": grp.getgrgid(os.getgid()).gr_name,
        "--allow-uid postgres": f"--allow-uid {getpass.getuser()}",
        "ward-scribe": getpass.getuser(),
        "--status-uid wardkey-metrics": f"--status-uid {getpass.getuser()}",
        "-m wardkey.metrics": "-m wardkey.metrics --port 0",
    }
    said = {
        "keeper": "ready at",
        "scribe": "No such file",
        "publisher": "there is no",
        "invalidator": "there is no",
        "gateway": "No such file",
        "metrics": "ready at",
    }
    for service in SERVICES:
        (text,) = units(service, dsn=f"host={tmp_path} dbname=wardkey").values()
        command = next(line for line in text.splitlines() if line.startswith("ExecStart="))
        for name, value in here.items():
            command = command.replace(name, value)
        log = tmp_path / f"{service}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                shlex.split(command.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%")),
                stderr=stream,
            )
        deadline = time.monotonic() + 60
        while said[service] not in log.read_text():
            assert time.monotonic() < deadline and process.poll() in (None, 1), log.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == (1 if service in ("publisher", "invalidator", "gateway") else 0), (
            log.read_text()
        )


def test_keeper_tells_systemd_that_it_serves(tmp_path: Path) -> None:
    script = (
        "import os, socket\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind(os.environ['NOTIFY_SOCKET'])\n"
        "from wardkey.daemon.service import tell_ready\n"
        "tell_ready(); print(s.recv(99).decode())\n"
    )
    for address in (str(tmp_path / "notify"), f"\0wardkey-test-{os.getpid()}"):
        shown = address.replace("\0", "@")
        bound = script.replace("os.environ['NOTIFY_SOCKET']", repr(address))
        done = subprocess.run(
            [sys.executable, "-c", bound],
            env={**os.environ, "NOTIFY_SOCKET": shown},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "READY=1\n"


def test_an_append_is_whole_and_a_torn_end_is_cut_off(tmp_path: Path) -> None:
    path, said = tmp_path / "lines", list[str]()
    file = AppendFile(path, said.append, print)
    file.append(b"one\n")
    with path.open("ab") as other:
        other.write(b"tw")
    with pytest.raises(ServiceError, match="length"):
        file.append(b"two\n")
    lines = list[bytes]()
    file = AppendFile(path, said.append, lines.append)
    assert lines == [b"one"] and file.count == len(said) == 1
    file.append(b"two\n")
    file.replace([b"three\n"])
    file.append(b"four\n")
    assert path.read_bytes() == b"three\nfour\n"
    with pytest.raises(ServiceError, match=r"line 2 of .* is damaged"):
        AppendFile(path, said.append, lambda line: None if line == b"three" else int(line))
    path.chmod(0o622)
    with pytest.raises(ServiceError, match="open to others"):
        AppendFile(path, said.append, print)


def test_a_stop_ends_every_wait_and_tries_come_later_and_later() -> None:
    stop, backoff = Stop(), Backoff(0.5, 3)
    assert [backoff.next() for _ in range(5)] == [0.5, 1, 2, 3, 3]
    backoff.reset()
    assert backoff.next() == 0.5
    assert not stop and not stop.wait(0)
    stop.set()
    before = time.monotonic()
    assert stop.wait(600) and stop.wait(600) and stop
    assert time.monotonic() - before < 60
