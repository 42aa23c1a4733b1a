"""Opens what wardkey sealed, without wardkey: a data key, four ids and this page are enough.

    python decode.py sealed.json          prints what is in the vectors

Needs Python and the package ``cryptography``, of which AES-GCM alone is used. HKDF is RFC 5869 written out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def hkdf_sha256(key: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes: one block of HKDF's expansion."""
    extracted = hmac.new(salt, key, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def prefixed(field: bytes) -> bytes:
    return len(field).to_bytes(4, "big") + field


def decode(sealed: bytes, dek: bytes, tenant: bytes, column: bytes, row: bytes, name: bytes) -> bytes:
    """Return the plaintext.

    ``dek``: the data key of the version in bytes 2 to 4 of ``sealed``; ``name``: that of the class whose
    number is in byte 1.
    """
    form, under, nonce, ciphertext = sealed[:1], sealed[1:5], sealed[5:17], sealed[17:]
    if form != b"\x01":
        raise ValueError("not format 1")
    of_class = hkdf_sha256(dek, tenant, b"wardkey/1 class" + b"\0" + under[1:] + name)
    key = hkdf_sha256(of_class, tenant, b"wardkey/1 column" + column)
    additional = prefixed(b"wardkey/1") + prefixed(tenant) + prefixed(under) + prefixed(column) + row
    return AESGCM(key).decrypt(nonce, ciphertext, additional)


def commitment(dek: bytes, tenant: bytes, version: int) -> bytes:
    """Return what column ``commitment`` of ward_internal.tenant_keys holds for this data key."""
    return hkdf_sha256(dek, tenant, b"wardkey/1 commitment" + version.to_bytes(4, "big"))


def key_additional_data(tenant: bytes, version: int, region: str) -> bytes:
    """Return the additional data under which the KMS wrapped the data key."""
    place = prefixed(tenant) + prefixed(version.to_bytes(4, "big")) + prefixed(region.encode())
    return prefixed(b"wardkey/1 dek") + place


if __name__ == "__main__":
    for vector in json.loads(Path(sys.argv[1]).read_text())["sealed"]:
        parts = [bytes.fromhex(vector[name]) for name in ("sealed", "dek", "tenant", "column", "row")]
        print(f"{vector['about']}: {decode(*parts, vector['class'].encode())!r}")
