"""A backend's side of the conversation with the keeper: a request and an answer over a unix socket.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON, at most 64 KiB. Behind the
frames of ``reseal`` come as many bytes as their member ``length`` says.
"""

from __future__ import annotations

import base64
import json
import os
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # module socket takes 3 ms of each backend for its enums
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wardkey_core.errors import BY_SQLSTATE, KeeperBusy, KeeperUnavailable, KeyRefused, WardError

from .keyring import WrappedKey

__all__ = ["KeeperClient"]

MAX_FRAME = 65_536
_SLICE = 0.05  # seconds between looks for a cancel
_SHORTEST, _LONGEST = 0.05, 1.0  # seconds until a busy keeper is asked again
_RESEALING = 60.0  # seconds a reseal may take: it may wait for another's
_MOST_RESEALED = 512 * 2**20
_NONSENSE = "the keeper gave an answer that is not one"


class KeeperClient:
    """Asks the keeper at ``path``, for ``timeout`` seconds at most; ``check_interrupts`` while it waits.

    A keeper that lives is waited for; where none listens, that is an error at once.
    """

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
        _, resealed = self._persist(request, fields, max(self._timeout, _RESEALING))
        return resealed

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._persist(request, b"", self._timeout)[0]

    def _persist(
        self, request: Mapping[str, Any], more: bytes, timeout: float
    ) -> tuple[Mapping[str, Any], bytes]:
        """Ask until there is an answer: a keeper that is busy or is being restarted is asked again.

        Everything that a backend asks may be repeated.
        """
        self._looked = time.monotonic()
        deadline, longest = self._looked + timeout, _SHORTEST
        body = json.dumps(request).encode()
        while True:
            try:
                with _Conversation(self._path, deadline, self._look) as conversation:
                    return conversation.ask(body, more)
            except KeeperBusy as error:
                trouble: WardError = error
            except _HungUp:
                trouble = KeeperUnavailable("the keeper hung up")
            until = time.monotonic() + longest * (0.5 + _random() / 2)  # not all who were refused at once
            if until > deadline:
                raise trouble
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(left, _SLICE))
                self._look()
            longest = min(2 * longest, _LONGEST)

    def _look(self) -> None:
        """Look for a cancel now and then: also between the pieces of an answer that comes in drops."""
        now = time.monotonic()
        if now - self._looked >= _SLICE:
            self._check_interrupts()
            self._looked = now


class _HungUp(Exception):
    """The keeper was there, and went before it answered."""


class _Conversation:
    """One connection, one request, one answer, by ``deadline``; ``look`` is called while it waits."""

    def __init__(self, path: str, deadline: float, look: Callable[[], None]) -> None:
        self._deadline = deadline
        self._look = look
        self._socket = socket(AF_UNIX, SOCK_STREAM)
        try:
            self._patiently(lambda: self._socket.connect(path), KeeperUnavailable)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, body: bytes, more: bytes) -> tuple[Mapping[str, Any], bytes]:
        """Return the answer and the bytes behind it."""
        try:
            for part in (len(body).to_bytes(4, "big") + body, more):
                left = memoryview(part)
                while left:
                    left = left[self._patiently(lambda: self._socket.send(left)) :]  # noqa: B023
        except _HungUp:
            pass  # it may have said why
        length = int.from_bytes(self._receive(4), "big")
        if not 0 < length <= MAX_FRAME:
            raise KeeperUnavailable(_NONSENSE)
        answer = _decode(self._receive(length))
        length = answer.get("length", 0)
        if type(length) is not int or not 0 <= length <= _MOST_RESEALED:
            raise KeeperUnavailable(_NONSENSE)
        return answer, self._receive(length)

    def _receive(self, length: int) -> bytes:
        received = bytearray(length)
        left = memoryview(received)
        while left:
            count = self._patiently(lambda: self._socket.recv_into(left))  # noqa: B023 - called at once
            if not count:
                raise _HungUp
            left = left[count:]
        return bytes(received)

    def _patiently(self, call: Callable[[], Any], gone: type[Exception] = _HungUp) -> Any:
        """Return what ``call`` does, once it does not have to wait.

        The clock does not end what need not wait: a backend that got no CPU for long finds its answer there.
        """
        while True:
            self._look()
            left = self._deadline - time.monotonic()
            self._socket.settimeout(max(min(left, _SLICE), 0))
            try:
                return call()
            except TimeoutError:
                pass
            except BlockingIOError:  # past the deadline, or the queue of the keeper's socket is full
                if left > 0:
                    time.sleep(min(left, _SLICE * _random()))
            except OSError:
                raise gone from None
            if left <= 0:
                raise KeeperUnavailable("the keeper did not answer in time")


def _random() -> float:
    return os.urandom(1)[0] / 255  # module random would be read by each backend


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
