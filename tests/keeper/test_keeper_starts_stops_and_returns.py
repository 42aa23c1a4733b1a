"""One keeper for a directory and a socket; it stops cleanly, and whatever ended it, the next one goes on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import tokens
from tests.support.keepers import Keeper, is_root


def refused_start(keeper: Keeper, *options: str) -> str:
    assert keeper.launch(*options).wait(10) != 0
    return keeper.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(keeper: Keeper, number: signal.Signals) -> None:
    with keeper.connect() as idle:
        begin = time.monotonic()
        assert keeper.stop(number) == 0
        assert time.monotonic() - begin < 3
        assert not keeper.socket.exists()
        assert idle.recv(1) == b""
    assert "Traceback" not in keeper.errors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_its_successor_opens_the_same_keys(keeper: Keeper, number: signal.Signals) -> None:
    request = keeper.provision()
    dek = keeper.ask(**request)["classes"]["clinical"]
    keeper.stop(number)
    assert keeper.start().ask(**request)["classes"]["clinical"] == dek
    assert keeper.provision()["kek"] == request["kek"]


def test_a_stop_finishes_what_is_being_answered(keeper: Keeper) -> None:
    request = keeper.provision()
    keeper.break_kms()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(keeper.ask, **request)
        time.sleep(0.1)  # within the pauses between attempts
        keeper.mend_kms()
        assert keeper.stop() == 0
        assert asking.result()["classes"]["clinical"]


def test_a_living_keeper_is_not_replaced(keeper: Keeper) -> None:
    other = Keeper()
    try:
        other.socket = keeper.socket
        assert "a keeper already runs at" in refused_start(other)
    finally:
        other.remove()
    first = keeper.process
    assert first
    second = keeper.socket
    keeper.socket = keeper.base / "second"
    assert "a keeper already runs with" in refused_start(keeper)
    keeper.socket, keeper.process = second, first
    assert keeper.status()["pid"] == first.pid


def test_a_file_in_the_sockets_place_is_left_alone(new_keeper: Keeper) -> None:
    new_keeper.socket.write_text("precious")
    assert "is not a socket" in refused_start(new_keeper)
    assert new_keeper.socket.read_text() == "precious"


def test_a_path_that_is_too_long_is_said_so(new_keeper: Keeper) -> None:
    new_keeper.socket = new_keeper.base / ("s" * 100)
    assert "107 bytes" in refused_start(new_keeper)


def test_the_socket_is_of_its_mode_from_the_first_moment(new_keeper: Keeper) -> None:
    process = new_keeper.launch()
    modes: set[int] = set()
    with socket.socket(socket.AF_UNIX):
        while process.poll() is None and len(modes) < 1:
            try:
                modes.add(new_keeper.socket.stat().st_mode & 0o777)
            except FileNotFoundError:
                continue
    assert modes == {0o660}
    assert [path.name for path in new_keeper.base.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_directory_open_to_others_is_refused(new_keeper: Keeper, mode: int) -> None:
    new_keeper.directory.chmod(mode)
    assert "open to other users" in refused_start(new_keeper)


def test_a_root_key_open_to_others_is_refused(keeper: Keeper) -> None:
    keeper.stop()
    (keeper.directory / "root.key").chmod(0o640)
    assert "root.key is open to other users" in refused_start(keeper)


def test_a_lost_root_key_is_not_replaced(keeper: Keeper) -> None:
    keeper.provision()
    keeper.stop()
    (keeper.directory / "root.key").unlink()
    assert "root.key is missing" in refused_start(keeper)
    assert not (keeper.directory / "root.key").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--kms", "vault://x"),
        ("--kms", "local:elsewhere"),
        ("--ttl", "0"),
        ("--ttl", "x"),
        ("--run-as", "me"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(new_keeper: Keeper, options: tuple[str, ...]) -> None:
    errors = refused_start(new_keeper, *options)
    assert "Traceback" not in errors and errors.strip()


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_started_by_root_it_becomes_its_user_and_imports_nothing_then(new_keeper: Keeper) -> None:
    script = (
        "import os, sys\n"
        "become = os.setresuid\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None): print('IMPORT', name, file=sys.stderr)\n"
        "def setresuid(*ids): become(*ids); sys.meta_path.insert(0, Finder())\n"
        "os.setresuid = setresuid\n"
        "from wardkey.keeper.__main__ import SERVICE\n"
        "sys.exit(SERVICE.main(sys.argv[1:]))\n"
    )
    os.chown(new_keeper.directory, 65534, 65534)
    new_keeper.base.chmod(0o777)
    new_keeper.trust(tokens.document())
    new_keeper.extra_groups = [0, 4, 6]  # adm and disk read more than a keeper should
    keeper = new_keeper.start("--run-as", "65534:65534", "--allow-uid", "0", program=("-c", script))
    request = keeper.provision()
    now = int(time.time())
    for alg in tokens.ALGORITHMS:
        token = tokens.good(alg, tenant_id=request["tenant"], iat=now, nbf=now, exp=now + 60)
        assert keeper.ask(**{**request, "token": token})
    status = subprocess.run(["cat", f"/proc/{keeper.pid}/status"], capture_output=True, text=True).stdout
    assert "Uid:\t65534\t65534\t65534\t65534" in status and "Gid:\t65534\t65534\t65534\t65534" in status
    assert "Groups:\t \n" in status
    assert "IMPORT" not in keeper.errors
    assert (keeper.directory / "root.key").stat().st_uid == 65534
    assert keeper.stop() == 0


def test_it_gets_the_cpu_before_a_hundred_backends_if_that_is_allowed(keeper: Keeper) -> None:
    trial = [sys.executable, "-c", "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"]
    allowed = subprocess.run(trial, stderr=subprocess.DEVNULL).returncode == 0
    assert (os.getpriority(os.PRIO_PROCESS, keeper.pid) == -10) == allowed
