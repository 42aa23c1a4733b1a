"""What the keeper does for administrators of keys: KEKs, tombstones, certificates of destruction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperUnavailable, KeyRefused, WardError
from wardkey_core.wire import to_base64

from wardkey.kms import KekRef, Kms, KmsError

from .keys import Keys
from .ledger import Ledger
from .providers import Provider, Providers
from .requests import MASTER_TENANT, Certify, Checkpoint, Kek, Logins, Report, Shred, Tombstone, Usage
from .signing import SigningKey

__all__ = ["Administration", "is_for_administrators"]

_T = TypeVar("_T")


def is_for_administrators(request: object) -> bool:
    """Whether the request can end keys, has the keeper sign, or is about what people did."""
    match request:
        case Tombstone() | Shred() | Certify() | Report() | Usage():
            return True
        case Logins(action=action, token=token):
            return action != "end" or token is None
        case Checkpoint(readmit=readmit):
            return readmit
        case Kek(action=action):
            return action in ("disable", "leave", "destroy", "destroy_all")
    return False


class Administration:
    """Methods return the answer and raise WardError. Who may ask them was decided before."""

    def __init__(self, providers: Providers, keys: Keys, ledger: Ledger, signing: SigningKey) -> None:
        self._providers = providers
        self._keys = keys
        self._ledger = ledger
        self._signing = signing

    async def kek(self, request: Kek) -> dict[str, Any]:
        """Have the KMS make, rotate, list or end KEKs. All of it may be repeated."""
        tenant = request.tenant
        if request.action in ("create", "rotate"):
            self._ledger.check(tenant)
            made = await _manage(
                self._providers.of(tenant, request.region)[0],
                lambda kms: kms.create_kek(tenant) if request.action == "create" else kms.rotate_kek(tenant),
            )
            return {"kek": made.name, "kek_version": made.version}
        if request.target is not None:
            kek, action = request.target, request.action
            ends: Mapping[str, Callable[[Kms], None]] = {
                "disable": lambda kms: kms.disable_kek(kek),
                "leave": lambda kms: kms.leave_kek(tenant, kek),
                "destroy": lambda kms: kms.destroy_kek(kek),
            }
            await _manage(await self._holding(tenant, kek), ends[action])
            return {}
        if request.action == "destroy_all":
            self._check_shredded(tenant, "the KEK of a tenant that is not shredded is not destroyed")
            present = self._providers.everywhere(tenant)
            left = [each for each in present if each.label not in request.managed]
            await self._destroy_all(tenant, left)
            return {}
        present = self._providers.of(tenant, request.region)
        versions = await _manage(present[0], lambda kms: kms.kek_versions(tenant))
        return {
            "versions": [
                {
                    "version": each.version,
                    "state": each.state,
                    "created_at": each.created_at,
                    "destroyed_at": each.destroyed_at,
                }
                for each in versions
            ]
        }

    async def tombstone(self, request: Tombstone | Shred) -> dict[str, Any]:
        """Refuse a tenant, or one version of its key, from now on and for ever."""
        version = request.version if isinstance(request, Tombstone) else None
        if request.tenant == MASTER_TENANT and version is None:
            raise Unsupported("the master secret is not a tenant; name one of its versions")
        entry = await asyncio.to_thread(self._ledger.add, request.tenant, version, request.name)
        self._keys.forget(request.tenant, version)
        return {"time": entry.time}

    def certify(self, request: Certify) -> dict[str, Any]:
        """Sign what is said of a tenant that the ledger has."""
        self._check_shredded(
            request.tenant, "a tenant that is not shredded gets no certificate of destruction"
        )
        signature, public_key = self._signing.certify(request.statement)
        return {"signature": to_base64(signature), "public_key": to_base64(public_key)}

    def report(self, request: Report) -> dict[str, Any]:
        """Sign the report of an incident: an administrator of this keeper made it, and it is whole."""
        signature, public_key = self._signing.sign_report(request.digest)
        return {"signature": to_base64(signature), "public_key": to_base64(public_key)}

    def public_key(self) -> str | None:
        """Return the public key of certificates, None when there is none or it cannot be read."""
        try:
            key = self._signing.public_key()
        except KeeperUnavailable:
            return None
        return to_base64(key) if key else None

    def _check_shredded(self, tenant: UUID, refusal: str) -> None:
        if self._ledger.find(tenant) is None:
            raise KeyRefused(refusal, "shred it first: wardkey tenant shred SLUG")

    async def _destroy_all(self, tenant: UUID, providers: Sequence[Provider]) -> None:
        """Ask all of them, before the first refusal is raised."""
        refused: list[WardError] = []
        for provider in providers:
            try:
                await _manage(provider, lambda kms: kms.destroy_all(tenant))
            except WardError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    async def _holding(self, tenant: UUID, kek: KekRef) -> Provider:
        """Return whom the KEK is of. Where a name fits several, they are asked which has the version."""
        providers = self._providers.named(tenant, kek.name)
        if not providers:
            raise KeyRefused("the KEK is of no key management service that is configured", "see kms.json")
        for provider in providers[:-1]:
            known = await _manage(provider, lambda kms: kms.kek_versions(tenant))
            if kek.version in (version.version for version in known):
                return provider
        return providers[-1]


async def _manage(provider: Provider, call: Callable[[Kms], _T]) -> _T:
    """Ask for what the keeper's credential may well not be allowed to do."""
    try:
        return await provider.ask(call)
    except KmsError as error:  # its text is one of the provider's own and tells no secret
        refused = f"the key management service refused: {error}"
    raise KeyRefused(
        refused, "KEKs are managed with the orchestrator's credential: wardkey kms use --admin-uri"
    )
