"""What the keeper decides: who gets an answer to which request, and that each is logged.

It knows tokens and users, but no sockets; what is done with keys is in ``keys``, with KEKs and tombstones in
``administration``. A DEK is released to nobody; of it, keys of classes are, when the token is verified, the
token's tenant is the key's, the ledger has neither, the KMS (or the cache, for its TTL) opens the DEK for
that tenant and version, it is the one committed to, and the release has been logged; otherwise not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from wardkey_core.envelope import cache_key, class_key
from wardkey_core.errors import GrantRefused, KeeperUnavailable, KeyRefused, WardError
from wardkey_core.search import Search, search_key
from wardkey_core.tokens import Claims
from wardkey_core.wire import LEASE_SECONDS, MOST_LEASED, to_base64
from wardkey_pg import __version__

from wardkey import tracing

from ..daemon.lines import Line
from ..daemon.privileges import LAST, set_nice
from .administration import Administration, is_for_administrators
from .budgets import KeeperBudgets
from .checkpoints import Checkpoints
from .counters import Counters
from .ended import Ended
from .grants import Grants
from .journal import Peer, ReleaseLog
from .keys import Keys
from .latencies import RELEASE_SECONDS, Latencies
from .ledger import Ledger
from .policy import KeeperPolicy
from .providers import Providers
from .requests import (
    MASTER_TENANT,
    Cache,
    Certify,
    Checkpoint,
    Derive,
    Grant,
    Kek,
    Lease,
    Logins,
    Provision,
    Release,
    Report,
    Request,
    Reseal,
    Rewrap,
    Settle,
    Shred,
    Status,
    Tombstone,
    Usage,
    WrappedKey,
)
from .reseal import reseal, tokens
from .signing import SigningKey
from .trust import TrustedIssuers

__all__ = ["Service"]

ADMINISTRATION_SECONDS = 30.0  # for what a KMS may need several calls
FLUSH_AFTER = 0.02  # seconds, in which answers are sent and further lines join
MOST_NOTED = 16_384  # who reseals or seals for which tenant, remembered as logged

_T = TypeVar("_T")


@dataclass(slots=True)
class _Line:
    """What the release log will say of a request. ``claims``: verified ones."""

    op: str
    outcome: str
    peer: Peer
    tenant: UUID | None
    version: int | None = None
    claims: Claims | None = None
    classes: list[str] | None = None
    grant: str | None = None


class Service:
    """Answers requests. ``deadline`` is how many seconds one may take, ``ttl`` how many a key is kept.

    ``administrators``: uids that may ask for what destroys keys, or for the keeper's signature. ``scribes``:
    uids besides them that may ask for signatures of checkpoints. The database server's is not one of them:
    an attacker in it can change the log, and should not have the change signed.
    """

    def __init__(
        self,
        providers: Providers,
        trust: TrustedIssuers,
        policy: KeeperPolicy,
        ledger: Ledger,
        signing: SigningKey,
        log: ReleaseLog,
        checkpoints: Checkpoints,
        grants: Grants,
        budgets: KeeperBudgets,
        counters: Counters,
        ended: Ended,
        *,
        administrators: frozenset[int] = frozenset(),
        scribes: frozenset[int] = frozenset(),
        ttl: float = 300,
        deadline: float = 5,
        report: Callable[[str], None],
    ) -> None:
        self._providers = providers
        self._trust = trust
        self._policy = policy
        self._ledger = ledger
        self._log = log
        self._checkpoints = checkpoints
        self._grants = grants
        self._budgets = budgets
        self._counters = counters
        self._ended = ended
        self._administrators = administrators
        self._scribes = scribes
        self._deadline = deadline
        self._report = report
        self._keys = Keys(providers, ledger, signing, ttl)
        self._administration = Administration(providers, self._keys, ledger, signing)
        self._resealing = ThreadPoolExecutor(
            1, thread_name_prefix="reseal", initializer=set_nice, initargs=(LAST,)
        )
        self._flushing = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._flushed: Future[None] | None = None
        self._is_written = False
        self._noted: set[tuple[Peer, UUID, int]] = set()
        self._started_at = time.time()
        self._releases = self._refusals = 0
        self._took = Latencies(RELEASE_SECONDS)

    async def answer(self, request: Request, peer: Peer) -> dict[str, Any]:
        """Return the answer to any request but Reseal. Raises WardError, which is logged."""
        if isinstance(request, Status):
            return self._status()
        line = _line(request, peer)
        if isinstance(request, Lease | Settle):
            return await self._logged(line, self._answered(request, line), quietly=True)
        if isinstance(request, Checkpoint) and not request.readmit:
            # many and always the same: refusals are in the log, and the first of each peer
            known = (peer, request.tenant, 0)
            answered = await self._logged(line, self._answered(request, line), quietly=known in self._noted)
            self._note(known)
            return answered
        return await self._logged(line, self._answered(request, line))

    async def unlock(self, request: Reseal, peer: Peer) -> dict[int, bytes]:
        """Return the DEKs that ``request`` needs, by version. Raises WardError, which is logged.

        The peer is in the log once for each tenant and version, however many batches it sends.
        """
        line = _line(request, peer)
        known = (peer, request.tenant, request.to)
        deks = await self._logged(line, self._committed(request), quietly=known in self._noted)
        self._note(known)
        return deks

    async def reseal(self, request: Reseal, deks: dict[int, bytes], fields: bytearray) -> memoryview:
        """Return the answer to ``fields``, in place. Raises Unsupported when they are none."""
        facts = (
            request.tenant.bytes,
            deks,
            request.to,
            {number: name for name, number in request.classes.items()},
        )
        run = asyncio.get_running_loop().run_in_executor
        if request.searches:
            searches = {
                column.bytes: [Search(column.bytes, *each) for each in declared]
                for column, declared in request.searches.items()
            }
            return memoryview(await run(self._resealing, tokens, fields, *facts, searches))
        return memoryview(fields)[: await run(self._resealing, reseal, fields, *facts)]

    def refuse_peer(self, peer: Peer) -> KeyRefused:
        """Log that ``peer`` may not ask, and return what to tell it."""
        error = KeyRefused(
            "this operating system user may not ask the keeper", "start the keeper with --allow-uid for it"
        )
        self._log_refusal("connect", error, peer)
        return error

    async def sweep(self) -> NoReturn:
        """Drop keys as they become too old, for as long as the keeper runs."""
        while True:
            await asyncio.sleep(1)
            self._keys.sweep()

    def reload(self) -> None:
        """Forget keys that are kept. Files are read again with the next request, as always."""
        self._keys.forget()
        self._report(Line("reloaded", "keys in memory are forgotten"))

    def close(self) -> None:
        self._keys.forget()
        self._providers.close()
        self._flushing.submit(self._flush_files)
        self._flushing.shutdown(wait=True)
        self._resealing.shutdown(wait=False, cancel_futures=True)

    def _status(self) -> dict[str, Any]:
        calls = self._providers.calls
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started_at": self._started_at,
            "cached_keys": len(self._keys),
            "kms_calls": sum(calls.values()),
            "kms_calls_by_provider": calls,
            "releases": self._releases,
            "refusals": self._refusals,
            "cache_hits": self._keys.hits,
            "cache_misses": self._keys.misses,
            "kms_errors": self._providers.times.errors,
            "kms_seconds": self._providers.times.latencies.facts(),
            "release_seconds": self._took.facts(),
            "provider": self._providers.cell.scheme,
            "providers": self._providers.schemes,
            "regions": self._providers.regions,
            "ledger": len(self._ledger),
            "issuers": self._trust.count(),
            "public_key": self._administration.public_key(),
        }

    async def _answered(self, request: Request, line: _Line) -> dict[str, Any]:
        if is_for_administrators(request) and line.peer.uid not in self._administrators:
            raise KeyRefused(
                "this operating system user may not administer keys",
                "start the keeper with --admin-uid for it",
            )
        if isinstance(request, Checkpoint) and line.peer.uid not in self._administrators | self._scribes:
            raise KeyRefused(
                "this operating system user may not have checkpoints signed",
                "start the keeper with --scribe-uid for it",
            )
        match request:
            case Release(version=version, classes=classes):
                with tracing.span(
                    "wardkey.release",
                    wardkey_tenant=str(request.tenant),
                    wardkey_key_version=version,
                    wardkey_classes=len(classes),
                ):
                    return await self._release(request, line)
            case Cache(tenant=tenant, version=version):
                dek, claims = await self._dek(request, line)
                return {"key": to_base64(cache_key(dek, tenant.bytes, version, claims.role))}
            case Provision(tenant=tenant, version=version, target=kek, region=region):
                key, committed = await self._in_time(self._keys.provision(tenant, version, kek, region))
                return {"version": version, **_wrapped(key), "commitment": to_base64(committed)}
            case Derive(tenant=tenant, version=version, secret=master):
                salt, committed = await self._in_time(self._keys.derive(tenant, version, master))
                return {"salt": to_base64(salt), "commitment": to_base64(committed)}
            case Rewrap(key=key, commitment=committed, target=kek):
                return _wrapped(await self._in_time(self._keys.rewrap(key, committed, kek)))
            case Kek():
                return await self._in_time(self._administration.kek(request), ADMINISTRATION_SECONDS)
            case Tombstone() | Shred():
                return await self._administration.tombstone(request)
            case Lease():
                return self._lease(request, line)
            case Settle(settled=settled):
                self._counters.settle(settled)
                self._hurry()
                return {}
            case Usage(tenant=tenant):
                return {"windows": self._counters.usage(tenant)}
            case Logins():
                return await asyncio.to_thread(self._logins, request, line)
            case Grant():
                return await asyncio.to_thread(self._grant, request, line)
            case Certify():
                return self._administration.certify(request)
            case Report():
                return self._administration.report(request)
            case Checkpoint():
                return await asyncio.to_thread(self._checkpoint, request)
        raise TypeError(type(request).__name__)

    def _checkpoint(self, request: Checkpoint) -> dict[str, Any]:
        tenant, log = request.tenant, request.log or ""
        if request.readmit:
            self._checkpoints.readmit(tenant, log)
            return {}
        public_key = to_base64(self._checkpoints.public_key())
        if request.statement is not None:
            signature = self._checkpoints.sign(tenant, log, request.statement)
            return {"signature": to_base64(signature), "public_key": public_key}
        last = self._checkpoints.last(tenant, log)
        number, size, digest = (last.number, last.size, last.digest) if last else (0, 0, "")
        return {"public_key": public_key, "number": number, "size": size, "digest": digest}

    def _note(self, known: tuple[Peer, UUID, int]) -> None:
        if len(self._noted) >= MOST_NOTED:
            self._noted.clear()
        self._noted.add(known)

    async def _dek(self, request: Release | Cache, line: _Line) -> tuple[bytes, Claims]:
        """Return the DEK that keys are released of, and the verified claims of who asks for them."""
        if not request.token:
            raise KeyRefused("the keeper releases a key only to a token of its tenant")
        line.claims = claims = self._trust.verify(request.token, time.time())
        if claims.tenant_id != str(request.key.tenant):
            raise KeyRefused("the token belongs to another tenant than the key")
        self._ended.check(claims)
        if request.key.tenant == MASTER_TENANT:
            raise KeyRefused("the master secret is released to nobody")
        return await self._in_time(self._keys.committed(request.key, request.commitment)), claims

    async def _release(self, request: Release, line: _Line) -> dict[str, Any]:
        dek, claims = await self._dek(request, line)
        tenant, version = request.key.tenant.bytes, request.version
        allowed = self._policy.of(claims.role)
        access = {name: allowed[name].access for name in request.classes if name in allowed}
        if (grant := self._grants.active(request.key.tenant, claims)) is not None:
            line.grant = str(grant.id)
            access |= {name: "clear" for name in request.classes if name in grant.classes}
        line.classes = [name for name in access if access[name] != "none"]
        keys = {name: to_base64(class_key(dek, tenant, version, name)) for name in line.classes}
        answer = {
            "classes": keys,
            "masked": [name for name in line.classes if access[name] == "mask"],
            "search": {
                name: to_base64(search_key(dek, tenant, version, name))
                for name in line.classes
                if access[name] == "clear"
            },
        }
        if budgets := self._budgets.models(request.key.tenant, claims.role):
            answer["budgets"] = [*budgets]
        return answer

    def _lease(self, request: Lease, line: _Line) -> dict[str, Any]:
        line.claims = self._claims(request.tenant, request.token)
        self._ended.check(line.claims)
        budget = self._budgets.find(request.tenant, line.claims.role, request.model)
        if budget is None:  # it was dropped after the backend got its keys
            free = {"rows": MOST_LEASED, "seconds": LEASE_SECONDS, "left": LEASE_SECONDS, "limit": 0}
            return {"lease": "", **free, "salt": "", "known": False, "alert": None}
        lease = self._counters.lease(budget, line.claims, request.settled, request.row)
        self._hurry()
        return {
            "lease": lease.id,
            "rows": lease.rows,
            "seconds": lease.seconds,
            "left": lease.left,
            "limit": lease.limit,
            "salt": to_base64(lease.salt),
            "known": lease.is_known,
            "alert": lease.alert,
        }

    def _logins(self, request: Logins, line: _Line) -> dict[str, Any]:
        if request.action == "list":
            return {"subjects": self._ended.every(request.tenant)}
        if request.issuer is not None and request.subject is not None:
            act = self._ended.end if request.action == "end" else self._ended.lift
            act(request.tenant, request.issuer, request.subject)
        else:
            line.claims = claims = self._claims(request.tenant, request.token or "")
            self._ended.end(request.tenant, claims.issuer, claims.subject)
        return {}

    def _claims(self, tenant: UUID, token: str) -> Claims:
        claims = self._trust.verify(token, time.time())
        if claims.tenant_id != str(tenant):
            raise KeyRefused("the token belongs to another tenant", "use one of this tenant's")
        return claims

    def _grant(self, request: Grant, line: _Line) -> dict[str, Any]:
        grants, tenant = self._grants, request.tenant
        line.claims = claims = self._trust.verify(request.token, grants.now())
        if claims.tenant_id != str(tenant):
            raise GrantRefused("the token belongs to another tenant", "use one of this tenant's")
        match request:
            case Grant(action="allow" | "forbid" as action):
                grants.allow(tenant, claims, allowed=action == "allow")
                return {}
            case Grant(action="request", id=UUID() as id_, minutes=int() as minutes, reason=str() as reason):
                made = grants.request(
                    id_, tenant, claims, request.classes, minutes, reason, emergency=request.emergency
                )
            case Grant(action="approve", id=UUID() as id_, reason=str() as reason):
                made = grants.approve(id_, tenant, claims, reason)
            case Grant(action="deny", id=UUID() as id_):
                made = grants.deny(id_, tenant, claims)
            case Grant(id=UUID() as id_):
                made = grants.end(id_, tenant, claims)
            case _:
                raise TypeError(request.action)
        line.grant = str(made.id)
        return {"state": made.state, "started_at": made.started_at, "until": made.until}

    async def _committed(self, request: Reseal) -> dict[int, bytes]:
        keys = (self._keys.committed(key.of(request.tenant), key.commitment) for key in request.keys)
        deks = await self._in_time(asyncio.gather(*keys))
        return {key.version: dek for key, dek in zip(request.keys, deks, strict=True)}

    async def _in_time(self, result: Awaitable[_T], seconds: float | None = None) -> _T:
        try:
            async with asyncio.timeout(seconds or self._deadline):
                return await result
        except TimeoutError:
            pass
        raise KeeperUnavailable("the key management service did not answer in time", "see the keeper's log")

    async def _logged(self, line: _Line, answer: Awaitable[_T], *, quietly: bool = False) -> _T:
        """Await ``answer``, and give it away only once it is in the log: nobody could account for it else."""
        began = time.monotonic()
        try:
            answered = await answer
            if not quietly:
                self._log_line(line)
        except WardError as error:
            self._log_refusal(line.op, error, line.peer, line)
            raise
        if line.op == "release":
            self._releases += 1
            self._took.add(time.monotonic() - began)
        return answered

    def _log_line(self, line: _Line) -> None:
        try:
            self._log.write(
                line.op,
                line.outcome,
                line.peer,
                tenant=str(line.tenant),
                version=line.version,
                claims=line.claims,
                classes=line.classes,
                grant=line.grant,
            )
            self._hurry()
            return
        except OSError as error:
            self._report(
                Line(
                    "release_log_unwritable",
                    f"the release log cannot be written, so no key is released: {error.strerror}",
                )
            )
        raise KeeperUnavailable("the keeper cannot write its release log", "free space on its disk")

    def _hurry(self) -> None:
        """See that the release log is on the disk soon, without waiting for it."""
        if not self._is_written:
            self._is_written = True
            asyncio.get_running_loop().call_later(FLUSH_AFTER, self._flush)

    def _flush(self) -> None:
        self._is_written = False
        if self._flushed is not None and not self._flushed.done():
            return self._hurry()  # the disk is slow; nothing is queued behind what it has
        self._flushed = self._flushing.submit(self._flush_files)

    def _flush_files(self) -> None:
        self._log.flush()
        try:
            self._counters.flush()
        except OSError as error:
            self._report(
                Line(
                    "ledger_unwritable",
                    f"the counters of budgets cannot be put on the disk: {error.strerror}",
                )
            )

    def _log_refusal(self, op: str, error: WardError, peer: Peer, line: _Line | None = None) -> None:
        self._refusals += 1
        try:
            self._log.write(
                op,
                "refused",
                peer,
                tenant=str(line.tenant) if line else None,
                version=line.version if line else None,
                claims=line.claims if line else None,
                sqlstate=error.sqlstate,
                reason=error.message,
            )
            self._hurry()
        except OSError as failure:
            self._report(
                Line("release_log_unwritable", f"the release log cannot be written: {failure.strerror}")
            )


_OUTCOMES: dict[type[Request], str] = {
    Release: "released",
    Cache: "released",
    Provision: "provisioned",
    Derive: "derived",
    Rewrap: "rewrapped",
    Reseal: "resealed",
    Certify: "signed",
    Report: "signed",
    Checkpoint: "signed",
}


def _line(request: Request, peer: Peer) -> _Line:
    op, outcome = type(request).__name__.lower(), _OUTCOMES.get(type(request), "done")
    version = request.to if isinstance(request, Reseal) else getattr(request, "version", None)
    if isinstance(request, Kek | Grant | Logins):
        op = f"{op} {request.action}"
    elif isinstance(request, Checkpoint) and request.readmit:
        outcome = "readmitted"
    return _Line(op, outcome, peer, request.tenant, version)


def _wrapped(key: WrappedKey) -> dict[str, str]:
    return {"kek": key.kek.name, "kek_version": key.kek.version, "wrapped": to_base64(key.wrapped)}
