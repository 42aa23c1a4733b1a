"""Certificates of destruction: what was destroyed, signed by the keeper, to be checked without any of us.

A certificate is a JSON document of three members::

    {
     "public_key": 32 bytes in base64, Ed25519 (RFC 8032),
     "signature": 64 bytes in base64, of the line "wardkey/1 certificate of destruction" and the statement,
     "statement": what was destroyed
    }

Signed is the statement as JSON without blanks, in UTF-8, members sorted by name: no numbers but integers are
in it. The document itself has one form too, one blank of indentation a level, so that no byte of it can be
changed unnoticed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from wardkey_core.log import canonical

from ..keeper.signing import CERTIFICATE

__all__ = ["BadCertificate", "Certificate", "fingerprint", "statement_text"]

_MEMBERS = {"public_key", "signature", "statement"}


class BadCertificate(ValueError):
    """Not a certificate, or not an intact one; the message says why and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A statement and who vouches for it. ``verify`` says whether that is so."""

    statement: dict[str, Any]
    signature: bytes = field(repr=False)
    public_key: bytes

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Read a certificate in its one form. Raises BadCertificate."""
        try:
            document = json.loads(data)
            if not isinstance(document, dict) or document.keys() != _MEMBERS:
                raise BadCertificate("not a certificate of destruction")
            certificate = cls.from_document(document)
            intact = certificate.to_bytes() == data
        except (ValueError, TypeError, RecursionError):
            raise BadCertificate("not a certificate of destruction, or damaged") from None
        if not intact:
            raise BadCertificate("the file was changed: it is not in the form certificates are written in")
        return certificate

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Certificate:
        """Make one of a document's members. Raises ValueError, TypeError, KeyError."""
        signature, public_key = (
            base64.b64decode(document[name], validate=True) for name in ("signature", "public_key")
        )
        if not isinstance(document["statement"], dict):
            raise BadCertificate("not a certificate of destruction")
        return cls(document["statement"], signature, public_key)

    def document(self) -> dict[str, Any]:
        """Return the members."""
        return {
            "public_key": base64.b64encode(self.public_key).decode(),
            "signature": base64.b64encode(self.signature).decode(),
            "statement": self.statement,
        }

    def to_bytes(self) -> bytes:
        """Return the document as a file has it."""
        text = json.dumps(self.document(), ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
        return f"{text}\n".encode()

    def verify(self, trusted: bytes | None = None) -> None:
        """Raise BadCertificate unless the signature is the public key's, and that the one ``trusted``."""
        if trusted is not None and trusted != self.public_key:
            raise BadCertificate("another key signed it than the one that was to")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_key)
            key.verify(self.signature, CERTIFICATE + statement_text(self.statement).encode())
        except (InvalidSignature, ValueError):
            raise BadCertificate("the signature does not belong to this statement and key") from None


def statement_text(statement: dict[str, Any]) -> str:
    """Return the text that is signed."""
    return canonical.encode(statement).decode()


def fingerprint(public_key: bytes) -> str:
    """Return the SHA-256 of a public key in groups that people can compare."""
    digits = hashlib.sha256(public_key).hexdigest()[:32]
    return " ".join(digits[place : place + 4] for place in range(0, len(digits), 4))
