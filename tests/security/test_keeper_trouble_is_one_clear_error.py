"""ATTACKS 43: keeper down, slow, denying or answering garbage: warm reads go on, cold ones fail in time."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.support.database import Connection
from tests.support.sqlstate import everything, refused

from .conftest import SECRET, Wards

READ = "select ssn from patients where id = 1"
Answer = Callable[[dict[str, object], socket.socket], bytes | None]


class Impostor:
    """What sits at the keeper's socket when things went wrong. ``answer`` makes the bytes sent back."""

    def __init__(self, answer: Answer) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wardkey-impostor-"))
        self.directory.chmod(0o755)
        self.path = self.directory / "sock"
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen(64)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        try:
            length = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
            request = json.loads(connection.recv(length, socket.MSG_WAITALL))
            answer = self._answer(request, connection)
            if answer is not None:
                connection.sendall(answer)
                connection.close()
        except OSError:
            pass

    def close(self) -> None:
        for opened in (self._listener, *self._open):
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        shutil.rmtree(self.directory)


def passed_on(path: str, request: dict[str, object]) -> bytes:
    """What the keeper at ``path`` answers."""
    with socket.socket(socket.AF_UNIX) as onward:
        onward.connect(path)
        onward.sendall(frame(json.dumps(request).encode()))
        head = onward.recv(4, socket.MSG_WAITALL)
        return head + onward.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def says(value: object) -> Answer:
    return lambda request, connection: frame(json.dumps(value).encode())


def silent(request: dict[str, object], connection: socket.socket) -> None:
    return None


def dripping(request: dict[str, object], connection: socket.socket) -> None:
    for byte in frame(json.dumps({"ok": True, "classes": {"clinical": "x" * 60000}, "masked": []}).encode()):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


NONSENSE: dict[str, Answer] = {
    "hangs up": lambda request, connection: b"",
    "half a frame": lambda request, connection: b"\0\0\1\0{",
    "no frame": lambda request, connection: b"HTTP/1.1 200 OK\r\n\r\n",
    "huge frame": lambda request, connection: b"\xff\xff\xff\xff",
    "empty frame": lambda request, connection: bytes(4),
    "no JSON": lambda request, connection: frame(b"\xff\xfe nonsense"),
    "deep JSON": lambda request, connection: frame(b"[" * 50000),
    "a list": says([]),
    "nothing": says({}),
    "ok, no key": says({"ok": True}),
    "ok, no base64": says({"ok": True, "classes": {"clinical": "%%%"}, "masked": []}),
    "ok, a number": says({"ok": True, "classes": {"clinical": 7}, "masked": []}),
    "ok is a word": says({"ok": "yes", "classes": {}, "masked": []}),
}


@pytest.fixture
def at_socket(wards: Wards) -> Iterator[Callable[[Answer], None]]:
    """Put an impostor where the keeper was, for this test's database, with half a second's patience."""
    made: list[Impostor] = []

    def put(answer: Answer) -> None:
        made.append(Impostor(answer))
        point_to(wards, str(made[-1].path))

    yield put
    for impostor in made:
        impostor.close()


def point_to(wards: Wards, path: str) -> None:
    wards.admin.execute("select ward.set('keeper_socket', %s)", [path])
    wards.admin.execute("select ward.set('keeper_timeout', '0.5')")


def fails(connection: Connection, *sqlstates: str, within: float = 1.5) -> str:
    started = time.monotonic()
    with refused(*sqlstates) as caught:
        connection.execute(READ)
    assert time.monotonic() - started < within
    return everything(caught.value)


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_is_one_clear_error(wards: Wards, at_socket: Callable[[Answer], None], kind: str) -> None:
    at_socket(NONSENSE[kind])
    with wards.victim() as connection:
        told = fails(connection, "WK102", "WK103" if kind == "ok is a word" else "WK102")
        assert SECRET not in told
        point_to(wards, str(wards.database.cluster.home.keeper_socket))
    with wards.victim() as connection:
        assert connection.execute(READ).fetchone() == (SECRET,)


def test_wrong_key_is_noticed(wards: Wards, at_socket: Callable[[Answer], None]) -> None:
    key = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
    at_socket(says({"ok": True, "classes": {"clinical": key}, "masked": []}))
    with wards.victim() as connection:
        fails(connection, "WK101")


@pytest.mark.parametrize("answer", [silent, dripping])
def test_slow_keeper_is_given_up_on(
    wards: Wards, at_socket: Callable[[Answer], None], answer: Answer
) -> None:
    at_socket(answer)
    with wards.victim() as connection:
        fails(connection, "WK102")


def test_keeper_that_is_gone(wards: Wards) -> None:
    point_to(wards, "/nonexistent/keeper.sock")
    with wards.victim() as connection:
        told = fails(connection, "WK102", within=0.5)
        assert "wardkey status" in told
        assert connection.execute("select city from patients where id = 1").fetchone() == ("Shelbyville",)
        with refused("WK102"):
            connection.execute("insert into patients (id, name) values (9, 'x')")
        connection.execute("insert into patients (id, name) select 9, null where false")
    with refused("WK102"):
        wards.admin.execute("select ward.create_tenant('nobody')")
    assert wards.admin.execute("select count(*) from ward.tenants where slug = 'nobody'").fetchone() == (0,)


def test_warm_reads_and_writes_go_on(wards: Wards) -> None:
    with wards.victim() as warm:
        assert warm.execute(READ).fetchone() == (SECRET,)
        point_to(wards, "/nonexistent/keeper.sock")
        for number in range(3):
            assert warm.execute(READ).fetchone() == (SECRET,)
            warm.execute(
                "insert into patients (id, name, ssn, birth_date) values (%s, 'x', null, null)", [50 + number]
            )


def test_denial_is_passed_on(wards: Wards, at_socket: Callable[[Answer], None]) -> None:
    denial = {"ok": False, "sqlstate": "WK103", "message": "the KMS says no", "hint": "ask it"}
    at_socket(says(denial))
    with wards.victim() as connection:
        assert "the KMS says no" in fails(connection, "WK103")
    at_socket(says({"ok": False, "sqlstate": "00000", "message": "x" * 5000}))
    with wards.victim() as connection:
        assert len(fails(connection, "WK103")) < 2000


def test_one_tenants_trouble_is_not_anothers(wards: Wards, at_socket: Callable[[Answer], None]) -> None:
    """Silence for globex's key; acme's goes through, cold, while globex's backends wait."""
    real = str(wards.database.cluster.home.keeper_socket)
    globex = str(wards.database.tenant_id("globex"))

    def answer(request: dict[str, object], connection: socket.socket) -> bytes | None:
        if request["tenant"] == globex:
            return None
        return passed_on(real, request)

    at_socket(answer)
    wards.admin.execute("select ward.set('keeper_timeout', '3')")
    waiting = [wards.victim() for _ in range(4)]

    def wait(connection: Connection) -> None:
        with refused("WK102"):
            connection.execute(READ)

    threads = [threading.Thread(target=wait, args=[connection]) for connection in waiting]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    started = time.monotonic()
    with wards.attacker() as connection:
        assert connection.execute(READ).fetchone() == ("999-11-1111",)
    assert time.monotonic() - started < 2
    assert all(thread.is_alive() for thread in threads)
    for thread in threads:
        thread.join()
    for connection in waiting:
        connection.close()


def test_a_keeper_that_is_late_is_waited_for(wards: Wards) -> None:
    """By default, and by many: three seconds were not enough where 100 backends began at once."""
    real, begun = str(wards.database.cluster.home.keeper_socket), time.monotonic()

    def answer(request: dict[str, object], connection: socket.socket) -> bytes | None:
        time.sleep(max(begun + 4 - time.monotonic(), 0))
        return passed_on(real, request)

    impostor = Impostor(answer)
    wards.admin.execute("select ward.set('keeper_socket', %s)", [str(impostor.path)])
    try:
        waiting = [wards.victim() for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda connection: connection.execute(READ).fetchone(), waiting))
        assert rows == [(SECRET,)] * 8
        for connection in waiting:
            connection.close()
    finally:
        impostor.close()


@pytest.mark.parametrize("way", ["statement_timeout", "cancel", "terminate"])
def test_waiting_for_the_keeper_can_be_ended(
    wards: Wards, at_socket: Callable[[Answer], None], way: str
) -> None:
    at_socket(silent)
    wards.admin.execute("select ward.set('keeper_timeout', '30')")
    connection = wards.victim()
    started = time.monotonic()
    if way == "statement_timeout":
        connection.execute("set statement_timeout = '200ms'")
    else:
        function = {"cancel": "pg_cancel_backend", "terminate": "pg_terminate_backend"}[way]

        def end() -> None:
            with wards.database.admin() as admin:
                admin.execute(f"select {function}(%s)", [connection.info.backend_pid])

        threading.Timer(0.2, end).start()
    with pytest.raises((psycopg.errors.QueryCanceled, psycopg.OperationalError)) as caught:
        connection.execute(READ)
    assert caught.value.sqlstate == ("57P01" if way == "terminate" else "57014")
    assert time.monotonic() - started < 2
    connection.close()
