"""A client that sends nonsense, too much, too slowly or nothing is answered or cut off, and delays nobody."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from contextlib import suppress

import pytest
from wardkey_core import keeper_client as client
from wardkey_core.wire import MAX_FRAME, frame

from tests.support.keepers import ACME, Keeper
from wardkey.keeper import server


@pytest.fixture
def keeper(shared_keeper: Keeper) -> Keeper:
    return shared_keeper


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def answer_to(keeper: Keeper, data: bytes) -> dict[str, object] | None:
    """What the keeper answers to ``data``, after which it must hang up."""
    with keeper.connect() as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass
        answer = client.receive(connection)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        return answer


RELEASE = {
    "op": "release",
    "tenant": ACME,
    "version": 1,
    "kek": "local:x",
    "kek_version": "1",
    "wrapped": "AAAA",
    "commitment": "A" * 43 + "=",
    "classes": ["clinical"],
    "token": "t",
}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"status"',
        b"\xff\xfe",
        b"\0" * 100,
        b"{}",
        b'{"op": 1}',
        b'{"op": ["status"]}',
        b'{"op": "shutdown"}',
        b'{"op": "status", "op": "status"}',
        b'{"op": "status", "more": 1}',
        b"[" * 60_000,
        b'{"op":' * 10_000,
        b'{"op": "status"} trailing',
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        random.Random(1).randbytes(1000),
        *(
            json.dumps(RELEASE | change).encode()
            for change in (
                {"version": 0},
                {"version": True},
                {"version": "1"},
                {"version": 2**31},
                {"version": 1.0},
                {"kek": ""},
                {"kek": "a\nb"},
                {"kek": 1},
                {"kek_version": None},
                {"wrapped": ""},
                {"wrapped": "*"},
                {"wrapped": 1},
                {"token": 1},
                {"token": None},
                {"tenant": ACME + "\n"},
            )
        ),
    ],
    ids=lambda body: repr(body[:60]),
)
def test_nonsense_in_a_frame_is_answered_and_closed(keeper: Keeper, body: bytes) -> None:
    answer = answer_to(keeper, framed(body))
    assert answer is not None and answer["ok"] is False and answer["sqlstate"] == "WK209"
    assert answer["message"]
    assert len(body) < 10 or body[:20].decode(errors="replace") not in str(answer)
    assert keeper.status()
    assert "internal" not in keeper.errors


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0),
        struct.pack(">I", MAX_FRAME + 1) + b"x" * (MAX_FRAME + 1),
        struct.pack(">I", 2**32 - 1) + b"x" * 3_000_000,
        b"GET / HTTP/1.1\r\n\r\n" * 10_000,
    ],
    ids=["empty", "one too long", "huge", "http"],
)
def test_frames_of_impossible_length_are_answered_and_closed(keeper: Keeper, data: bytes) -> None:
    answer = answer_to(keeper, data)
    assert answer is not None and answer["sqlstate"] == "WK209"
    assert keeper.status()


def test_the_longest_frame_is_read(keeper: Keeper) -> None:
    body = b'{"op": "status"}'
    assert (answer := answer_to(keeper, framed(body + b" " * (MAX_FRAME - len(body))))) and answer[
        "ok"
    ] is True


def test_half_a_frame_and_away(keeper: Keeper) -> None:
    for data in (b"", b"\0", b"\0\0\0\x10", framed(b'{"op": "status"}')[:-1]):
        assert answer_to(keeper, data) is None
    assert keeper.status()
    assert "internal" not in keeper.errors


def test_a_connection_carries_many_requests(keeper: Keeper) -> None:
    request = keeper.provision()
    with keeper.connect() as connection:
        for _ in range(50):
            connection.sendall(frame(request))
            answer = client.receive(connection)
            assert answer and answer["ok"] is True
        wrong = {**request, "token": keeper.token("0b6f0000-0000-4000-8000-00000000000c")}
        connection.sendall(frame(wrong) + frame(request))  # a refusal does not end it, nor does haste
        assert [(client.receive(connection) or {})["ok"] for _ in range(2)] == [False, True]


def test_a_slow_client_is_cut_off_and_delays_nobody(keeper: Keeper) -> None:
    request = keeper.provision()
    slow = [keeper.connect(timeout=30) for _ in range(20)]
    stop = threading.Event()

    def drip() -> None:
        for byte in frame(request):
            for connection in slow:
                with suppress(OSError):
                    connection.send(bytes((byte,)))
            if stop.wait(0.2):
                return

    dripping = threading.Thread(target=drip)
    begin = time.monotonic()
    dripping.start()
    for _ in range(50):
        asked = time.monotonic()
        assert keeper.ask(**request)
        assert time.monotonic() - asked < 0.5
    for connection in slow:
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    assert time.monotonic() - begin < server.FRAME_SECONDS + 3
    stop.set()
    dripping.join()
    for connection in slow:
        connection.close()


def test_connections_are_bounded_and_places_come_free(keeper: Keeper) -> None:
    idle = [keeper.connect() for _ in range(server.MAX_CONNECTIONS)]
    deadline = time.monotonic() + 5
    while True:  # the last of them may not have been accepted yet
        with keeper.connect() as connection:
            connection.sendall(frame({"op": "status"}))
            answer = client.receive(connection)
        if answer and answer["ok"] is False:
            break
        assert time.monotonic() < deadline
    assert answer["sqlstate"] == "WK113"
    for connection in idle:
        connection.close()
    while True:
        try:
            assert keeper.status()
            break
        except client.KeeperUnavailable:
            assert time.monotonic() < deadline
    assert "internal" not in keeper.errors
