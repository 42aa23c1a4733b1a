"""A backend's side of the conversation with the keeper: a request and an answer over a unix socket.

``wardkey_core.wire`` says what the two are. Here is how long a backend waits for them, and that it can be
cancelled meanwhile.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # module socket takes 3 ms of each backend for its enums

from wardkey_core import wire
from wardkey_core.errors import KeeperBusy, KeeperUnavailable, WardError

__all__ = ["KeeperClient"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    from .keyring import WrappedKey

_SLICE = 0.05  # seconds between looks for a cancel
_SHORTEST, _LONGEST = 0.05, 1.0  # seconds until a busy keeper is asked again
_RESEALING = 60.0  # seconds a reseal may take: it may wait for another's


class KeeperClient:
    """Asks the keeper at ``path``, for ``timeout`` seconds at most; ``check_interrupts`` while it waits.

    A keeper that lives is waited for; where none listens, that is an error at once.
    """

    def __init__(self, path: str, timeout: float, check_interrupts: Callable[[], None]) -> None:
        self._path = path
        self._timeout = timeout
        self._check_interrupts = check_interrupts
        self._looked = 0.0

    def release(
        self, tenant: str, key: WrappedKey, token: str, classes: Collection[str]
    ) -> tuple[dict[str, bytes], frozenset[str], frozenset[bytes], dict[str, bytes]]:
        """Return the keys of those of ``classes`` that the token's role may have, and which it sees masked.

        Also the models of which it has a budget, and the search keys of the classes it sees in the clear.
        Raises KeeperUnavailable, or what the keeper says (KeyRefused, TokenExpired, …).
        """
        answer = self._ask(wire.release(tenant, _key(key, key.commitment), token, classes))
        return *wire.classes_in(answer), wire.budgets_in(answer), wire.search_keys_in(answer)

    def cache_key(self, tenant: str, key: WrappedKey, token: str) -> bytes:
        """Return the key of what clients with the token's role cache. Raises as ``release``."""
        return wire.bytes_in(self._ask(wire.cache(tenant, _key(key, key.commitment), token)), "key")

    def lease(
        self, tenant: str, model: str, token: str, settled: Mapping[str, Any] | None, row: bytes | None
    ) -> wire.Leased:
        """Have rows of ``model`` counted as opened. Raises as ``release``."""
        return wire.leased_in(self._ask(wire.lease(tenant, model, token, settled, row)))

    def settle(self, tenant: str, settled: Mapping[str, Any]) -> None:
        """Give back what a lease left over."""
        self._ask(wire.settle(tenant, settled))

    def end_logins(self, tenant: str, token: str) -> None:
        """Have the subject of ``token`` let in no more."""
        self._ask(wire.logins(tenant, "end", token=token))

    def provision(
        self, tenant: str, version: int, kek: str | None, kek_version: str | None, region: str
    ) -> tuple[str, str, bytes, bytes]:
        """Have a DEK made, under the KEK of that name or the tenant's own, which is made if missing.

        Return KEK name, KEK version, wrapped DEK, commitment.
        """
        answer = self._ask(wire.provision(tenant, version, kek, kek_version, region))
        if type(answer.get("version")) is not int or answer["version"] != version:
            raise KeeperUnavailable("the keeper gave an answer that is not one: of another version")
        return *wire.kek_in(answer), wire.bytes_in(answer, "wrapped"), wire.bytes_in(answer, "commitment")

    def derive(self, tenant: str, version: int, master: WrappedKey) -> tuple[bytes, bytes]:
        """Have a DEK derived from ``master``. Return its salt and commitment."""
        answer = self._ask(wire.derive(tenant, version, _key(master)))
        return wire.bytes_in(answer, "salt"), wire.bytes_in(answer, "commitment")

    def rewrap(
        self, tenant: str, key: WrappedKey, to_kek: str | None, to_kek_version: str | None
    ) -> tuple[str, str, bytes]:
        """Have a DEK wrapped again, under the tenant's current KEK if none is named.

        Return KEK name, KEK version, wrapped DEK.
        """
        answer = self._ask(wire.rewrap(tenant, _key(key, key.commitment), to_kek, to_kek_version))
        return *wire.kek_in(answer), wire.bytes_in(answer, "wrapped")

    def grant(self, tenant: str, action: str, token: str, **members: Any) -> dict[str, Any]:
        """Ask for a step of break-glass. Raises GrantRefused."""
        return dict(self._ask(wire.grant(tenant, action, token, **members)))

    def reseal(
        self, tenant: str, to: int, keys: Sequence[WrappedKey], classes: Mapping[str, int], fields: bytes
    ) -> bytes:
        """Have values sealed under version ``to``: bytes in and out as module resealing frames them."""
        described = [_key(key, key.commitment) for key in keys]
        request = wire.reseal(tenant, to, described, classes, len(fields))
        _, resealed = self._persist(request, fields, max(self._timeout, _RESEALING))
        return resealed

    def tokens(
        self,
        tenant: str,
        to: int,
        keys: Sequence[WrappedKey],
        classes: Mapping[str, int],
        searches: Mapping[str, Sequence[Sequence[str]]],
        fields: bytes,
    ) -> bytes:
        """Have the tokens of values made under version ``to``, as module resealing frames them."""
        described = [_key(key, key.commitment) for key in keys]
        request = wire.reseal(tenant, to, described, classes, len(fields), searches)
        return self._persist(request, fields, max(self._timeout, _RESEALING))[1]

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
        body = wire.frame(request)
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
            for part in (body, more):
                left = memoryview(part)
                while left:
                    left = left[self._patiently(lambda: self._socket.send(left)) :]  # noqa: B023
        except _HungUp:
            pass  # it may have said why
        length = wire.answer_length(self._receive(wire.HEADER_LENGTH))
        answer = wire.granted(wire.parse_answer(self._receive(length)))
        length = answer.get("length", 0)
        if type(length) is not int or not 0 <= length <= wire.MAX_FIELDS:
            raise KeeperUnavailable("the keeper gave an answer that is not one: too long")
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


def _key(key: WrappedKey, commitment: bytes | None = None) -> dict[str, Any]:
    return wire.key_members(
        key.version,
        key.kek,
        key.kek_version,
        key.wrapped,
        commitment=commitment,
        master=key.master,
        salt=key.salt,
        region=key.region,
    )
