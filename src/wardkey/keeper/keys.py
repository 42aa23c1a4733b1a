"""What the keeper does with keys: unwraps, makes, derives and rewraps DEKs, and holds them for a while.

Anybody can wrap a DEK of his own choice under the public key of an asymmetric KEK, and put it in the registry
if he can write there. What the keeper wraps under such a KEK is therefore signature (64) · ciphertext, signed
with its Ed25519 key: tenant (16), version (8), then region, KEK, KEK version and ciphertext, each after its
length (4); numbers are big-endian. The signature is checked before the KMS is asked.

A key in the ledger is refused, before the KMS is asked and again before the answer: it may have been
destroyed meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from dataclasses import dataclass, field, replace
from uuid import UUID

from wardkey_core.envelope import DEK_LENGTH, SALT_LENGTH, commitment, derive_dek, key_aad
from wardkey_core.errors import CommitmentMismatch, KeyRefused

from wardkey.kms import KekRef, Kms

from .cache import KeyCache
from .ledger import Ledger
from .providers import Providers
from .requests import MASTER_TENANT, WrappedKey
from .signing import SIGNATURE_LENGTH, SigningKey

__all__ = ["Keys", "signed"]

_Identity = tuple[UUID, int, bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """A DEK on its way through asyncio, which shows the results of its tasks when one of them goes wrong."""

    dek: bytes = field(repr=False)


class Keys:
    """Methods raise KeyDestroyed, KeyRefused, KeeperUnavailable, and take as long as the KMS takes."""

    def __init__(self, providers: Providers, ledger: Ledger, signing: SigningKey, ttl: float) -> None:
        self._providers = providers
        self._signing = signing
        self._ledger = ledger
        self._cache = KeyCache[_Identity](ttl)
        self._pending: dict[_Identity, asyncio.Task[Opened]] = {}
        self.hits = self.misses = 0  # of the cache

    def __len__(self) -> int:
        return len(self._cache)

    def sweep(self) -> None:
        """Drop the keys that are too old."""
        self._cache.sweep()

    def forget(self, tenant: UUID | None = None, version: int | None = None) -> None:
        """Drop a tenant's keys, or one of them, or all."""

        self._cache.forget(lambda key: tenant in (None, key[0]) and version in (None, key[1]))

    async def opened(self, key: WrappedKey) -> bytes:
        """Return the DEK."""
        self._check(key)
        if key.master is None:
            dek = await self._unwrapped(key)
        else:
            master = await self._unwrapped(
                replace(key, tenant=MASTER_TENANT, version=key.master, master=None, salt=b"")
            )
            dek = derive_dek(master, key.tenant.bytes, key.version, key.salt)
        self._check(key)
        return dek

    async def committed(self, key: WrappedKey, committed: bytes) -> bytes:
        """Return the DEK when it is the one committed to. Raises CommitmentMismatch."""
        dek = await self.opened(key)
        if not hmac.compare_digest(commitment(dek, key.tenant.bytes, key.version), committed):
            raise CommitmentMismatch
        return dek

    async def provision(
        self, tenant: UUID, version: int, kek: KekRef | None, region: str
    ) -> tuple[WrappedKey, bytes]:
        """Return a new DEK, wrapped under ``kek`` or else the tenant's current KEK, and its commitment."""
        self._ledger.check(tenant, version)
        dek = os.urandom(DEK_LENGTH)
        made = await self._wrapped(tenant, version, dek, kek or await self._current(tenant, region), region)
        self._ledger.check(tenant, version)
        return made, commitment(dek, tenant.bytes, version)

    async def derive(self, tenant: UUID, version: int, master: WrappedKey) -> tuple[bytes, bytes]:
        """Return a new salt, and the commitment of the DEK that derives from ``master`` with it."""
        salt = os.urandom(SALT_LENGTH)
        key = replace(master, tenant=tenant, version=version, master=master.version, salt=salt)
        return salt, commitment(await self.opened(key), tenant.bytes, version)

    async def rewrap(self, key: WrappedKey, committed: bytes, to: KekRef | None) -> WrappedKey:
        """Return the key wrapped under ``to``, else the tenant's current KEK. Raises CommitmentMismatch.

        What the KMS wrapped is opened again before anybody throws the old one away, and stays in the cache:
        the next release asks the KMS the less.
        """
        dek = await self.committed(key, committed)
        kek = to or await self._current(key.tenant, key.region)
        if kek == key.kek:
            return key
        rewrapped = await self._wrapped(key.tenant, key.version, dek, kek, key.region)
        await self.committed(rewrapped, committed)
        return rewrapped

    async def _current(self, tenant: UUID, region: str) -> KekRef:
        present = self._providers.of(tenant, region)[:1]
        return await self._providers.ask(present, lambda kms: kms.create_kek(tenant))

    async def _wrapped(self, tenant: UUID, version: int, dek: bytes, kek: KekRef, region: str) -> WrappedKey:
        aad = key_aad(tenant.bytes, version, region)

        def wrap(kms: Kms) -> WrappedKey:
            made = WrappedKey(tenant, version, kek, kms.wrap(kek, dek, aad), region=region)
            return replace(made, wrapped=signed(made, self._signing)) if kms.is_asymmetric else made

        return await self._providers.ask(self._providers.named(tenant, kek.name, region)[:1], wrap)

    async def _unwrapped(self, key: WrappedKey) -> bytes:
        """Return what is wrapped, from the cache or the KMS, asked once however many wait for one key."""
        digest = hashlib.sha256(_record(key)).digest()
        identity = (key.tenant, key.version, digest)
        dek = self._cache.get(identity)
        if dek is not None:
            self.hits += 1
            return dek
        self.misses += 1
        task = self._pending.get(identity)
        if task is None:
            task = self._pending[identity] = asyncio.create_task(self._unwrap(identity, key))
            task.add_done_callback(lambda done: self._settle(identity, done))
        return (await asyncio.shield(task)).dek

    def _settle(self, identity: _Identity, task: asyncio.Task[Opened]) -> None:
        del self._pending[identity]
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not print it when nobody waited to the end

    async def _unwrap(self, identity: _Identity, key: WrappedKey) -> Opened:
        aad = key_aad(key.tenant.bytes, key.version, key.region)

        def unwrap(kms: Kms) -> Opened:
            wrapped = key.wrapped
            if kms.is_asymmetric:
                signature, wrapped = wrapped[:SIGNATURE_LENGTH], wrapped[SIGNATURE_LENGTH:]
                if not self._signing.has_signed_wrapped(signature, _record(replace(key, wrapped=wrapped))):
                    raise KeyRefused(
                        "the wrapped key is not signed by this keeper",
                        "restore signing.key of the keeper, or name its public key in signing.former",
                    )
            return Opened(kms.unwrap(key.kek, wrapped, aad))

        opened = await self._providers.ask(
            self._providers.named(key.tenant, key.kek.name, key.region), unwrap
        )
        if len(opened.dek) != DEK_LENGTH:
            raise KeyRefused("the key management service returned something that is not a data key")
        self._check(key)
        self._cache.put(identity, opened.dek)
        return opened

    def _check(self, key: WrappedKey) -> None:
        self._providers.check_region(key.region)
        self._ledger.check(key.tenant, key.version)
        if key.master is not None:
            self._ledger.check(MASTER_TENANT, key.master)


def signed(key: WrappedKey, signing: SigningKey) -> bytes:
    """Return what stands in the registry for a DEK that was wrapped under a public key."""
    return signing.sign_wrapped(_record(key)) + key.wrapped


def _record(key: WrappedKey) -> bytes:
    """Return what is signed of a wrapped DEK, and which one it is for the cache."""
    parts = (*(text.encode("utf-8") for text in (key.region, key.kek.name, key.kek.version)), key.wrapped)
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return key.tenant.bytes + key.version.to_bytes(8, "big") + framed
