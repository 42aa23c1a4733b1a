"""A KMS that denies, raves, errs or throttles: nothing opens, one clear error, then all is well again."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest

from tests.kms.benches import GcpBench, VaultBench
from tests.support.cloud_kms import Refusal
from tests.support.database import Database

from .cells import KEEPER_TTL, READ, SECRET, TIMEOUT, Cell, fails, read, recovers, running

WRITE = "insert into patients (id, name, ssn) values (2, 'x', '1')"
Code = grpc.StatusCode


def refuses(code: grpc.StatusCode) -> Callable[[str, Any], Any]:
    def trouble(method: str, answer: Any) -> Any:
        raise Refusal(code, "a text of the KMS's own")

    return trouble


def gives(plaintext: bytes, checksum: int | None = None) -> Callable[[str, Any], Any]:
    def trouble(method: str, answer: Any) -> Any:
        if method == "Decrypt":
            answer.plaintext = plaintext
            answer.plaintext_crc32c = google_crc32c.value(plaintext) if checksum is None else checksum
        return answer

    return trouble


def raves(method: str, answer: Any) -> Any:
    raise ValueError("the server itself breaks")


TROUBLES: dict[str, tuple[Callable[[str, Any], Any], str]] = {
    "unavailable": (refuses(Code.UNAVAILABLE), "WK102"),
    "internal": (refuses(Code.INTERNAL), "WK102"),
    "throttling": (refuses(Code.RESOURCE_EXHAUSTED), "WK102"),
    "breaking": (raves, "WK102"),
    "wrong checksum": (gives(bytes(32), 1), "WK102"),
    "denying": (refuses(Code.PERMISSION_DENIED), "WK103"),
    "disabled": (refuses(Code.FAILED_PRECONDITION), "WK103"),
    "not a key": (gives(b"short"), "WK103"),
    "another key": (gives(bytes(32)), "WK105"),
}


def test_each_trouble_is_one_clear_error_and_passes(gcp_cell: Cell) -> None:
    slug, kms = gcp_cell.new_tenant(), _kms(gcp_cell)
    with gcp_cell.connect(slug) as connection:
        for trouble, sqlstate in TROUBLES.values():
            time.sleep(KEEPER_TTL)  # nobody holds the key any more
            kms.trouble = trouble
            told = fails(connection, sqlstate, query=WRITE if sqlstate == "WK103" else READ)
            assert "a text of the KMS's own" not in told and SECRET not in told
            kms.trouble = lambda method, answer: answer
            assert recovers(connection) == SECRET
        assert connection.execute("select id from patients").fetchall() == [(1,)]
    log = gcp_cell.keeper.errors
    assert "Traceback" not in log and "internal error" not in log and "a text of the KMS's own" not in log


def test_throttling_is_outlasted_with_pauses_that_differ(gcp_cell: Cell) -> None:
    """One call in four let through is enough; where none is, the KMS is asked a few times only."""
    slug, kms = gcp_cell.new_tenant(), _kms(gcp_cell)
    asked: list[float] = []

    def throttle(let_through: int) -> Callable[[str, Any], Any]:
        def trouble(method: str, answer: Any) -> Any:
            asked.append(time.monotonic())
            if len(asked) % let_through:
                raise Refusal(Code.RESOURCE_EXHAUSTED, "quota")
            return answer

        return trouble

    pauses: list[list[float]] = []
    with gcp_cell.connect(slug) as connection:
        for let_through in (4, 4, 1000, 1000):
            gcp_cell.forget()
            kms.trouble = throttle(let_through)
            asked.clear()
            if let_through == 4:
                assert read(connection) == SECRET
            else:
                assert "does not answer" in fails(connection, "WK102")
            assert len(asked) == 4
            assert asked[-1] - asked[0] < TIMEOUT
            pauses.append([later - sooner for sooner, later in pairwise(asked)])
            time.sleep(0.2)
            assert len(asked) == 4  # nobody goes on asking
    assert all(low <= pause for each in pauses for low, pause in zip((0.05, 0.1, 0.2), each, strict=True))
    assert max(map(sum, pauses)) - min(map(sum, pauses)) > 0.01, "no jitter"


def test_a_slow_kms_is_waited_for_until_the_deadline_only(gcp_cell: Cell) -> None:
    slug, kms = gcp_cell.new_tenant(), _kms(gcp_cell)
    seconds = 0.0

    def slow(method: str, answer: Any) -> Any:
        time.sleep(seconds)
        return answer

    kms.trouble = slow
    with gcp_cell.connect(slug) as connection:
        seconds = 0.5
        gcp_cell.forget()
        assert read(connection) == SECRET
        seconds = TIMEOUT + 1
        gcp_cell.forget()
        assert "did not answer in time" in fails(connection, "WK102")
        seconds = 0.0
        assert recovers(connection) == SECRET


class Impostor:
    """What answers at the KMS's address when it is not the KMS."""

    def __init__(self, port: int, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        self.sent = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            self._answer(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def says(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def page(body: bytes) -> Callable[[socket.socket], None]:
    return says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{")
    while True:
        connection.sendall(b" " * 1_000_000)


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    for _ in range(1000):
        connection.sendall(b" ")
        time.sleep(0.3)


NONSENSE = {
    "another protocol": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a web page": page(b"<html>sign in to the hotel's network</html>"),
    "a list": page(b"[]"),
    "no base64": page(b'{"data": {"plaintext": "%%%"}}'),
    "elsewhere": says(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n\r\n"),
    "deep": page(b"[" * 100_000),
    "endless": endless,
    "dripping": dripping,
}


@pytest.fixture
def vault_cell(database: Database, vault_bench: VaultBench) -> Iterator[Cell]:
    with running(database, vault_bench) as cell:
        yield cell


def test_nonsense_at_the_kmss_address_opens_nothing_and_costs_nothing(
    vault_cell: Cell, vault_bench: VaultBench
) -> None:
    slug = vault_cell.new_tenant()
    time.sleep(KEEPER_TTL)
    before = _memory(vault_cell.keeper.pid)
    vault_bench.server.kill()
    with vault_cell.connect(slug) as connection:
        try:
            for kind, answer in NONSENSE.items():
                impostor = Impostor(vault_bench.server.port, answer)
                assert SECRET not in fails(connection, "WK102"), kind
                impostor.close()
        finally:
            vault_bench.server.restart()
        assert recovers(connection) == SECRET
    assert _memory(vault_cell.keeper.pid) - before < 50_000
    assert "Traceback" not in vault_cell.keeper.errors and "internal error" not in vault_cell.keeper.errors


def _memory(pid: int) -> int:
    """Return the most memory the process ever had, in KB."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def _kms(cell: Cell) -> Any:
    assert isinstance(cell.bench, GcpBench)
    return cell.bench.kms
