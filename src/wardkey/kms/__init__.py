"""Key management services: a module each in ``providers``, named by the scheme of its URIs.

A URI names a service and is no secret; credentials are in files of the keeper's directory, or in its
environment where a provider's own tools look for them. Each provider's module says which.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from . import providers
from .base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsError, KmsUnavailable, pauses

__all__ = [
    "KekRef",
    "KekVersion",
    "Kms",
    "KmsConfigurationError",
    "KmsDenied",
    "KmsError",
    "KmsUnavailable",
    "is_same",
    "may_hold",
    "open_kms",
    "pauses",
    "provider_of",
    "scheme_of",
    "schemes",
]


def schemes() -> list[str]:
    """Return the schemes of all providers there are."""
    return sorted(
        module.name for module in iter_modules(providers.__path__) if not module.name.startswith("_")
    )


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, or of a KEK's name."""
    return uri.partition(":")[0]


def provider_of(uri: str) -> type[Kms]:
    """Import the provider of a URI, and whatever that will ever import. Raises KmsConfigurationError."""
    scheme = scheme_of(uri)
    name = f"{providers.__name__}.{scheme}"
    missing: str | None = name
    if ":" in uri and re.fullmatch("[a-z][a-z0-9]*", scheme):
        try:
            members = vars(import_module(name)).values()
        except ModuleNotFoundError as error:
            missing = error.name
        else:
            return next(
                each
                for each in members
                if isinstance(each, type) and issubclass(each, Kms) and vars(each).get("scheme") == scheme
            )
    if missing == name:
        raise KmsConfigurationError(
            f"unknown KMS; known schemes: {', '.join(f'{each}:' for each in schemes())}"
        )
    raise KmsConfigurationError(
        f"{scheme}: needs a package that is not here ({missing}); install it with: "
        f"pip install 'wardkey[{scheme}]'"
    )


def open_kms(uri: str, directory: Path) -> Kms:
    """Return the provider that ``uri`` names. ``directory``: where its credentials are, and its state if any.

    Raises KmsConfigurationError.
    """
    return provider_of(uri)(uri, directory)


def is_same(one: str, other: str) -> bool:
    """Whether both URIs lead to one KMS, be it at another address or with other options."""
    if scheme_of(one) != scheme_of(other):
        return False
    provider = provider_of(one)
    return provider.place(one) == provider.place(other)


def may_hold(uri: str, kek: str) -> bool:
    """Whether a KEK of this name may be in the KMS at ``uri``, as far as its provider is there to tell."""
    if scheme_of(uri) != scheme_of(kek):
        return False
    try:
        return provider_of(uri).holds(uri, kek)
    except (KmsConfigurationError, ImportError, OSError):  # the keeper's user cannot read all packages
        return True
