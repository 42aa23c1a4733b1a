"""Resealing at the socket: right keys only, bounded memory, and nobody waits for somebody else's fields."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from wardkey_core import keeper_client as client
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import ColumnKey
from wardkey_core.errors import KeyRefused
from wardkey_core.wire import MAX_FIELDS, frame

from tests.support.keepers import (
    ACME,
    GLOBEX,
    Keeper,
    field,
    reseal_over,
    stranger_asks,
)
from wardkey.daemon.privileges import LAST
from wardkey.keeper import server

COLUMN = bytes(range(16))
CLASSES = {"clinical": 3}
RESEAL_THRICE = """
import json, socket, sys
from tests.support.keepers import reseal_over
keys, fields = json.loads(sys.argv[2]), sys.stdin.buffer.read()
for _ in range(3):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])
        assert len(reseal_over(connection, keys, fields)) == 300_000
"""


@pytest.fixture
def keeper(shared_keeper: Keeper) -> Keeper:
    return shared_keeper


@pytest.fixture
def keys(keeper: Keeper) -> list[dict[str, Any]]:
    return [keeper.key(version=1), keeper.key(version=2)]


def column_key(keeper: Keeper, key: dict[str, Any]) -> ColumnKey:
    return ColumnKey(keeper.class_key(key), UUID(ACME).bytes, 3, key["version"], COLUMN)


def rows(key: ColumnKey, number: int, plaintext: bytes = b"2026-01-01 plain") -> bytes:
    ids = (row.to_bytes(8, "big") for row in range(number))
    return b"".join(field(COLUMN, row, key.seal(plaintext, row, os.urandom(12))) for row in ids)


def memory(keeper: Keeper, name: str = "VmHWM") -> int:
    """Return MiB."""
    status = Path(f"/proc/{keeper.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) // 1024


def test_values_come_back_under_the_new_version(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    old, new = (column_key(keeper, key) for key in keys)
    answer = keeper.reseal(keys, rows(old, 1000))
    for row, value in enumerate(answer):
        assert new.open(value, row.to_bytes(8, "big")) == b"2026-01-01 plain"
    assert len(answer) == 1000
    assert keeper.reseal(keys, b"") == []


def test_the_thread_that_reseals_lets_backends_have_the_cpu(
    keeper: Keeper, keys: list[dict[str, Any]]
) -> None:
    keeper.reseal(keys, rows(column_key(keeper, keys[0]), 1))
    threads = [int(task.name) for task in Path(f"/proc/{keeper.pid}/task").iterdir()]
    nice = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert nice == {os.getpriority(os.PRIO_PROCESS, keeper.pid), LAST}


def test_values_of_derived_keys_do_too(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    master = keeper.key(str(UUID(int=0)), version=2)
    kept = {name: master[name] for name in ("kek", "kek_version", "wrapped")}
    made = keeper.ask(op="derive", tenant=ACME, version=3, master=2, **kept)
    derived = {"version": 3, "master": 2, **kept, **made}
    [value] = keeper.reseal([keys[0], derived], rows(column_key(keeper, keys[0]), 1), to=3)
    assert column_key(keeper, derived).open(value, bytes(8)) == b"2026-01-01 plain"


def test_what_does_not_open_leaves_the_rest_alone(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    old, new = (column_key(keeper, key) for key in keys)
    good, row = old.seal(b"", b"row", bytes(12)), b"row"
    foreign = ColumnKey(bytes(32), UUID(GLOBEX).bytes, 3, 1, COLUMN).seal(b"x", row, bytes(12))
    bad = [good[:-1], good[:20], b"", good[:-1] + bytes((good[-1] ^ 1,)), foreign, os.urandom(50)]
    fields = b"".join(field(COLUMN, row, value) + field(COLUMN, row, good) for value in bad)
    answer = keeper.reseal(keys, fields)
    assert answer[::2] == [b""] * len(bad)
    assert all(new.open(value, row) == b"" for value in answer[1::2])


def test_a_key_of_another_tenant_is_refused_and_the_connection_goes_on(
    keeper: Keeper, keys: list[dict[str, Any]]
) -> None:
    fields = rows(column_key(keeper, keys[0]), 20_000)
    with keeper.connect() as connection:
        with pytest.raises(KeyRefused):
            reseal_over(connection, keys, fields, tenant=GLOBEX)
        assert len(reseal_over(connection, keys, fields)) == 20_000
        with pytest.raises(Unsupported, match="not framed"):
            reseal_over(connection, keys, os.urandom(300_000))
        with pytest.raises(Unsupported, match="not framed"):
            reseal_over(connection, keys, fields[:-1])
        assert len(reseal_over(connection, keys, fields)) == 20_000
        connection.sendall(frame({"op": "status"}))
        assert (client.receive(connection) or {})["ok"] is True
    assert "internal" not in keeper.errors


def test_too_much_is_refused_before_it_is_read(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    for length in (MAX_FIELDS + 1, -1, True, "1"):
        with pytest.raises(Unsupported, match="length"):
            keeper.ask(op="reseal", tenant=ACME, to=2, keys=keys, classes=CLASSES, length=length)
    for wrong in ([keys[0]], [keys[0], *keys]):
        with pytest.raises(Unsupported, match="each version once"):
            keeper.ask(op="reseal", tenant=ACME, to=2, keys=wrong, classes=CLASSES, length=0)
    with pytest.raises(Unsupported, match="number of its own"):
        keeper.ask(op="reseal", tenant=ACME, to=2, keys=keys, classes={"a": 1, "b": 1}, length=0)


def test_it_is_logged_once_for_a_peer_tenant_and_version(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    def lines() -> list[tuple[Any, ...]]:
        logged = [
            line for line in keeper.log_lines() if line["op"] == "reseal" and line["pid"] == os.getpid()
        ]
        return [(line["outcome"], line["tenant"], line["version"]) for line in logged]

    fields, three = rows(column_key(keeper, keys[0]), 3), keeper.key(version=33)
    before = len(lines())
    for _ in range(5):
        keeper.reseal([keys[0], three], fields, to=33)
    assert lines()[before:] == [("resealed", ACME, 33)]
    log = (keeper.directory / "release.log").read_text() + keeper.errors
    assert "plain" not in log and base64.b64encode(keeper.class_key(keys[0])).decode() not in log


@pytest.mark.parametrize("sent", [0, 10, 500_000])
def test_who_hangs_up_midway_holds_up_nobody(keeper: Keeper, keys: list[dict[str, Any]], sent: int) -> None:
    fields = rows(column_key(keeper, keys[0]), 10_000)
    request: dict[str, Any] = {"op": "reseal", "tenant": ACME, "to": 2, "keys": keys, "classes": CLASSES}
    request["length"] = len(fields)
    for _ in range(5):
        with keeper.connect() as connection:
            connection.sendall(frame(request) + fields[:sent])
        with keeper.connect() as connection:  # or does not take the answer
            connection.sendall(frame(request) + fields)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    begin = time.monotonic()
    assert len(keeper.reseal(keys, fields)) == 10_000
    assert time.monotonic() - begin < 2
    assert "internal" not in keeper.errors


def test_who_sends_nothing_loses_his_turn(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    fields = rows(column_key(keeper, keys[0]), 100)
    request: dict[str, Any] = {"op": "reseal", "tenant": ACME, "to": 2, "keys": keys, "classes": CLASSES}
    request["length"] = len(fields)
    with keeper.connect(30) as silent:
        silent.sendall(frame(request) + fields[:-1])
        time.sleep(0.1)
        begin = time.monotonic()
        assert len(keeper.reseal(keys, fields)) == 100
        assert server.FRAME_SECONDS - 1 < time.monotonic() - begin < server.FRAME_SECONDS + 2
        assert silent.recv(1) == b""


def test_other_users_may_not(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    keeper.base.chmod(0o755)
    keeper.socket.chmod(0o666)
    request = {"op": "reseal", "tenant": ACME, "to": 2, "keys": keys, "length": 0}
    answer = stranger_asks(keeper, request)
    assert answer and answer["sqlstate"] == "WK103"


def test_a_release_does_not_wait_for_a_big_reseal(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    fields, request = rows(column_key(keeper, keys[0]), 300_000), keeper.provision(GLOBEX)
    seconds: list[float] = []

    def work() -> None:
        begin = time.monotonic()
        command = [sys.executable, "-c", RESEAL_THRICE, str(keeper.socket), json.dumps(keys)]
        subprocess.run(command, input=fields, check=True)
        seconds.append(time.monotonic() - begin)

    thread = threading.Thread(target=work)
    thread.start()
    waits: list[float] = []
    with keeper.connect() as connection:
        while thread.is_alive():
            begin = time.monotonic()
            connection.sendall(frame(request))
            assert (client.receive(connection) or {})["ok"]
            waits.append(time.monotonic() - begin)
            time.sleep(0.005)
    thread.join()
    one = seconds[0] / 3
    assert max(waits) < one / 2 and sorted(waits)[len(waits) * 95 // 100] < one / 10


def test_many_big_batches_at_once_take_the_memory_of_one(new_keeper: Keeper) -> None:
    keeper = new_keeper.start()
    keys = [keeper.key(version=1), keeper.key(version=2)]
    old, new = (column_key(keeper, key) for key in keys)
    plaintext = os.urandom(20_000_000)
    value = field(COLUMN, b"row", old.seal(plaintext, b"row", bytes(12)))
    before = memory(keeper)
    failures: list[BaseException] = []

    def one() -> None:
        try:
            assert [new.open(each, b"row") == plaintext for each in keeper.reseal(keys, value * 3)] == [
                True
            ] * 3
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert memory(keeper) - before < 60 + 4 * 20 + 40
    deadline = time.monotonic() + 60
    while memory(keeper, "VmRSS") - before >= 60:  # the last answer is freed once its connection is closed
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_announced_and_not_sent_costs_no_memory(keeper: Keeper, keys: list[dict[str, Any]]) -> None:
    before = memory(keeper, "VmRSS")
    request = {"op": "reseal", "tenant": ACME, "to": 2, "keys": keys, "length": MAX_FIELDS}
    connections = [keeper.connect() for _ in range(20)]
    for connection in connections:
        connection.sendall(frame(request) + b"x")
    time.sleep(0.3)
    assert memory(keeper, "VmRSS") - before < 60
    for connection in connections:
        connection.close()
    assert keeper.reseal(keys, b"") == []
