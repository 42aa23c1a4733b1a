"""The embedded default, not for production: KEKs in files of the keeper's directory.

``root.key`` (32 random bytes, mode 0600) seals ``kek/<tenant>.json``::

    {"format": 1, "active": "1", "keys": {"1": {"created": 1735689600, "sealed": base64}}}

where sealed = nonce (12) · AES-256-GCM(root key, KEK) · tag (16), with ``wardkey/1 local kek``, the
tenant's id and the KEK's version as additional data. A wrapped DEK is 0x01 · nonce (12) · ciphertext · tag
(16) under the KEK.

It protects what leaves the host without ``root.key``: dumps, replicas, WAL, a copy of the database's disk.
Whoever reads the keeper's directory has every key.
"""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path
from threading import Lock
from typing import Any, TypeGuard
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardkey._files import UnsafeFileError, read_guarded, write_atomically

from .base import KekRef, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable

__all__ = ["LocalKms"]

_FORMAT = 1
_KEY_LENGTH = 32
_NONCE_LENGTH = 12
_OVERHEAD = 1 + _NONCE_LENGTH + 16


class LocalKms(Kms):
    """KEKs in ``directory``. Makes the root key when there are no KEKs yet; raises KmsConfigurationError."""

    scheme = "local"

    def __init__(self, uri: str, directory: Path) -> None:
        if uri != "local:":
            raise KmsConfigurationError("the local KMS takes no address; write: local:")
        self._keks = directory / "kek"
        self._writing = Lock()
        try:
            self._keks.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = AESGCM(self._root_key(directory / "root.key"))
        except OSError as error:
            raise KmsConfigurationError(f"the local key store cannot be used: {error}") from error

    def __repr__(self) -> str:
        return f"LocalKms({str(self._keks.parent)!r})"

    def create_kek(self, tenant: UUID) -> KekRef:
        with self._writing:
            document = self._read(tenant)
            if document is None:
                document = self._new_document(tenant)
                try:
                    data = json.dumps(document, indent=1).encode()
                    write_atomically(self._path(tenant), data, exclusive=True)
                except OSError:
                    raise KmsUnavailable("the local key store cannot be written") from None
        return KekRef(f"{self.scheme}:{tenant}", document["active"])

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE_LENGTH)
        return bytes((_FORMAT,)) + nonce + self._kek(kek).encrypt(nonce, dek, aad)

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        key = self._kek(kek)
        if len(wrapped) < _OVERHEAD or wrapped[0] != _FORMAT:
            raise KmsDenied("the wrapped key is not one of the local KMS")
        try:
            return key.decrypt(wrapped[1:13], wrapped[13:], aad)
        except InvalidTag:
            raise KmsDenied("the wrapped key does not open under this KEK and tenant") from None

    def _root_key(self, path: Path) -> bytes:
        if not path.exists() and not path.is_symlink():
            if any(self._keks.iterdir()):
                raise KmsConfigurationError(
                    f"{path} is missing but KEKs sealed under it are there; restore it"
                )
            write_atomically(path, os.urandom(_KEY_LENGTH), exclusive=True)
        key = read_guarded(path, secret=True)
        if len(key) != _KEY_LENGTH:
            raise KmsConfigurationError(
                f"{path} does not hold {_KEY_LENGTH} bytes; restore it from its backup"
            )
        return key

    def _path(self, tenant: UUID) -> Path:
        return self._keks / f"{tenant}.json"

    def _read(self, tenant: UUID) -> dict[str, Any] | None:
        try:
            document = json.loads(read_guarded(self._path(tenant), secret=True))
        except FileNotFoundError:
            return None
        except UnsafeFileError:
            raise KmsDenied("a KEK of the local key store is open to other users") from None
        except OSError:
            raise KmsUnavailable("the local key store cannot be read") from None
        except (ValueError, RecursionError):
            document = None
        if not _is_whole(document):
            raise KmsDenied("a KEK of the local key store is damaged; restore it from its backup")
        return document

    def _new_document(self, tenant: UUID) -> dict[str, Any]:
        nonce, version = os.urandom(_NONCE_LENGTH), "1"
        sealed = nonce + self._root.encrypt(nonce, os.urandom(_KEY_LENGTH), _kek_aad(tenant, version))
        key = {"created": int(time.time()), "sealed": base64.b64encode(sealed).decode("ascii")}
        return {"format": _FORMAT, "active": version, "keys": {version: key}}

    def _kek(self, ref: KekRef) -> AESGCM:
        tenant = _tenant_of(ref)
        document = self._read(tenant)
        if document is None:
            raise KmsDenied("the local KMS has no such KEK")
        try:
            sealed = base64.b64decode(document["keys"][ref.version]["sealed"], validate=True)
        except KeyError:
            raise KmsDenied("the local KMS has no such version of the KEK") from None
        except (TypeError, ValueError):
            raise KmsDenied("a KEK of the local key store is damaged; restore it from its backup") from None
        try:
            return AESGCM(self._root.decrypt(sealed[:12], sealed[12:], _kek_aad(tenant, ref.version)))
        except (InvalidTag, ValueError):
            raise KmsDenied("a KEK does not open under root.key; restore both from one backup") from None


def _is_whole(document: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        return False
    keys, active = document.get("keys"), document.get("active")
    return isinstance(keys, dict) and isinstance(active, str) and active in keys


def _tenant_of(ref: KekRef) -> UUID:
    scheme, _, text = ref.name.partition(":")
    try:
        tenant = UUID(text)
    except ValueError:
        tenant = None
    if scheme != LocalKms.scheme or tenant is None or str(tenant) != text:
        raise KmsDenied("the KEK is not one of the local KMS")
    return tenant


def _kek_aad(tenant: UUID, version: str) -> bytes:
    return b"wardkey/1 local kek" + tenant.bytes + version.encode("utf-8", "replace")
