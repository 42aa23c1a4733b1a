"""A small client of the keeper for the command line and tests.

Backends have their own, in ``wardkey_pg.keeper``.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from wardkey_pg.errors import BY_SQLSTATE, KeeperUnavailable

from .protocol import HEADER_LENGTH, frame, frame_length

__all__ = ["ask", "receive", "status"]


def status(path: Path, timeout: float = 5) -> dict[str, Any]:
    """Return what the keeper at ``path`` says about itself.

    Raises KeeperUnavailable, or what it refused with.
    """
    return ask(path, {"op": "status"}, timeout)


def ask(path: Path, request: dict[str, Any], timeout: float = 10) -> dict[str, Any]:
    """Ask one thing over a new connection.

    Raises KeeperUnavailable, or the WardError the keeper answered with.
    """
    answer: dict[str, Any] | None = None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            connection.sendall(frame(request))
            answer = receive(connection)
    except (OSError, ValueError):
        answer = None
    if answer is None:
        raise KeeperUnavailable
    if answer.pop("ok", False) is not True:
        cls = BY_SQLSTATE.get(str(answer.get("sqlstate")), KeeperUnavailable)
        raise cls(answer.get("message"), answer.get("hint"))
    return answer


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Read one answer; None when the keeper hung up. Raises OSError, ValueError."""
    header = _exactly(connection, HEADER_LENGTH)
    body = _exactly(connection, frame_length(header)) if header else b""
    if not body:
        return None
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError("not an answer")
    return answer


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        if not chunk:
            return b""
        data += chunk
    return data
