"""What wardkey asks of a key management service, whichever it is.

A provider keeps one KEK (key encryption key) per tenant, which never leaves it, and wraps the tenant's DEKs
under it. A provider is one module with one class; ``open_kms`` chooses it by the scheme of a URI.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

__all__ = ["KekRef", "Kms", "KmsConfigurationError", "KmsDenied", "KmsError", "KmsUnavailable"]


class KmsError(Exception):
    """Base class.

    Messages are constants of the provider: no key, wrapped key or credential is ever in one.
    """

    transient: ClassVar[bool] = False


class KmsDenied(KmsError):
    """Permanent: no such KEK, no permission, or a wrapped DEK that is not of this KEK and additional data."""


class KmsUnavailable(KmsError):
    """Transient: no answer, or an answer that says to try again."""

    transient = True


class KmsConfigurationError(KmsError):
    """The provider cannot be used as it is configured."""


@dataclass(frozen=True, slots=True)
class KekRef:
    """A KEK, as it is kept beside each DEK wrapped under it.

    ``name`` begins with the provider's scheme (``local:6f1c…``); ``version`` is the provider's own word for
    it.
    """

    name: str
    version: str


class Kms(ABC):
    """A key management service. Methods block, may be called from several threads, and raise KmsError only.

    A method gives up within a few seconds and does not retry: whoever calls it does.
    """

    scheme: ClassVar[str]

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
