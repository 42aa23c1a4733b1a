"""Key management services, chosen by the scheme of a URI: ``local:``."""

from __future__ import annotations

from pathlib import Path

from .base import KekRef, Kms, KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable

__all__ = ["KekRef", "Kms", "KmsConfigurationError", "KmsDenied", "KmsError", "KmsUnavailable", "open_kms"]


def open_kms(uri: str, directory: Path) -> Kms:
    """Return the provider that ``uri`` names. ``directory`` is the keeper's, for those that keep state.

    Raises KmsConfigurationError.
    """
    scheme, separator, _ = uri.partition(":")
    if separator and scheme == "local":
        from .local import LocalKms

        return LocalKms(uri, directory)
    raise KmsConfigurationError(f"unknown KMS {uri.partition('?')[0]!r}; known schemes: local:")
