"""Key management services, chosen by the scheme of a URI: ``local:``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .base import KekRef, Kms, KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable

__all__ = [
    "KekRef",
    "Kms",
    "KmsConfigurationError",
    "KmsDenied",
    "KmsError",
    "KmsUnavailable",
    "load_provider",
    "open_kms",
]


def open_kms(uri: str, directory: Path) -> Kms:
    """Return the provider that ``uri`` names. ``directory`` is the keeper's, for those that keep state.

    Raises KmsConfigurationError.
    """
    return load_provider(uri)(uri, directory)


def load_provider(uri: str) -> Callable[[str, Path], Kms]:
    """Import the provider that ``uri`` names and return what opens it. Raises KmsConfigurationError."""
    scheme, separator, _ = uri.partition(":")
    if separator and scheme == "local":
        from .local import LocalKms

        return LocalKms
    raise KmsConfigurationError(f"unknown KMS {uri.partition('?')[0]!r}; known schemes: local:")
