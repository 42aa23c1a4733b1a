"""A backend's side of the conversation with the keeper: a request and an answer over a unix socket.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import BY_SQLSTATE, KeeperUnavailable, KeyRefused

__all__ = ["KeeperClient"]

MAX_FRAME = 65_536
_SLICE = 0.05  # seconds between looks for a cancel


class KeeperClient:
    """Asks the keeper at ``path``, for ``timeout`` seconds at most; ``check_interrupts`` while it waits."""

    def __init__(self, path: str, timeout: float, check_interrupts: Callable[[], None]) -> None:
        self._path = path
        self._timeout = timeout
        self._check_interrupts = check_interrupts
        self._looked = 0.0

    def release(
        self, tenant: str, version: int, kek: str, kek_version: str, wrapped: bytes, token: str
    ) -> bytes:
        """Return the DEK. Raises KeeperUnavailable, or what the keeper says (KeyRefused, TokenExpired, …)."""
        answer = self._ask(
            {
                "op": "release",
                "tenant": tenant,
                "version": version,
                "kek": kek,
                "kek_version": kek_version,
                "wrapped": base64.b64encode(wrapped).decode(),
                "token": token,
            }
        )
        return _bytes(answer, "dek")

    def provision(self, tenant: str) -> tuple[int, str, str, bytes, bytes]:
        """Have keys made for a new tenant. Return version, KEK name, KEK version, wrapped DEK, commitment."""
        answer = self._ask({"op": "provision", "tenant": tenant})
        version, kek, kek_version = answer.get("version"), answer.get("kek"), answer.get("kek_version")
        if (
            type(version) is not int
            or not 0 < version < 2**31
            or not isinstance(kek, str)
            or not isinstance(kek_version, str)
        ):
            raise KeeperUnavailable("the keeper gave an answer that is not one")
        return version, kek, kek_version, _bytes(answer, "wrapped"), _bytes(answer, "commitment")

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        body = json.dumps(request).encode()
        self._looked = time.monotonic()
        deadline = self._looked + self._timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SLICE)
            self._patiently(deadline, lambda: connection.connect(self._path))
            connection.settimeout(self._timeout)
            try:
                connection.sendall(len(body).to_bytes(4, "big") + body)
            except OSError:
                raise KeeperUnavailable from None
            connection.settimeout(_SLICE)
            length = int.from_bytes(self._receive(connection, 4, deadline), "big")
            if not 0 < length <= MAX_FRAME:
                raise KeeperUnavailable("the keeper gave an answer that is not one")
            payload = self._receive(connection, length, deadline)
        return _decode(payload)

    def _receive(self, connection: socket.socket, length: int, deadline: float) -> bytes:
        received = b""
        while len(received) < length:
            missing = length - len(received)
            chunk = self._patiently(deadline, lambda: connection.recv(missing))  # noqa: B023 - called at once
            if not chunk:
                raise KeeperUnavailable("the keeper hung up")
            received += chunk
        return received

    def _patiently(self, deadline: float, call: Callable[[], Any]) -> Any:
        while True:
            self._look(deadline)
            try:
                return call()
            except TimeoutError:
                continue
            except BlockingIOError:  # the socket's queue is full
                time.sleep(_SLICE)
            except OSError:
                raise KeeperUnavailable from None

    def _look(self, deadline: float) -> None:
        """Look for a cancel and at the clock: also between the pieces of an answer that comes in drops."""
        now = time.monotonic()
        if now - self._looked >= _SLICE:
            self._check_interrupts()
            self._looked = now
        if now > deadline:
            raise KeeperUnavailable("the keeper did not answer in time")


def _decode(payload: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(payload)
        ok = answer["ok"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeeperUnavailable("the keeper gave an answer that is not one") from None
    if ok is True:
        return dict(answer)
    error = BY_SQLSTATE.get(str(answer.get("sqlstate")), KeyRefused)
    raise error(_text(answer, "message"), _text(answer, "hint"))


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return value[:200] if isinstance(value, str) else None


def _bytes(answer: Mapping[str, Any], name: str) -> bytes:
    try:
        return base64.b64decode(answer[name], validate=True)
    except (KeyError, ValueError, TypeError):
        raise KeeperUnavailable("the keeper gave an answer that is not one") from None
