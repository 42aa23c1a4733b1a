"""Uuids as 16 bytes and as text: module ``uuid`` would take each backend 3 ms to import. Who a subject is."""

from __future__ import annotations

__all__ = ["bytes_of", "subject_digest", "text_of"]


def bytes_of(text: str) -> bytes:
    """Return the 16 bytes of a uuid as PostgreSQL and verified claims write it. Raises ValueError."""
    identity = bytes.fromhex(text.replace("-", ""))
    if len(identity) != 16:
        raise ValueError("not a uuid")
    return identity


def text_of(identity: bytes) -> str:
    """Return how PostgreSQL writes a uuid."""
    text = identity.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def subject_digest(tenant: str, issuer: str, subject: str) -> bytes:
    """Return 32 bytes by which keeper and backends name a subject to one another."""
    from .ciphers import sha256  # the command looks at identities, and needs no cryptography

    return sha256("\0".join((tenant, issuer, subject)).encode("utf-8", "surrogatepass")).digest()
