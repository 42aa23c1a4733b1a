"""Key management services, chosen by the scheme of a URI; a module for each.

A URI names a service and is no secret; credentials are in files of the keeper's directory, or in its
environment where a provider's own tools look for them. Each provider's module says which.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from .base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable

__all__ = [
    "KekRef",
    "KekVersion",
    "Kms",
    "KmsConfigurationError",
    "KmsDenied",
    "KmsError",
    "KmsUnavailable",
    "load_provider",
    "open_kms",
]

# scheme: module, class, the extra of the wheel that brings what it imports
_PROVIDERS = {
    "local": ("local", "LocalKms", ""),
    "gcpkms": ("gcpkms", "GcpKms", "gcp"),
    "awskms": ("awskms", "AwsKms", "aws"),
    "vault": ("vault", "VaultKms", "vault"),
    "pkcs11": ("pkcs11", "Pkcs11Kms", "pkcs11"),
}


def open_kms(uri: str, directory: Path) -> Kms:
    """Return the provider that ``uri`` names. ``directory``: where its credentials are, and its state if any.

    Raises KmsConfigurationError.
    """
    return load_provider(uri)(uri, directory)


def load_provider(uri: str) -> Callable[[str, Path], Kms]:
    """Import the provider that ``uri`` names and return what opens it. Raises KmsConfigurationError.

    Whatever the provider will ever import is imported by this call.
    """
    scheme, separator, _ = uri.partition(":")
    if not separator or scheme not in _PROVIDERS:
        raise KmsConfigurationError(
            f"unknown KMS; known schemes: {', '.join(f'{name}:' for name in _PROVIDERS)}"
        )
    module, name, extra = _PROVIDERS[scheme]
    missing: str | None = None
    try:
        provider: Callable[[str, Path], Kms] = getattr(import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        missing = error.name
    else:
        return provider
    raise KmsConfigurationError(
        f"{scheme}: needs a package that is not here ({missing}); install it with: "
        f"pip install 'wardkey[{extra}]'"
    )
