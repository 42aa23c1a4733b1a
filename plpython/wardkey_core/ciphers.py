"""What wardkey uses of ``cryptography`` in a backend: AES-GCM, HKDF-SHA256 and Ed25519.

The classes are those of ``cryptography.hazmat``, taken from where its modules take them. Importing those
modules would cost each backend 15 to 20 ms, for ``typing``, ``enum``, ``threading`` and algorithms that it
does not use. The place is not public: it is the same in versions 43 to 50, and where it is not, the
public modules are imported. HKDF is here because the one of ``cryptography`` takes objects of those modules.
"""

from __future__ import annotations

import hmac

__all__ = ["AESGCM", "InvalidSignature", "InvalidTag", "ed25519_key", "hkdf"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

try:
    from cryptography.hazmat.bindings._rust import openssl as _openssl

    AESGCM = _openssl.aead.AESGCM
    _ed25519_key = _openssl.ed25519.from_public_bytes
except (ImportError, AttributeError):
    from cryptography.hazmat.primitives.asymmetric import ed25519 as _ed25519
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    _ed25519_key = _ed25519.Ed25519PublicKey.from_public_bytes


def __getattr__(name: str) -> Any:
    """Import an exception when one is compared with it."""
    if name not in ("InvalidSignature", "InvalidTag"):
        raise AttributeError(name)
    from cryptography import exceptions

    return getattr(exceptions, name)


def ed25519_key(public: bytes) -> Ed25519PublicKey:
    """Return the key of 32 bytes. Raises ValueError."""
    return _ed25519_key(public)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes: HKDF-SHA256 (RFC 5869), of which they are the first block."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), info + b"\x01", "sha256")
