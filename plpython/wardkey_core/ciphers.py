"""The cryptography of a backend: AES-GCM, HKDF-SHA256, Ed25519 and hashes, from where they load quickly.

The classes are those of ``cryptography.hazmat``, taken from where its modules take them. Importing those
modules would cost each backend 15 to 20 ms, for ``typing``, ``enum``, ``threading`` and algorithms that it
does not use. The place is not public: it is the same in versions 43 to 50, and where it is not, the
public modules are imported. HKDF is here because the one of ``cryptography`` takes objects of those modules.

Their library makes forty modules when it is imported. A backend makes the two that are needed, without the
others, for half of what the library costs (``wardkey_pg.together``). They have the same classes
as those of a later import of all of it.

The hashes are those that ``hashlib`` has without OpenSSL. ``hashlib`` itself sets the server's OpenSSL up
beside that of ``cryptography``, which takes 3 ms. Without it SHA-256 is slow, BLAKE2 is not: what is hashed
often and stays in the backend is hashed with the latter.
"""

from __future__ import annotations

import sys

__all__ = ["AESGCM", "InvalidSignature", "InvalidTag", "blake2b", "ed25519_key", "hkdf", "sha256"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import blake2b, sha256
    from typing import Any

    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
else:
    try:
        from _blake2 import blake2b

        try:
            from _sha256 import sha256
        except ImportError:
            from _sha2 import sha256  # since Python 3.12
    except ImportError:
        from hashlib import blake2b, sha256

_OPENSSL = "cryptography.hazmat.bindings._rust.openssl"

try:
    if not TYPE_CHECKING and f"{_OPENSSL}.ed25519" in sys.modules:
        _aead, _curve = sys.modules[f"{_OPENSSL}.aead"], sys.modules[f"{_OPENSSL}.ed25519"]
    else:
        from cryptography.hazmat.bindings._rust import openssl as _openssl

        _aead, _curve = _openssl.aead, _openssl.ed25519
    AESGCM = _aead.AESGCM
    _ed25519_key = _curve.from_public_bytes
except (ImportError, AttributeError, KeyError):
    from cryptography.hazmat.primitives.asymmetric import ed25519 as _ed25519
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    _ed25519_key = _ed25519.Ed25519PublicKey.from_public_bytes

_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


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
    return _hmac(_hmac(salt, key), info + b"\x01")


def _hmac(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104)."""
    block = (sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = sha256(block.translate(_INNER) + message).digest()
    return sha256(block.translate(_OUTER) + inner).digest()
