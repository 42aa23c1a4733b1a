"""A small client of the keeper for the command line and tests.

Backends have their own, in ``wardkey_pg.keeper``.
"""

from __future__ import annotations

import socket
import weakref
from pathlib import Path
from typing import Any

from . import wire
from .errors import KeeperUnavailable

__all__ = ["Client", "ask", "receive", "status"]


def status(path: Path, timeout: float = 5) -> dict[str, Any]:
    """Return what the keeper at ``path`` says about itself.

    Raises KeeperUnavailable, or what it refused with.
    """
    return ask(path, wire.status(), timeout)


def ask(path: Path, request: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
    """Ask one thing over a new connection.

    Raises KeeperUnavailable, or the WardError the keeper answered with.
    """
    body, answer = wire.frame(request), None
    try:
        with _connect(path, timeout) as connection:
            answer = _converse(connection, body)
    except (OSError, ValueError):
        answer = None
    return _granted(answer)


class Client:
    """Asks many things, from several threads: connections are kept and used again.

    What is asked may be repeated: over a connection that the keeper has given up meanwhile it is, once.
    """

    def __init__(self, path: Path, timeout: float = 10) -> None:
        self._path = path
        self._timeout = timeout
        self._idle: list[socket.socket] = []
        weakref.finalize(self, _close, self._idle)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Raises KeeperUnavailable, or the WardError the keeper answered with."""
        body = wire.frame(request)
        while True:
            known = self._idle.pop() if self._idle else None
            answer, connection = None, known
            try:
                connection = connection or _connect(self._path, self._timeout)
                answer = _converse(connection, body)
            except TimeoutError:
                known = None  # it is there, and too slow
            except (OSError, ValueError, KeeperUnavailable):
                pass
            if answer is not None and connection is not None:
                self._idle.append(connection)
            elif connection is not None:
                connection.close()
            if answer is not None or known is None:
                return _granted(answer)


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def _connect(path: Path, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _converse(connection: socket.socket, body: bytes) -> dict[str, Any] | None:
    connection.sendall(body)
    return receive(connection)


def _granted(answer: dict[str, Any] | None) -> dict[str, Any]:
    if answer is None:
        raise KeeperUnavailable
    return wire.granted(answer)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Read one answer; None when the keeper hung up. Raises OSError, KeeperUnavailable."""
    header = _exactly(connection, wire.HEADER_LENGTH)
    body = _exactly(connection, wire.answer_length(header)) if header else b""
    return wire.parse_answer(body) if body else None


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            return b""
        data += chunk
    return data
