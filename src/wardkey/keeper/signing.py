"""The keeper's signing key: for certificates of destruction, reports of incidents, checkpoints of audit logs,
and DEKs that are wrapped under a public key.

``signing.key`` in its directory, mode 0600: the 32 bytes of an Ed25519 private key (RFC 8032), made when it
is first needed. ``signing.former`` beside it: public keys in base64, one a line, of signing keys that were
lost or replaced; DEKs that these signed still open, nothing is signed with them.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from wardkey_core.errors import KeeperUnavailable
from wardkey_core.log import checkpoint

from wardkey.daemon.files import read_guarded, write_atomically

__all__ = ["CERTIFICATE", "REPORT", "SIGNATURE_LENGTH", "SigningKey"]

CERTIFICATE = b"wardkey/1 certificate of destruction\n"
"""What is signed begins with its kind, so that no statement can pass for one of another kind."""

REPORT = b"wardkey/1 report of an incident\n"

SIGNATURE_LENGTH = 64
_WRAPPED = b"wardkey/1 wrapped key\n"
_LENGTH = 32


class SigningKey:
    """The key in ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def certify(self, statement: str) -> tuple[bytes, bytes]:
        """Return the signature of a certificate with this statement, and the public key.

        Raises KeeperUnavailable.
        """
        return self._sign(CERTIFICATE, statement)

    def sign_report(self, digest: str) -> tuple[bytes, bytes]:
        """Return the signature of an incident's report, known by its SHA-256, and the public key.

        Raises KeeperUnavailable.
        """
        return self._sign(REPORT, digest)

    def _sign(self, kind: bytes, statement: str) -> tuple[bytes, bytes]:
        key = self._load(make=True)
        return key.sign(kind + statement.encode("utf-8")), key.public_key().public_bytes_raw()

    def sign_checkpoint(self, statement: str) -> bytes:
        """Return the signature of a checkpoint of an audit log. Raises KeeperUnavailable."""
        return self._load(make=True).sign(checkpoint.PREFIX + statement.encode("utf-8"))

    def sign_wrapped(self, record: bytes) -> bytes:
        """Return the signature of a wrapped DEK and what it belongs to. Raises KeeperUnavailable."""
        return self._load(make=True).sign(_WRAPPED + record)

    def has_signed_wrapped(self, signature: bytes, record: bytes) -> bool:
        """Whether this key or a former one has signed ``record``. Raises KeeperUnavailable."""
        for key in self._known():
            try:
                key.verify(signature, _WRAPPED + record)
            except InvalidSignature:
                continue
            return True
        return False

    def made(self) -> bytes:
        """Return the public key, made if there is none. Raises KeeperUnavailable."""
        return self._load(make=True).public_key().public_bytes_raw()

    def public_key(self) -> bytes | None:
        """Return the public key (32 bytes), None when there is none yet. Raises KeeperUnavailable."""
        return self._load(make=False).public_key().public_bytes_raw() if self._path.exists() else None

    def _known(self) -> list[Ed25519PublicKey]:
        path = self._path.with_suffix(".former")
        try:
            lines = read_guarded(path, secret=False).split() if path.exists() else []
            former = [Ed25519PublicKey.from_public_bytes(base64.b64decode(line)) for line in lines]
        except (OSError, ValueError):
            raise KeeperUnavailable(
                "the keeper cannot use its former signing keys", f"correct {path.name} in its directory"
            ) from None
        return [self._load(make=True).public_key(), *former]

    def _load(self, *, make: bool) -> Ed25519PrivateKey:
        try:
            if make and not self._path.exists():
                write_atomically(self._path, os.urandom(_LENGTH), exclusive=True)
            data = read_guarded(self._path, secret=True)
            if len(data) == _LENGTH:
                return Ed25519PrivateKey.from_private_bytes(data)
        except OSError:
            pass
        raise KeeperUnavailable(
            "the keeper cannot use its signing key", f"correct {self._path.name} in its directory"
        )
