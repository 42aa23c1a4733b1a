"""The embedded default, not for production: KEKs in files of the keeper's directory.

``root.key`` (32 random bytes, mode 0600) seals ``kek/<tenant>.json``::

    {"format": 1, "active": "2", "keys": {"1": {"created": 1735689600, "destroyed": 1738368000},
                                          "2": {"created": 1736899200, "sealed": base64}}}

where sealed = nonce (12) · AES-256-GCM(root key, KEK) · tag (16), with ``wardkey/1 local kek``, the
tenant's id and the KEK's version as additional data. A disabled version has ``"disabled": true``. When all
versions are destroyed, ``active`` is null: the file is a tombstone, and no KEK is made in its place. A
wrapped DEK is 0x01 · nonce (12) · ciphertext · tag (16) under the KEK.

It protects what leaves the host without ``root.key``: dumps, replicas, WAL, a copy of the database's disk.
Who can read the keeper's directory has every key, and who has an old copy of it has the destroyed ones.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardkey.daemon.files import UnsafeFileError, read_guarded, write_atomically

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable

__all__ = ["LocalKms"]

_FORMAT = 1
_KEY_LENGTH = 32
_NONCE_LENGTH = 12
_OVERHEAD = 1 + _NONCE_LENGTH + 16


class LocalKms(Kms):
    """KEKs in ``directory``. Makes the root key when there are no KEKs yet; raises KmsConfigurationError."""

    scheme = "local"
    copies = "the keeper's directory"

    def __init__(self, uri: str, directory: Path) -> None:
        if uri != "local:":
            raise KmsConfigurationError("the local KMS takes no address; write: local:")
        self._keks, self._locks = directory / "kek", directory / "kek.lock"
        try:
            for needed in (self._keks, self._locks):
                needed.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = AESGCM(self._root_key(directory / "root.key"))
        except OSError as error:
            raise KmsConfigurationError(f"the local key store cannot be used: {error}") from error

    def __repr__(self) -> str:
        return f"LocalKms({str(self._keks.parent)!r})"

    def create_kek(self, tenant: UUID) -> KekRef:
        with self._writing(tenant):
            document = self._read(tenant)
            if document is None:
                document = {"format": _FORMAT, "active": None, "keys": {}}
                self._add_version(tenant, document)
        return _current(tenant, document)

    def rotate_kek(self, tenant: UUID) -> KekRef:
        with self._writing(tenant):
            document = self._read(tenant)
            if document is None:
                raise KmsDenied("the local KMS has no such KEK")
            _current(tenant, document)
            self._add_version(tenant, document)
        return _current(tenant, document)

    def disable_kek(self, kek: KekRef) -> None:
        with self._writing(_tenant_of(kek)):
            document = self._replaced(kek)
            if document is not None:
                document["keys"][kek.version]["disabled"] = True
                self._write(_tenant_of(kek), document)

    def destroy_kek(self, kek: KekRef) -> None:
        with self._writing(_tenant_of(kek)):
            document = self._replaced(kek)
            if document is not None:
                _destroy(document["keys"][kek.version])
                self._write(_tenant_of(kek), document)

    def destroy_all(self, tenant: UUID) -> None:
        with self._writing(tenant):
            document = self._read(tenant)
            if document is None or document["active"] is None:
                return
            document["active"] = None
            for key in document["keys"].values():
                _destroy(key)
            self._write(tenant, document)

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        document = self._read(tenant)
        keys: dict[str, dict[str, Any]] = {} if document is None else document["keys"]
        return [
            KekVersion(version, _state(key), key.get("created"), key.get("destroyed"))
            for version, key in sorted(keys.items(), key=lambda item: int(item[0]))
        ]

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

    def _add_version(self, tenant: UUID, document: dict[str, Any]) -> None:
        """Give ``document`` a new active version and write it."""
        version = str(max(map(int, document["keys"]), default=0) + 1)
        nonce = os.urandom(_NONCE_LENGTH)
        sealed = nonce + self._root.encrypt(nonce, os.urandom(_KEY_LENGTH), _kek_aad(tenant, version))
        key = {"created": int(time.time()), "sealed": base64.b64encode(sealed).decode("ascii")}
        document["keys"][version], document["active"] = key, version
        self._write(tenant, document)

    def _replaced(self, kek: KekRef) -> dict[str, Any] | None:
        """Return the document of a version that is not the current one; None when it is destroyed."""
        document = self._read(_tenant_of(kek))
        if document is None or kek.version not in document["keys"]:
            raise KmsDenied("the local KMS has no such version of the KEK")
        if "sealed" not in document["keys"][kek.version]:
            return None
        if document["active"] == kek.version:
            raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
        return document

    def _write(self, tenant: UUID, document: dict[str, Any]) -> None:
        try:
            write_atomically(self._path(tenant), json.dumps(document, indent=1).encode())
        except OSError:
            raise KmsUnavailable("the local key store cannot be written") from None

    @contextmanager
    def _writing(self, tenant: UUID) -> Iterator[None]:
        """Be the only one who reads and writes this tenant's file: a lost update would be a lost key.

        One lock for all would let a thousand tenants wait for each other's flushes to disk.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._locks / tenant.hex[-1], flags, 0o600)
        except OSError:
            raise KmsUnavailable("the local key store cannot be written") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _kek(self, ref: KekRef) -> AESGCM:
        tenant = _tenant_of(ref)
        document = self._read(tenant)
        if document is None:
            raise KmsDenied("the local KMS has no such KEK")
        key = document["keys"].get(ref.version)
        if key is None:
            raise KmsDenied("the local KMS has no such version of the KEK")
        if (state := _state(key)) != "enabled":
            raise KmsDenied(f"this version of the KEK is {state}")
        try:
            sealed = base64.b64decode(key["sealed"], validate=True)
        except (TypeError, ValueError):
            raise KmsDenied("a KEK of the local key store is damaged; restore it from its backup") from None
        try:
            return AESGCM(self._root.decrypt(sealed[:12], sealed[12:], _kek_aad(tenant, ref.version)))
        except (InvalidTag, ValueError):
            raise KmsDenied("a KEK does not open under root.key; restore both from one backup") from None


def _is_whole(document: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        return False
    keys, active = document.get("keys"), document.get("active", "")
    if not isinstance(keys, dict) or not all(
        version.isdecimal() and isinstance(key, dict) and ("sealed" in key or "destroyed" in key)
        for version, key in keys.items()
    ):
        return False
    if active is None:
        return not any("sealed" in key for key in keys.values())
    return isinstance(active, str) and "sealed" in keys.get(active, {})


def _current(tenant: UUID, document: dict[str, Any]) -> KekRef:
    if document["active"] is None:
        raise KmsDenied("the tenant's KEK was destroyed; there is none after it")
    return KekRef(f"{LocalKms.scheme}:{tenant}", document["active"])


def _destroy(key: dict[str, Any]) -> None:
    if key.pop("sealed", None) is not None:
        key["destroyed"] = int(time.time())


def _state(key: dict[str, Any]) -> str:
    if "sealed" not in key:
        return "destroyed"
    return "disabled" if key.get("disabled") else "enabled"


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
