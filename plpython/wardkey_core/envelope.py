"""The bytes of a sealed value, and the keys it is sealed under. Pure: bytes in, bytes out.

A sealed value, 33 bytes longer than its plaintext::

    0x01 · class (1) · DEK version (3, big-endian) · nonce (12, random) · ciphertext · tag (16)

* Cipher: AES-256-GCM (NIST SP 800-38D).
* Class key: HKDF-SHA256 (RFC 5869) of the tenant's DEK, salt = tenant id (16 bytes), info = ``wardkey/1
  class`` · DEK version (4, big-endian) · name of the class (UTF-8). The number in the header says which of
  the class keys it is; what it is derived from is the name. DEKs stay in the keeper, class keys go to
  backends.
* Key: HKDF-SHA256 of the class key, salt = tenant id, info = ``wardkey/1 column`` · column id (16 bytes): a
  key of its own per tenant, DEK version, class and column, so that the bound of 2^32 random nonces is per
  column.
* Additional data: ``wardkey/1``, tenant id, class and DEK version as in the header (4 bytes), column id, each
  behind its length (4 bytes, big-endian), then the row id, which runs to the end. No two different tuples
  give the same bytes.
* Row id: 8 bytes big-endian for an integer key, 16 bytes for a uuid, UTF-8 for text; of a key of several
  columns each part behind its length (4 bytes).

``tests/vectors/`` holds vectors and a decoder that shares no code with this file.
"""

from __future__ import annotations

from . import ciphers
from .ciphers import AESGCM, hkdf
from .errors import OpenFailed

__all__ = [
    "DEK_LENGTH",
    "KEY_LENGTH",
    "MASTER",
    "MAX_VERSION",
    "SALT_LENGTH",
    "ColumnKey",
    "cache_key",
    "class_key",
    "class_of",
    "commitment",
    "derive_dek",
    "header",
    "key_aad",
    "version_of",
]

FORMAT = 1
DEK_LENGTH = 32
KEY_LENGTH = 32  # of a class key
SALT_LENGTH = 32
MAX_VERSION = 2**24 - 1
MASTER = bytes(16)  # stands for a tenant where the master secret of mode ``derived`` is wrapped
HEADER_LENGTH = 5
NONCE_LENGTH = 12
TAG_LENGTH = 16
OVERHEAD = HEADER_LENGTH + NONCE_LENGTH + TAG_LENGTH


def header(number: int, version: int) -> bytes:
    """Return the 5 bytes that a value of class ``number`` sealed under DEK ``version`` begins with."""
    return bytes((FORMAT, number)) + version.to_bytes(3, "big")


def class_of(sealed: bytes) -> int:
    """Return the number of the class of a sealed value. Raises OpenFailed when it cannot be one."""
    if len(sealed) < OVERHEAD or sealed[0] != FORMAT:
        raise OpenFailed
    return sealed[1]


def version_of(sealed: bytes) -> int:
    """Return the DEK version of a sealed value. Raises OpenFailed when it cannot be one."""
    if len(sealed) < OVERHEAD or sealed[0] != FORMAT:
        raise OpenFailed
    return int.from_bytes(sealed[2:HEADER_LENGTH], "big")


def class_key(dek: bytes, tenant: bytes, version: int, name: str) -> bytes:
    """Return the key of the class called ``name``, of a tenant (16 bytes) and DEK version."""
    return hkdf(dek, tenant, b"wardkey/1 class" + version.to_bytes(4, "big") + name.encode())


def cache_key(dek: bytes, tenant: bytes, version: int, role: str) -> bytes:
    """Return the key under which clients with this role cache what they have read (``wardkey.cache``)."""
    return hkdf(dek, tenant, b"wardkey/1 cache" + version.to_bytes(4, "big") + role.encode())


def commitment(dek: bytes, tenant: bytes, version: int) -> bytes:
    """Return 32 bytes that commit to a DEK without telling it: AES-GCM alone does not commit to its key."""
    return hkdf(dek, tenant, b"wardkey/1 commitment" + version.to_bytes(4, "big"))


def key_aad(tenant: bytes, version: int, region: str) -> bytes:
    """Return the additional data under which a KMS wraps the DEK of ``tenant`` (16 bytes) in its region.

    Of the master secret, too: a derived DEK is of the region that its master is of.
    """
    return _prefixed(b"wardkey/1 dek", tenant, version.to_bytes(4, "big"), region.encode())


def derive_dek(master: bytes, tenant: bytes, version: int, salt: bytes) -> bytes:
    """Return the DEK of a tenant (16 bytes) in mode ``derived``: HKDF-SHA256 (RFC 5869) of the master secret.

    ``salt``: 32 random bytes of this tenant and version.
    """
    return hkdf(master, salt, b"wardkey/1 derived dek" + tenant + version.to_bytes(4, "big"))


class ColumnKey:
    """Seals and opens the values of one column of one tenant under one class key: ``number`` of the class.

    The parts are public because the hot paths of ``seal`` and ``unseal`` use them directly.
    """

    __slots__ = ("aad_prefix", "decrypt", "encrypt", "header")

    def __init__(self, key: bytes, tenant: bytes, number: int, version: int, column: bytes) -> None:
        if len(key) != KEY_LENGTH or len(tenant) != 16 or len(column) != 16:
            raise ValueError("a class key has 32 bytes, tenant and column ids have 16")
        cipher = AESGCM(hkdf(key, tenant, b"wardkey/1 column" + column))
        self.encrypt = cipher.encrypt
        self.header = header(number, version)
        self.decrypt = cipher.decrypt
        self.aad_prefix = _prefixed(b"wardkey/1", tenant, self.header[1:], column)

    def seal(self, plaintext: bytes, row: bytes, nonce: bytes) -> bytes:
        """Seal ``plaintext`` for the row with id ``row``. ``nonce``: 12 bytes, random, never used twice."""
        return self.header + nonce + self.encrypt(nonce, plaintext, self.aad_prefix + row)

    def open(self, sealed: bytes, row: bytes) -> bytes:
        """Open a sealed value of this row. Raises OpenFailed, always the same, for whatever reason."""
        if len(sealed) < OVERHEAD or sealed[:HEADER_LENGTH] != self.header:
            raise OpenFailed
        try:
            return self.decrypt(sealed[5:17], sealed[17:], self.aad_prefix + row)
        except ciphers.InvalidTag:
            raise OpenFailed from None


def _prefixed(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)
