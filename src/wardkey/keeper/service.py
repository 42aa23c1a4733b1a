"""What the keeper decides: which request gets which answer. It knows tokens, KMS and cache, but no sockets.

A key is released when its token is verified, the token's tenant is the key's, the KMS (or the cache, for
its TTL) opens it for that tenant and version, and the release has been logged; otherwise not.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn, ParamSpec, TypeVar

from wardkey_pg import __version__
from wardkey_pg.envelope import DEK_LENGTH, commitment, key_aad
from wardkey_pg.errors import KeeperUnavailable, KeyRefused, WardError
from wardkey_pg.tokens import Claims

from wardkey.kms import KekRef, Kms, KmsError

from .cache import KeyCache
from .journal import Peer, ReleaseLog
from .protocol import Provision, Release, Request, Status, to_base64
from .trust import TrustedIssuers

__all__ = ["Service"]

FIRST_VERSION = 1
ATTEMPTS = 4
FIRST_PAUSE = 0.05  # seconds; doubled for each further attempt, of which a random part is waited
KMS_THREADS = 16

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Identity = tuple[str, int, bytes]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A DEK on its way through asyncio, which shows the results of its tasks when one of them goes wrong."""

    dek: bytes = field(repr=False)


class Service:
    """Answers requests. ``deadline`` is how many seconds one may take, ``ttl`` how many a key is kept."""

    def __init__(
        self,
        kms: Kms,
        trust: TrustedIssuers,
        log: ReleaseLog,
        *,
        ttl: float = 300,
        deadline: float = 5,
        report: Callable[[str], None],
    ) -> None:
        self._kms = kms
        self._trust = trust
        self._log = log
        self._deadline = deadline
        self._report = report
        self._cache = KeyCache(ttl)
        self._pending: dict[_Identity, asyncio.Task[_Opened]] = {}
        self._pool = ThreadPoolExecutor(KMS_THREADS, thread_name_prefix="kms")
        self._started_at = time.time()
        self._kms_calls = self._releases = self._refusals = 0

    async def answer(self, request: Request, peer: Peer) -> dict[str, Any]:
        """Return the answer to ``request``. Raises WardError, which is logged."""
        match request:
            case Release():
                return await self._release(request, peer)
            case Provision():
                return await self._provision(request, peer)
            case Status():
                return self._status()

    def refuse_peer(self, peer: Peer) -> KeyRefused:
        """Log that ``peer`` may not ask, and return what to tell it."""
        error = KeyRefused(
            "this operating system user may not ask the keeper", "start the keeper with --allow-uid for it"
        )
        self._log_refusal("connect", error, peer, None, None, None)
        return error

    async def sweep(self) -> NoReturn:
        """Drop keys as they become too old, for as long as the keeper runs."""
        while True:
            await asyncio.sleep(1)
            self._cache.sweep()

    def close(self) -> None:
        self._cache.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _status(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "cached_keys": len(self._cache),
            "kms_calls": self._kms_calls,
            "releases": self._releases,
            "refusals": self._refusals,
            "provider": self._kms.scheme,
        }

    async def _release(self, request: Release, peer: Peer) -> dict[str, Any]:
        tenant = str(request.tenant)
        claims: Claims | None = None
        try:
            claims = self._verify(request.token)
            if claims.tenant_id != tenant:
                raise KeyRefused("the token belongs to another tenant than the key")
            dek = await self._dek(request)
            self._log_line("release", "released", peer, tenant, request.version, claims)
        except WardError as error:
            self._log_refusal("release", error, peer, tenant, request.version, claims)
            raise
        self._releases += 1
        return {"dek": to_base64(dek)}

    def _verify(self, token: str) -> Claims:
        if not token:
            raise KeyRefused("the keeper releases a key only to a token of its tenant")
        return self._trust.verify(token, time.time())

    async def _dek(self, request: Release) -> bytes:
        """Return the DEK from the cache or the KMS, asking once however many wait for the same key."""
        parts = (request.kek.encode("utf-8"), request.kek_version.encode("utf-8"), request.wrapped)
        digest = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
        identity = (str(request.tenant), request.version, digest)
        dek = self._cache.get(identity)
        if dek is not None:
            return dek
        task = self._pending.get(identity)
        if task is None:
            task = self._pending[identity] = asyncio.create_task(self._unwrap(identity, request))
            task.add_done_callback(lambda done: self._settle(identity, done))
        return (await self._in_time(asyncio.shield(task))).dek

    def _settle(self, identity: _Identity, task: asyncio.Task[_Opened]) -> None:
        del self._pending[identity]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not print it when nobody waited to the end

    async def _unwrap(self, identity: _Identity, request: Release) -> _Opened:
        kek = KekRef(request.kek, request.kek_version)
        aad = key_aad(request.tenant.bytes, request.version)
        opened = await self._ask(lambda: _Opened(self._kms.unwrap(kek, request.wrapped, aad)))
        if len(opened.dek) != DEK_LENGTH:
            raise KeyRefused("the key management service returned something that is not a data key")
        self._cache.put(identity, opened.dek)
        return opened

    async def _provision(self, request: Provision, peer: Peer) -> dict[str, Any]:
        tenant, dek = request.tenant, os.urandom(DEK_LENGTH)
        try:
            kek, wrapped = await self._in_time(asyncio.ensure_future(self._wrap(request, dek)))
            self._log_line("provision", "provisioned", peer, str(tenant), FIRST_VERSION, None)
        except WardError as error:
            self._log_refusal("provision", error, peer, str(tenant), FIRST_VERSION, None)
            raise
        return {
            "version": FIRST_VERSION,
            "kek": kek.name,
            "kek_version": kek.version,
            "wrapped": to_base64(wrapped),
            "commitment": to_base64(commitment(dek, tenant.bytes, FIRST_VERSION)),
        }

    async def _wrap(self, request: Provision, dek: bytes) -> tuple[KekRef, bytes]:
        kek = await self._ask(self._kms.create_kek, request.tenant)
        aad = key_aad(request.tenant.bytes, FIRST_VERSION)
        return kek, await self._ask(self._kms.wrap, kek, dek, aad)

    async def _ask(self, method: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the KMS in a thread, again after a pause when it says so.

        Raises KeyRefused, KeeperUnavailable.
        """
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(random.uniform(0.5, 1) * FIRST_PAUSE * 2**attempt)  # noqa: S311
            self._kms_calls += 1
            try:
                call = asyncio.get_running_loop().run_in_executor
                return await call(self._pool, lambda: method(*args, **kwargs))
            except KmsError as error:
                self._report(f"KMS: {type(error).__name__}: {error}")
                if not error.transient:
                    break
            except Exception as error:
                # Not str(error): a provider's unforeseen exception may carry what it was given.
                self._report(f"KMS: unexpected {type(error).__name__}")
                break
        else:
            raise KeeperUnavailable("the key management service does not answer", "see the keeper's log")
        raise KeyRefused("the key management service refused the key", "see the keeper's log")

    async def _in_time(self, result: asyncio.Future[_T]) -> _T:
        try:
            async with asyncio.timeout(self._deadline):
                return await result
        except TimeoutError:
            pass
        raise KeeperUnavailable("the key management service did not answer in time", "see the keeper's log")

    def _log_line(
        self, op: str, outcome: str, peer: Peer, tenant: str, version: int, claims: Claims | None
    ) -> None:
        """Log, or do not do it: nobody could account for a key that left without a line."""
        try:
            self._log.write(op, outcome, peer, tenant=tenant, version=version, claims=claims)
            return
        except OSError as error:
            self._report(f"the release log cannot be written, so no key is released: {error.strerror}")
        raise KeeperUnavailable("the keeper cannot write its release log", "free space on its disk")

    def _log_refusal(
        self,
        op: str,
        error: WardError,
        peer: Peer,
        tenant: str | None,
        version: int | None,
        claims: Claims | None,
    ) -> None:
        self._refusals += 1
        try:
            self._log.write(
                op,
                "refused",
                peer,
                tenant=tenant,
                version=version,
                claims=claims,
                sqlstate=error.sqlstate,
                reason=error.message,
            )
        except OSError as failure:
            self._report(f"the release log cannot be written: {failure.strerror}")
