"""The issuer of an embedded server: it signs tokens for trying things by hand, and for tests."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from wardkey_core.jwk import b64url_encode
from wardkey_core.log import canonical
from wardkey_core.tokens import ROLES

from ..daemon.files import read_guarded, write_atomically
from ..errors import NotRunning, ServerError
from ..identity.issuers import register, registered
from .home import Home

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["AUDIENCE", "MAX_LIFETIME", "EmbeddedIssuer", "embedded_issuer"]

AUDIENCE = "wardkey"
MAX_LIFETIME = 900


@dataclass(frozen=True, slots=True)
class EmbeddedIssuer:
    """The issuer of an embedded server: an Ed25519 key in the operator's part of the home."""

    name: str
    _key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def open(cls, directory: Path, home_id: str) -> EmbeddedIssuer:
        """Read ``directory/key.pem`` (mode 0600), made when missing. Raises ServerError, OSError."""
        path = directory / "key.pem"
        try:
            pem = read_guarded(path, secret=True)
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, pem, exclusive=True)
        loaded: object = None
        try:
            loaded = load_pem_private_key(pem, None)
        except (ValueError, TypeError):
            loaded = None
        if not isinstance(loaded, Ed25519PrivateKey):
            raise ServerError(f"{path} is not an Ed25519 key", "remove it: wardkey token makes a new one")
        return cls(f"wardkey:embedded:{home_id}", loaded)

    @property
    def kid(self) -> str:
        """The thumbprint of the public key (RFC 7638)."""
        return b64url_encode(hashlib.sha256(canonical.encode(self._jwk())).digest())

    def document(self) -> dict[str, Any]:
        """Return the issuer document that trusts this key."""
        key = {**self._jwk(), "kid": self.kid, "alg": "EdDSA", "use": "sig"}
        return {"issuer": self.name, "audience": AUDIENCE, "max_lifetime": MAX_LIFETIME, "keys": [key]}

    def sign_token(
        self,
        tenant_id: UUID | str,
        subject: str,
        role: str,
        lifetime: float = MAX_LIFETIME,
        purpose: str | None = None,
        further: Mapping[str, str] | None = None,
    ) -> str:
        """Return a token for ``lifetime`` seconds from now. Raises ValueError.

        ``purpose``: what the audit log is to say it was for. ``further``: claims that row rules ask for.
        """
        if role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}")
        if not 0 < len(subject) <= 255 or not subject.isprintable():
            raise ValueError("subject must be 1 to 255 printable characters")
        if purpose is not None and not (0 < len(purpose) <= 255 and purpose.isprintable()):
            raise ValueError("purpose must be 1 to 255 printable characters")
        if not 0 < lifetime <= MAX_LIFETIME:
            raise ValueError(f"lifetime must be at most {MAX_LIFETIME} seconds")
        now = int(time.time())
        claims = {
            "iss": self.name,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant_id": str(UUID(str(tenant_id))),
            "role": role,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            "jti": str(uuid4()),
        }
        if purpose is not None:
            claims["purpose"] = purpose
        if taken := claims.keys() & (further or {}).keys():
            raise ValueError(f"claim {min(taken)} has a meaning of its own")
        claims.update(further or {})
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self.kid}
        signed = ".".join(b64url_encode(json.dumps(part).encode("utf-8")) for part in (header, claims))
        return f"{signed}.{b64url_encode(self._key.sign(signed.encode('ascii')))}"

    def _jwk(self) -> dict[str, str]:
        public = self._key.public_key().public_bytes_raw()
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(public)}


def embedded_issuer(connection: Connection[Any], home: Home) -> tuple[EmbeddedIssuer, bool]:
    """Return the issuer of ``home``, and whether it had to be registered in database or keeper; then commits.

    Raises NotRunning when there is no home, and as ``identity.issuers.register``.
    """
    config = home.config()
    if config is None:
        raise NotRunning
    issuer = EmbeddedIssuer.open(home.issuer, config.id)
    document, known = issuer.document(), registered(connection, home.keeper).get(issuer.name)
    if known is not None and known["document"] == document and known["database"] and known["keeper"]:
        return issuer, False
    register(connection, home.keeper, document)
    return issuer, True
