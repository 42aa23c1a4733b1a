"""What wardkey asks of a key management service, whichever it is.

A provider keeps one KEK (key encryption key) per tenant, which never leaves it, and wraps the tenant's DEKs
under it. A provider is one module with one class; ``open_kms`` chooses it by the scheme of a URI.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from uuid import UUID

__all__ = [
    "KekRef",
    "KekVersion",
    "Kms",
    "KmsConfigurationError",
    "KmsDenied",
    "KmsError",
    "KmsUnavailable",
    "address_of",
    "pauses",
]


class KmsError(Exception):
    """Base class.

    Messages are constants of the provider: no key, wrapped key or credential is ever in one.
    """

    transient: ClassVar[bool] = False
    retry_after: float = 0.0  # seconds


class KmsDenied(KmsError):
    """Permanent: no such KEK, no permission, or a wrapped DEK that is not of this KEK and additional data."""


class KmsUnavailable(KmsError):
    """Transient: no answer, or an answer that says to try again, not before ``retry_after`` seconds."""

    transient = True

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KmsConfigurationError(KmsError):
    """The provider cannot be used as it is configured."""


@dataclass(frozen=True, slots=True)
class KekRef:
    """A KEK, as it is kept beside each DEK wrapped under it.

    ``name`` begins with the provider's scheme (``local:6f1c…``); ``version`` is the provider's own name for
    it.
    """

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class KekVersion:
    """A version of a KEK as the KMS reports it.

    ``state``: ``enabled``, ``disabled`` (can be enabled again), ``scheduled`` (will be destroyed at
    ``destroyed_at``, in Unix seconds, and cannot be used meanwhile) or ``destroyed``.
    """

    version: str
    state: str
    created_at: float | None = None
    destroyed_at: float | None = None


def pauses(first: float) -> Iterator[float]:
    """Yield the seconds to wait before each attempt: none, then ``first`` and twice as long each time.

    A random part of it, so that not all that failed at once come again at once.
    """
    yield 0.0
    for attempt in range(3):
        yield random.uniform(0.5, 1) * first * 2**attempt  # noqa: S311


def address_of(uri: str) -> str:
    """Return what stands between scheme and options."""
    return uri.partition(":")[2].removeprefix("//").partition("?")[0]


class Kms(ABC):
    """A key management service. Methods block, may be called from several threads, and raise KmsError only.

    A method gives up within a few seconds for each call to the KMS and does not retry: the caller
    does. ``wrap`` and ``unwrap`` are the keeper's; the others manage KEKs and want the orchestrator's
    credential, where the KMS tells the two apart. All of these may be repeated: what is done already stays
    done, and what is gone needs nothing more.
    """

    scheme: ClassVar[str]
    """What URIs and names of KEKs begin with: the name of the provider's module and extra."""
    files: ClassVar[tuple[str, ...]] = ()
    """Names of the files in its directory: with the credential, and with certificates to trust, if any."""
    copies: ClassVar[str | None] = None
    """Where copies of a destroyed KEK may remain."""
    names_tell: ClassVar[bool] = True
    """Whether the name of a KEK tells which KMS of this scheme it is in."""
    is_asymmetric: ClassVar[bool] = False
    """Who has no right to wrap can: under a public key. The keeper then signs what it wraps."""

    @abstractmethod
    def __init__(self, uri: str, directory: Path) -> None:
        """Raises KmsConfigurationError. ``directory``: where its files are."""

    @classmethod
    def place(cls, uri: str) -> str:
        """Return what of ``uri`` tells one KMS of this scheme from another: not how it is reached."""
        return address_of(uri)

    @classmethod
    def holds(cls, uri: str, kek: str) -> bool:
        """Whether a KEK of this name may be in the KMS at ``uri``."""
        return kek.startswith(f"{cls.scheme}:")

    @abstractmethod
    def create_kek(self, tenant: UUID) -> KekRef:
        """Return the tenant's current KEK; make it first when the tenant has none."""

    @abstractmethod
    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        """Encrypt ``dek`` (32 bytes) under ``kek``, bound to ``aad``."""

    @abstractmethod
    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        """Return what was wrapped.

        Raises KmsDenied when ``kek``, ``wrapped`` and ``aad`` do not belong together.
        """

    @abstractmethod
    def rotate_kek(self, tenant: UUID) -> KekRef:
        """Give the tenant's KEK a new version and return it. From now on it is the current one.

        Older ones go on to wrap and unwrap. Raises KmsDenied when the tenant has no KEK.
        """

    @abstractmethod
    def disable_kek(self, kek: KekRef) -> None:
        """Let nothing be wrapped or unwrapped under this version any more, for now.

        Raises KmsDenied for the current version. Go from the oldest on: Vault disables and destroys in this
        order only, and refuses (KmsDenied) a version with an older one before it.
        """

    @abstractmethod
    def destroy_kek(self, kek: KekRef) -> None:
        """Destroy this version, as soon as the KMS allows it, and use it no more meanwhile.

        Raises KmsDenied as ``disable_kek`` does.
        """

    @abstractmethod
    def destroy_all(self, tenant: UUID) -> None:
        """Destroy every version of the tenant's KEK; nothing to do when there is none.

        Where the KMS can show that it was destroyed, no further one is made: ``create_kek`` and
        ``rotate_kek`` raise KmsDenied. Elsewhere (Vault, PKCS#11; AWS when it is gone for good) nothing is
        left to tell by, and the keeper's ledger refuses.
        """

    def leave_kek(self, tenant: UUID, kek: KekRef) -> None:
        """Disable a version that may be the current one: the tenant is with another KMS now.

        The current one is rotated first, so that the version which stays enabled wraps nothing. Raises
        KmsDenied when the KMS has no such version.
        """
        known = {version.version: version for version in self.kek_versions(tenant)}
        if kek.version not in known:
            raise KmsDenied("there is no such version of the tenant's KEK")
        if known[kek.version].state != "enabled":
            return
        current = self.create_kek(tenant)
        if current == kek:
            current = self.rotate_kek(tenant)
        for version in known.values():  # oldest first: those before it wrap nothing any more either
            if version.state == "enabled" and version.version != current.version:
                self.disable_kek(KekRef(kek.name, version.version))

    @abstractmethod
    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        """Return what the KMS knows of the tenant's KEK, oldest first; empty when it knows nothing."""
