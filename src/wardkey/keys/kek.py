"""Making, rotating and destroying KEKs, which the keeper's credential should not be able to do.

The orchestrator's directory has ``kms.json`` (``wardkey.kms.configured``) and credentials of its own. Where
a KMS has no ``admin`` there, the orchestrator has no credential for it, and the keeper is asked instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.errors import KeeperUnavailable, KeyRefused, RegionRefused
from wardkey_core.wire import DEFAULT_REGION

from ..errors import ServerError, WardError
from ..kms import (
    KekRef,
    KekVersion,
    Kms,
    KmsConfigurationError,
    KmsDenied,
    KmsError,
    configured,
    open_kms,
    pauses,
)
from ..kms.configured import Entry

__all__ = ["Keks"]

_FIRST_PAUSE = 0.2  # seconds

_T = TypeVar("_T")


class Keks:
    """The KEKs of one cell. ``directory`` is the orchestrator's, ``socket`` the keeper's.

    Methods raise KeyRefused, KeeperUnavailable, ServerError. All may be repeated.
    """

    def __init__(self, directory: Path, socket: Path) -> None:
        self._directory = directory
        self._keeper = client.Client(socket)
        try:
            self._configuration = configured.read(directory)
        except KmsConfigurationError as error:
            raise _explained(error) from None
        self._opened: dict[tuple[UUID | None, str, str], Kms] = {}

    def uri(self, tenant: UUID, region: str = DEFAULT_REGION) -> str | None:
        """Return the KMS that is asked directly for this tenant, None when the keeper is asked."""
        return self._present(tenant, region).admin

    def create(self, tenant: UUID, region: str = DEFAULT_REGION) -> KekRef:
        """Return the tenant's current KEK; make it first when there is none."""
        kms = self._open(self._present(tenant, region))
        if kms is None:
            return self._made(tenant, "create", region)
        return _patiently(lambda: kms.create_kek(tenant))

    def rotate(self, tenant: UUID, region: str = DEFAULT_REGION) -> KekRef:
        """Give the tenant's KEK a new version and return it."""
        kms = self._open(self._present(tenant, region))
        if kms is None:
            return self._made(tenant, "rotate", region)
        return _patiently(lambda: kms.rotate_kek(tenant))

    def disable(self, tenant: UUID, kek: KekRef) -> None:
        """Let nothing be wrapped or unwrapped under this version any more, for now."""
        self._on(tenant, kek, "disable", lambda kms: kms.disable_kek(kek))

    def leave(self, tenant: UUID, kek: KekRef) -> None:
        """Do the same with a version in a KMS that the tenant has left, where it may be the current one."""
        self._on(tenant, kek, "leave", lambda kms: kms.leave_kek(tenant, kek))

    def has_several(self, tenant: UUID) -> bool:
        """Whether KEKs of the tenant may be in another KMS, too, than the one that makes them now."""
        return len(self._configuration.of(tenant)) > 1

    def is_ambiguous(self, tenant: UUID, kek: KekRef) -> bool:
        """Whether the name alone does not tell which of the tenant's KMSes the KEK is in."""
        entries = self._configuration.of(tenant)
        if any(entry.tenant is not None and entry.is_left for entry in entries):
            return True
        return len(self._configuration.holding(tenant, kek.name)) > 1

    def destroy(self, tenant: UUID, kek: KekRef) -> None:
        """Destroy this version. Refused for the current one."""
        self._on(tenant, kek, "destroy", lambda kms: kms.destroy_kek(kek))

    def destroy_all(self, tenant: UUID) -> None:
        """Destroy every version of the tenant's KEK, and let no further one be made of that name.

        KMSes that the tenant's KEK may have been in before are asked too; all, before the first refusal is
        raised.
        """
        refused: list[WardError] = []
        entries = self._configuration.of(tenant)
        for entry in entries:
            try:
                if (kms := self._open(entry)) is not None:
                    _patiently(lambda: kms.destroy_all(tenant))
            except WardError as error:
                refused.append(error)
        managed = [entry.label for entry in entries if entry.admin]
        if len(managed) < len(entries):
            try:  # the keeper's credential may not do in the others what was just done there
                self._ask(tenant, "destroy_all", managed=managed)
            except WardError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def versions(self, tenant: UUID, region: str = DEFAULT_REGION) -> list[KekVersion]:
        """Return what the KMS knows of the tenant's KEK, oldest first."""
        kms = self._open(self._present(tenant, region))
        if kms is None:
            answer = self._ask(tenant, "versions", region=region)
            return [KekVersion(**version) for version in answer["versions"]]
        return _patiently(lambda: kms.kek_versions(tenant))

    def _on(self, tenant: UUID, kek: KekRef, action: str, call: Callable[[Kms], None]) -> None:
        """Ask whom the KEK is of: after a move, that is not whom the tenant's next one will be of."""
        kms = self._holding(tenant, kek)
        if kms is None:
            self._ask(tenant, action, kek=kek.name, kek_version=kek.version)
        else:
            _patiently(lambda: call(kms))

    def _holding(self, tenant: UUID, kek: KekRef) -> Kms | None:
        """Return whom the KEK is of. Where a name fits several, they are asked which has the version."""
        ambiguous = self.is_ambiguous(tenant, kek)
        for entry in self._configuration.holding(tenant, kek.name):
            kms = self._open(entry)
            if kms is not None and (not ambiguous or _has(kms, tenant, kek)):
                return kms
        return None

    def _present(self, tenant: UUID, region: str) -> Entry:
        entries = self._configuration.of(tenant, region)
        if not entries:
            raise RegionRefused(f"no key management service serves region {region}", "see: wardkey kms show")
        return entries[0]

    def _open(self, entry: Entry) -> Kms | None:
        if entry.admin is None:
            return None
        identity = (*entry.key, entry.admin)
        if identity not in self._opened:
            os.environ.update(self._configuration.environment)  # modules in C look there, and nowhere else
            try:
                self._opened[identity] = open_kms(entry.admin, entry.directory(self._directory))
            except KmsError as error:
                raise _explained(error) from None
        return self._opened[identity]

    def _made(self, tenant: UUID, action: str, region: str) -> KekRef:
        answer = self._ask(tenant, action, region=region)
        return KekRef(answer["kek"], answer["kek_version"])

    def _ask(self, tenant: UUID, action: str, **members: Any) -> dict[str, Any]:
        return self._keeper.ask(wire.manage_kek(str(tenant), action, **members))


def _has(kms: Kms, tenant: UUID, kek: KekRef) -> bool:
    return kek.version in (known.version for known in _patiently(lambda: kms.kek_versions(tenant)))


def _patiently(call: Callable[[], _T]) -> _T:
    failure = KmsError()
    for pause in pauses(_FIRST_PAUSE):
        time.sleep(max(pause, failure.retry_after))
        try:
            return call()
        except KmsError as error:
            failure = error
            if not error.transient:
                break
    raise _explained(failure)


def _explained(error: KmsError) -> KeyRefused | KeeperUnavailable | ServerError:
    if isinstance(error, KmsDenied):
        return KeyRefused(
            f"the key management service refused the orchestrator: {error}",
            "see what its credential may do: wardkey kms check",
        )
    if error.transient:
        return KeeperUnavailable(
            f"the key management service does not answer the orchestrator: {error}", "try again"
        )
    return ServerError(str(error), "see: wardkey kms show")
