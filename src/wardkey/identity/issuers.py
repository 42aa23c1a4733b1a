"""Issuers of tokens: the embedded one, those of identity providers, and where they are registered.

An issuer document (``wardkey_core.tokens.Issuer``) is registered twice: in the database, which lets its
tokens log in, and in the keeper's directory, out of the database's reach, which lets them release keys.
``register`` and ``remove`` change both or neither.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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
from wardkey_core.errors import UnknownObject, UnknownTenant, Unsupported
from wardkey_core.jwk import b64url_encode
from wardkey_core.tokens import ROLES, Issuer

from ..daemon.files import read_guarded, write_atomically
from ..errors import NotRunning, ServerError
from ..keeper.trust import ISSUERS_FILE, locked, read_documents, write_documents

if TYPE_CHECKING:
    from psycopg import Connection

    from ..embedded import Home

__all__ = [
    "AUDIENCE",
    "MAX_LIFETIME",
    "EmbeddedIssuer",
    "embedded",
    "register",
    "registered",
    "remove",
    "tenant_id",
]

AUDIENCE = "wardkey"
MAX_LIFETIME = 900

Documents = list[dict[str, Any]]


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
        canonical = json.dumps(self._jwk(), sort_keys=True, separators=(",", ":")).encode("utf-8")
        return b64url_encode(hashlib.sha256(canonical).digest())

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
    ) -> str:
        """Return a token for ``lifetime`` seconds from now. Raises ValueError.

        ``purpose``: what the audit log is to say it was for.
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
        header = {"alg": "EdDSA", "typ": "JWT", "kid": self.kid}
        signed = ".".join(b64url_encode(json.dumps(part).encode("utf-8")) for part in (header, claims))
        return f"{signed}.{b64url_encode(self._key.sign(signed.encode('ascii')))}"

    def _jwk(self) -> dict[str, str]:
        public = self._key.public_key().public_bytes_raw()
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(public)}


def embedded(connection: Connection[Any], home: Home) -> tuple[EmbeddedIssuer, bool]:
    """Return the issuer of ``home``, and whether it had to be registered in database or keeper; then commits.

    Raises NotRunning when there is no home, and as ``register``.
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


def tenant_id(connection: Connection[Any], slug: str) -> UUID:
    """Return the id of the tenant called ``slug``. Raises UnknownTenant."""
    row = connection.execute("select id from ward.tenants where slug = %s", [slug]).fetchone()
    if row is None:
        raise UnknownTenant("no such tenant", "list them: wardkey tenant list")
    found: UUID = row[0]
    return found


def register(connection: Connection[Any] | None, keeper: Path | None, document: Mapping[str, Any]) -> None:
    """Register an issuer, or replace what is known of it, in the database and in the keeper; commits.

    In one of them only where the other is None: an OS user that reaches one does not reach the other. Raises
    Unsupported for a bad document, psycopg.Error, OSError, ServerError.
    """
    from psycopg.types.json import Jsonb

    try:
        issuer = Issuer.from_document(document).issuer
    except ValueError as error:
        raise Unsupported(f"issuer document: {error}") from None
    _change(
        connection,
        keeper,
        ("select ward.add_issuer(%s)", [Jsonb(document)]),
        lambda known: [*_without(known, issuer), dict(document)],
    )


def remove(connection: Connection[Any] | None, keeper: Path | None, issuer: str) -> None:
    """Stop trusting an issuer, in the database and in the keeper; commits.

    Raises as ``register``, UnknownObject.
    """
    names = registered(connection, keeper)
    if issuer not in names:
        raise UnknownObject("no such issuer", "list them: wardkey issuer list")
    statement = ("select ward.remove_issuer(%s)", [issuer]) if names[issuer]["database"] else None
    _change(connection, keeper, statement, lambda known: _without(known, issuer))


def registered(connection: Connection[Any] | None, keeper: Path | None) -> dict[str, dict[str, Any]]:
    """Return by name each issuer's ``document`` and whether ``database`` and ``keeper`` trust that one.

    One that is None is not asked, and trusts nobody.
    """
    query = "select document from ward.issuers order by issuer"
    rows = connection.execute(query).fetchall() if connection else []
    theirs = {row[0]["issuer"]: row[0] for row in rows}
    ours = {document["issuer"]: document for document in (_read(keeper) if keeper else ())}
    return {
        name: {
            "document": theirs.get(name, ours.get(name)),
            "database": name in theirs,
            "keeper": name in ours and ours[name] == theirs.get(name, ours[name]),
        }
        for name in sorted(theirs | ours)
    }


def _change(
    connection: Connection[Any] | None,
    keeper: Path | None,
    statement: tuple[str, list[Any]] | None,
    change: Callable[[Documents], Documents],
) -> None:
    """Run ``statement``, write the keeper's file, commit; whatever fails, neither shall keep the change."""
    if keeper is None:
        if connection is not None and statement is not None:
            connection.execute(*statement)
            connection.commit()
        return
    path = keeper / ISSUERS_FILE
    _read(keeper)
    with locked(path):
        before = _read(keeper)
        if connection is not None and statement is not None:
            connection.execute(*statement)
        try:
            write_documents(path, change(before))
            if connection is not None:
                connection.commit()
        except BaseException:
            with suppress(OSError):
                write_documents(path, before)
            raise


def _read(keeper: Path) -> Documents:
    if not keeper.is_dir():
        raise ServerError(
            f"the keeper's directory {keeper} is not here",
            "run this on the keeper's host, as a user who may write there, with --keeper-directory",
        )
    try:
        return read_documents(keeper / ISSUERS_FILE)
    except ValueError as error:
        raise ServerError(
            f"{keeper / ISSUERS_FILE}: {error}", "restore it, or remove it and add issuers again"
        ) from None


def _without(documents: Documents, issuer: str) -> Documents:
    return [document for document in documents if document["issuer"] != issuer]
