"""Whatever the keeper does: one clear error within the deadline, and a cancel at once."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from wardkey_core.administration import BY_SQLSTATE
from wardkey_core.errors import KeeperBusy, KeeperUnavailable, KeyRefused, OpenFailed, TokenExpired, WardError
from wardkey_core.wire import MAX_FRAME
from wardkey_pg.keeper import KeeperClient
from wardkey_pg.keyring import WrappedKey

from tests.support.backend import ACME, SocketKeeper, frame

TIMEOUT = 0.4
KEY = WrappedKey(1, "active", "k", "1", b"wrapped", b"")
Answer = Callable[[dict[str, Any], socket.socket], bytes | None]


class Cancelled(Exception):
    pass


def nothing() -> None:
    pass


def ask(path: str, interrupts: Callable[[], None] = nothing, timeout: float = TIMEOUT) -> bytes:
    return KeeperClient(path, timeout, interrupts).release(ACME, KEY, "token", ["c"])[0]["c"]


def hang(_: dict[str, Any], connection: socket.socket) -> None:
    connection.recv(1)  # until the client hangs up


def trickle(_: dict[str, Any], connection: socket.socket) -> None:
    connection.sendall((60_000).to_bytes(4, "big"))
    while True:  # never silent for long, never done
        connection.sendall(b" ")
        time.sleep(0.01)


def half(_: dict[str, Any], connection: socket.socket) -> None:
    connection.sendall(frame({"ok": True, "classes": {}})[:9])


@pytest.mark.parametrize("answer", [hang, trickle])
def test_no_answer_in_time_is_an_error_in_time(answer: Answer) -> None:
    with SocketKeeper(answer) as keeper:
        began = time.monotonic()
        with pytest.raises(KeeperUnavailable, match="in time"):
            ask(keeper.path)
        assert time.monotonic() - began < TIMEOUT + 0.5


def test_an_answer_is_found_past_the_deadline() -> None:
    """A backend that got no CPU for long has its answer, whatever the clock says."""

    def late(_: dict[str, Any], connection: socket.socket) -> bytes:
        time.sleep(TIMEOUT / 2)
        return frame({"ok": True, "classes": {"c": "eA=="}, "masked": []})

    looks = 0

    def starved() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            time.sleep(2 * TIMEOUT)

    with SocketKeeper(late) as keeper:
        assert ask(keeper.path, starved) == b"x"


def test_a_keeper_that_is_busy_or_goes_is_asked_again() -> None:
    busy = {"ok": False, "sqlstate": "WK113", "message": "too many", "hint": None}

    def answer(_: dict[str, Any], connection: socket.socket) -> bytes:
        return [
            frame(busy),
            b"",
            frame(b"half")[:5],
            frame({"ok": True, "classes": {"c": "eA=="}, "masked": []}),
        ][len(keeper.requests) - 1]

    with SocketKeeper(answer) as keeper:
        assert ask(keeper.path, timeout=60) == b"x"
        assert len(keeper.requests) == 4
    with SocketKeeper(lambda request, _: frame(busy)) as keeper, pytest.raises(KeeperBusy):
        ask(keeper.path)
    assert len(keeper.requests) > 1


@pytest.mark.parametrize("answer", [hang, trickle])
def test_a_cancel_gets_through_at_once(answer: Answer) -> None:
    looks = 0

    def interrupts() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise Cancelled

    with SocketKeeper(answer) as keeper:
        began = time.monotonic()
        with pytest.raises(Cancelled):
            ask(keeper.path, interrupts, timeout=30)
        assert time.monotonic() - began < 2


def test_no_socket_is_an_error_at_once(tmp_path: Any) -> None:
    began = time.monotonic()
    for path in (str(tmp_path / "none"), str(tmp_path), "", "/dev/null", "x" * 200):
        with pytest.raises(KeeperUnavailable) as caught:
            ask(path, timeout=30)
        assert caught.value.hint
    assert time.monotonic() - began < 1


def test_a_socket_nobody_listens_at_is_an_error_at_once(tmp_path: Any) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "s"))
    left.close()
    with pytest.raises(KeeperUnavailable):
        ask(str(tmp_path / "s"), timeout=30)


def test_a_full_queue_is_waited_for_until_the_deadline(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with socket.socket(socket.AF_UNIX) as second:
            second.setblocking(False)
            second.connect_ex(path)
            began = time.monotonic()
            with pytest.raises(KeeperUnavailable):
                ask(path)
            assert TIMEOUT * 0.5 < time.monotonic() - began < TIMEOUT * 2 + 0.5


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        (MAX_FRAME + 1).to_bytes(4, "big") + b" " * 100,
        b"HTTP/1.1 200 OK\r\n\r\n",
        frame(b"x"),
        frame(b"\xff\xfe"),
        frame(b"[" * 60_000),
        frame(b"1" * 60_000),
        frame(b"null"),
        frame(b"true"),
        frame(b'"ok"'),
        frame(b"[]"),
        frame(b"{}"),
        frame({"ok": True}),
        frame({"ok": True, "classes": None, "masked": []}),
        frame({"ok": True, "classes": {}}),
        frame({"ok": True, "classes": {}, "masked": [1]}),
        *(
            frame({"ok": True, "masked": [], "classes": {"c": key}})
            for key in (None, 5, ["x"], "not base64!", "ÄÄÄÄ")
        ),
    ],
    ids=lambda garbage: repr(garbage[:24]),
)
def test_garbage_is_one_clear_error(garbage: bytes) -> None:
    with SocketKeeper(lambda request, _: garbage) as keeper, pytest.raises(KeeperUnavailable) as caught:
        ask(keeper.path)
    assert caught.value.sqlstate == "WK102"
    assert caught.value.message in ("the keeper gave an answer that is not one", "the keeper hung up")
    assert caught.value.__cause__ is None


def test_half_an_answer_is_none() -> None:
    with SocketKeeper(half) as keeper, pytest.raises(KeeperUnavailable, match="hung up"):
        ask(keeper.path)


@pytest.mark.parametrize(
    "garbage",
    [
        {},
        {"version": None},
        {"version": "x"},
        {"version": [1]},
        {"version": 0},
        {"version": -1},
        {"version": 2**40},
        {"version": 1.5},
        {"version": True},
        {"kek": 5},
        {"kek_version": None},
        {"wrapped": "?"},
        {"wrapped": None},
        {"commitment": 5},
    ],
    ids=repr,
)
def test_garbage_for_a_new_tenants_key_is_one_clear_error(garbage: dict[str, Any]) -> None:
    whole = {
        "ok": True,
        "version": 1,
        "kek": "k",
        "kek_version": "1",
        "wrapped": "eA==",
        "commitment": "eA==",
    }
    answer = {**whole, **garbage} if garbage else {"ok": True}
    refused = pytest.raises(KeeperUnavailable, match="not one")
    with SocketKeeper(lambda request, _: frame(answer)) as keeper, refused:
        KeeperClient(keeper.path, TIMEOUT, nothing).provision(ACME, 1, None, None, "default")


def test_a_good_answer_for_a_new_tenants_key() -> None:
    answer = {
        "ok": True,
        "version": 1,
        "kek": "k",
        "kek_version": "2",
        "wrapped": "eA==",
        "commitment": "eQ==",
    }
    with SocketKeeper(lambda request, _: frame(answer)) as keeper:
        made = KeeperClient(keeper.path, TIMEOUT, nothing).provision(ACME, 1, None, None, "default")
    assert made == ("k", "2", b"x", b"y")
    assert keeper.requests == [{"op": "provision", "tenant": ACME, "version": 1}]


@pytest.mark.parametrize("cls", [KeyRefused, TokenExpired, OpenFailed, KeeperUnavailable])
def test_a_refusal_keeps_its_class_message_and_hint(cls: type[WardError]) -> None:
    answer = {"ok": False, "sqlstate": cls.sqlstate, "message": "no", "hint": "do this"}
    with SocketKeeper(lambda request, _: frame(answer)) as keeper, pytest.raises(cls) as caught:
        ask(keeper.path)
    assert (type(caught.value), caught.value.message, caught.value.hint) == (cls, "no", "do this")


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False},
        {"ok": 1},
        {"ok": "true", "classes": {}, "masked": []},
        {"ok": None},
        {"ok": False, "sqlstate": "00000"},
        {"ok": False, "sqlstate": ["WK101"]},
        {"ok": False, "sqlstate": None, "message": 5, "hint": {}},
    ],
    ids=json.dumps,
)
def test_an_unclear_refusal_is_a_refusal(answer: dict[str, Any]) -> None:
    with SocketKeeper(lambda request, _: frame(answer)) as keeper, pytest.raises(KeyRefused):
        ask(keeper.path)


def test_a_long_message_is_cut() -> None:
    answer = {"ok": False, "sqlstate": "WK103", "message": "m" * 9999, "hint": "h" * 9999}
    with SocketKeeper(lambda request, _: frame(answer)) as keeper, pytest.raises(KeyRefused) as caught:
        ask(keeper.path)
    assert (len(caught.value.message), len(caught.value.hint or "")) == (500, 500)


def test_answers_come_in_any_pieces() -> None:
    dek = bytes(range(32))

    def pieces(_: dict[str, Any], connection: socket.socket) -> None:
        for byte in frame({"ok": True, "classes": {"c": base64.b64encode(dek).decode()}, "masked": []}):
            connection.sendall(bytes([byte]))

    with SocketKeeper(pieces) as keeper:
        assert ask(keeper.path, timeout=5) == dek


def test_every_condition_has_its_class() -> None:
    assert BY_SQLSTATE["WK102"] is KeeperUnavailable and BY_SQLSTATE["WK103"] is KeyRefused
