"""A backend's side of the conversation with the keeper: a request and an answer over a unix socket.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB. Behind the
frames of ``reseal`` come as many bytes as their member ``length`` says.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from .errors import BY_SQLSTATE, KeeperUnavailable, KeyRefused
from .keyring import WrappedKey

__all__ = ["KeeperClient"]

MAX_FRAME = 65_536
_SLICE = 0.05  # seconds between looks for a cancel
_RESEALING = 60.0  # seconds a reseal may take: it may wait for another's
_MOST_RESEALED = 512 * 2**20
_NONSENSE = "the keeper gave an answer that is not one"


class KeeperClient:
    """Asks the keeper at ``path``, for ``timeout`` seconds at most; ``check_interrupts`` while it waits."""

    def __init__(self, path: str, timeout: float, check_interrupts: Callable[[], None]) -> None:
        self._path = path
        self._timeout = timeout
        self._check_interrupts = check_interrupts
        self._looked = 0.0

    def release(self, tenant: str, key: WrappedKey, token: str) -> bytes:
        """Return the DEK. Raises KeeperUnavailable, or what the keeper says (KeyRefused, TokenExpired, …)."""
        return _bytes(self._ask({"op": "release", "tenant": tenant, "token": token, **_members(key)}), "dek")

    def provision(
        self, tenant: str, version: int, kek: str | None, kek_version: str | None
    ) -> tuple[str, str, bytes, bytes]:
        """Have a DEK made, under the KEK of that name or the tenant's own, which is made if missing.

        Return KEK name, KEK version, wrapped DEK, commitment.
        """
        target = {"kek": kek, "kek_version": kek_version}
        request = {"op": "provision", "tenant": tenant, "version": version, **_given(target)}
        answer = self._ask(request)
        if type(answer.get("version")) is not int or answer["version"] != version:
            raise KeeperUnavailable(_NONSENSE)
        return *_kek(answer), _bytes(answer, "wrapped"), _bytes(answer, "commitment")

    def derive(self, tenant: str, version: int, master: WrappedKey) -> tuple[bytes, bytes]:
        """Have a DEK derived from ``master``. Return its salt and commitment."""
        request = {"op": "derive", "tenant": tenant, **_members(master), "version": version}
        answer = self._ask({**request, "master": master.version})
        return _bytes(answer, "salt"), _bytes(answer, "commitment")

    def rewrap(
        self, tenant: str, key: WrappedKey, to_kek: str | None, to_kek_version: str | None
    ) -> tuple[str, str, bytes]:
        """Have a DEK wrapped anew, under the tenant's current KEK if none is named.

        Return KEK name, KEK version, wrapped DEK.
        """
        target = {"to_kek": to_kek, "to_kek_version": to_kek_version}
        request = {"op": "rewrap", "tenant": tenant, **_members(key), **_given(target)}
        answer = self._ask({**request, "commitment": _base64(key.commitment)})
        return *_kek(answer), _bytes(answer, "wrapped")

    def reseal(self, tenant: str, to: int, keys: Sequence[WrappedKey], fields: bytes) -> bytes:
        """Have values sealed under version ``to``: bytes in and out as module resealing frames them."""
        described = [{**_members(key), "commitment": _base64(key.commitment)} for key in keys]
        request = {"op": "reseal", "tenant": tenant, "to": to, "keys": described, "length": len(fields)}
        with self._connected(max(self._timeout, _RESEALING)) as (connection, deadline):
            answer = self._converse(connection, deadline, request, fields)
            length = answer.get("length")
            if type(length) is not int or not 0 <= length <= _MOST_RESEALED:
                raise KeeperUnavailable(_NONSENSE)
            return self._receive(connection, length, deadline)

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._connected(self._timeout) as (connection, deadline):
            return self._converse(connection, deadline, request)

    @contextmanager
    def _connected(self, timeout: float) -> Iterator[tuple[socket.socket, float]]:
        self._looked = time.monotonic()
        deadline = self._looked + timeout
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SLICE)
            self._patiently(deadline, lambda: connection.connect(self._path))
            yield connection, deadline

    def _converse(
        self, connection: socket.socket, deadline: float, request: Mapping[str, Any], more: bytes = b""
    ) -> Mapping[str, Any]:
        body = json.dumps(request).encode()
        for part in (len(body).to_bytes(4, "big") + body, more):
            left = memoryview(part)
            while left:
                sent = self._patiently(deadline, lambda: connection.send(left))  # noqa: B023 - called at once
                left = left[sent:]
        length = int.from_bytes(self._receive(connection, 4, deadline), "big")
        if not 0 < length <= MAX_FRAME:
            raise KeeperUnavailable(_NONSENSE)
        return _decode(self._receive(connection, length, deadline))

    def _receive(self, connection: socket.socket, length: int, deadline: float) -> bytes:
        received = bytearray(length)
        left = memoryview(received)
        while left:
            count = self._patiently(deadline, lambda: connection.recv_into(left))  # noqa: B023 - called at once
            if not count:
                raise KeeperUnavailable("the keeper hung up")
            left = left[count:]
        return bytes(received)

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
        raise KeeperUnavailable(_NONSENSE) from None
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
        raise KeeperUnavailable(_NONSENSE) from None


def _members(key: WrappedKey) -> dict[str, Any]:
    """Return what names and holds a key: for a derived one its master and salt."""
    members = {
        "version": key.version,
        "kek": key.kek,
        "kek_version": key.kek_version,
        "wrapped": _base64(key.wrapped),
    }
    if key.master is not None and key.salt is not None:
        members |= {"master": key.master, "salt": _base64(key.salt)}
    return members


def _given(members: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in members.items() if value is not None}


def _kek(answer: Mapping[str, Any]) -> tuple[str, str]:
    kek, version = answer.get("kek"), answer.get("kek_version")
    if not isinstance(kek, str) or not isinstance(version, str):
        raise KeeperUnavailable(_NONSENSE)
    return kek, version


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
