"""Hardware security modules, and SoftHSM: KEKs in a PKCS#11 token, ``pkcs11:token=LABEL?module-path=FILE``.

The URI is of RFC 7512; ``;serial=NUMBER`` after the label chooses between tokens of one label. A version of a
tenant's KEK is an AES-256 key of the token, labelled ``wardkey-<tenant>``, whose CKA_ID is the version: the
time it was made at, in nanoseconds, and 8 random hexadecimal digits, so that two makers never meet. The
newest is the current one. Keys are made in the token, sensitive and not extractable; others are not used. A
disabled version has neither CKA_ENCRYPT nor CKA_DECRYPT; of a destroyed one, nothing is left in the token.

A wrapped DEK is 0x01 · nonce (12) · ciphertext · tag (16), of CKM_AES_GCM with the DEK's additional data.

Credential, in the keeper's directory: ``pkcs11.pin``, mode 0600: the user PIN. A wrong one is tried once,
because modules lock themselves. A token has one user: who may use its KEKs may also manage them. What
the module itself needs (SOFTHSM2_CONF …) is in the environment.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pkcs11
import pkcs11._pkcs11  # what pkcs11 itself imports when the module is loaded
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11 import exceptions as errors

from wardkey.daemon.files import read_guarded

from ..base import KekRef, KekVersion, Kms, KmsConfigurationError, KmsDenied, KmsUnavailable
from ._settings import parse_uri

__all__ = ["Pkcs11Kms"]

_FORMAT = 1
_NONCE_LENGTH = 12
_TAG_BITS = 128
_OVERHEAD = 1 + _NONCE_LENGTH + _TAG_BITS // 8
_WAIT = 3.0  # seconds for the token to be free
_LABEL = re.compile(r"wardkey-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_VERSION = re.compile(r"[0-9]{19}-[0-9a-f]{8}", re.ASCII)
_KEK = {
    Attribute.CLASS: ObjectClass.SECRET_KEY,
    Attribute.KEY_TYPE: KeyType.AES,
    Attribute.TOKEN: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
}
_RIGHTS = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.COPYABLE: False,
    Attribute.ENCRYPT: True,
    Attribute.DECRYPT: True,
    Attribute.SIGN: False,
    Attribute.VERIFY: False,
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_WRONG_PIN = (
    errors.PinExpired,
    errors.PinIncorrect,
    errors.PinInvalid,
    errors.PinLenRange,
    errors.PinLocked,
    errors.UserPinNotInitialized,
)
_REFUSED = (
    errors.EncryptedDataInvalid,
    errors.EncryptedDataLenRange,
    errors.DataInvalid,
    errors.DataLenRange,
    errors.KeySizeRange,
    errors.KeyTypeInconsistent,
    errors.MechanismInvalid,
    errors.MechanismParamInvalid,
    errors.FunctionRejected,
    errors.SessionReadOnly,
    errors.TokenWriteProtected,
    errors.TemplateInconsistent,
)


# A module is the process's: it is loaded once, and started without locks of its own.
_locks: dict[str, Lock] = {}


class Pkcs11Kms(Kms):
    """KEKs of one token, which is logged in to when a key is first asked for.

    Raises KmsConfigurationError.
    """

    scheme = "pkcs11"
    files = ("pkcs11.pin",)
    copies = "the token, where it allows any,"

    def __init__(self, uri: str, directory: Path) -> None:
        address, options = parse_uri(uri, ("module-path",))
        self._wanted = _token_of(address)
        self._module = options.get("module-path", "")
        self._pin = _read_pin(directory / "pkcs11.pin")
        self._pin_is_wrong = False
        self._session: Any = None
        self._lock = _locks.setdefault(self._module, Lock())
        if not self._module.startswith("/"):
            raise KmsConfigurationError("the KMS URI must name the PKCS#11 module: ?module-path=/…")
        try:
            self._library = pkcs11.lib(self._module)
        except (errors.PKCS11Error, OSError):
            raise KmsConfigurationError(f"the PKCS#11 module {self._module} cannot be loaded") from None

    def __repr__(self) -> str:
        return f"Pkcs11Kms({self._module!r}, {self._wanted!r})"

    def create_kek(self, tenant: UUID) -> KekRef:
        label = f"wardkey-{tenant}"
        with self._opened() as session:
            if not _keys(session, label):
                _make(session, label, time.time_ns())
            return _newest(session, label)

    def rotate_kek(self, tenant: UUID) -> KekRef:
        label = f"wardkey-{tenant}"
        with self._opened() as session:
            newest = _newest(session, label)
            # Later than the newest, even where the clock has been put back.
            _make(session, label, max(time.time_ns(), int(newest.version[:19]) + 1))
            return _newest(session, label)

    def disable_kek(self, kek: KekRef) -> None:
        with self._replaced(kek) as key:
            if key is not None:
                key[Attribute.ENCRYPT] = key[Attribute.DECRYPT] = False

    def destroy_kek(self, kek: KekRef) -> None:
        with self._replaced(kek) as key:
            if key is not None:
                key.destroy()

    def destroy_all(self, tenant: UUID) -> None:
        with self._opened() as session, session.token.open(rw=True) as writing:
            for key in _keys(writing, f"wardkey-{tenant}").values():
                key.destroy()

    def kek_versions(self, tenant: UUID) -> list[KekVersion]:
        with self._opened() as session:
            return [
                KekVersion(version, "enabled" if _is_enabled(key) else "disabled", int(version[:19]) / 1e9)
                for version, key in sorted(_keys(session, f"wardkey-{tenant}").items())
            ]

    def wrap(self, kek: KekRef, dek: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(_NONCE_LENGTH)
        with self._opened() as session:
            sealed = self._key(session, kek).encrypt(dek, **_aes_gcm(nonce, aad))
        return bytes((_FORMAT,)) + nonce + bytes(sealed)

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        if len(wrapped) < _OVERHEAD or wrapped[0] != _FORMAT:
            raise KmsDenied("the wrapped key is not one of a PKCS#11 token")
        nonce, sealed = wrapped[1 : 1 + _NONCE_LENGTH], wrapped[1 + _NONCE_LENGTH :]
        with self._opened() as session:
            key = self._key(session, kek)
            try:
                return bytes(key.decrypt(sealed, **_aes_gcm(nonce, aad)))
            except (errors.GeneralError, errors.FunctionFailed):  # modules say so of a wrong tag
                raise KmsDenied("the wrapped key does not open under this KEK and tenant") from None

    def _key(self, session: Any, kek: KekRef) -> Any:
        wanted = {**_KEK, Attribute.LABEL: _label_of(kek), Attribute.ID: kek.version.encode()}
        keys = list(session.get_objects(wanted))
        if len(keys) != 1:
            self._session = None  # of a token that was away, sessions may stay empty when it is back
            raise KmsDenied("the PKCS#11 token has no such KEK")
        if not _is_enabled(keys[0]):
            raise KmsDenied("this version of the KEK is disabled")
        return keys[0]

    @contextmanager
    def _replaced(self, kek: KekRef) -> Iterator[Any]:
        """Have the key of a version that is not the current one, to be changed; None when it is gone."""
        label = _label_of(kek)
        with self._opened() as session, session.token.open(rw=True) as writing:
            keys = _keys(writing, label)
            if kek.version == max(keys, default=None):
                raise KmsDenied("it is the current version of the KEK; rotate the KEK first")
            yield keys.get(kek.version)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Have the one session, one thread at a time, and make KmsErrors of what goes wrong with it."""
        if not self._lock.acquire(timeout=_WAIT):
            raise KmsUnavailable("the PKCS#11 token does not answer")
        try:
            if self._session is None:
                self._session = self._log_in()
            yield self._session
        except _WRONG_PIN:
            self._pin_is_wrong = True
            raise KmsDenied(
                "the PKCS#11 token refuses the PIN; correct it and start the keeper again"
            ) from None
        except _REFUSED:
            raise KmsDenied("the PKCS#11 token refused the key or its additional data") from None
        except errors.PKCS11Error:  # the session, the token or the way to it is gone: begin again next time
            self._session = None
            raise KmsUnavailable("the PKCS#11 token is not there or has failed") from None
        finally:
            self._lock.release()

    def _log_in(self) -> Any:
        if self._pin_is_wrong:
            raise errors.PinIncorrect
        try:
            token = self._library.get_token(**self._wanted)
        except errors.PKCS11Error:  # many modules find a token that was away only when they are started again
            self._library.reinitialize()
            token = self._library.get_token(**self._wanted)
        try:
            return token.open(user_pin=self._pin)
        except errors.UserAlreadyLoggedIn:  # a login is the process's, for all its sessions
            return token.open()


def _token_of(address: str) -> dict[str, Any]:
    names = {"token": "token_label", "serial": "token_serial"}
    pairs = [part.partition("=")[::2] for part in address.split(";")]
    wanted: dict[str, Any] = {names.get(name, name): unquote(value) for name, value in pairs}
    if len(wanted) != len(pairs) or not {"token_label"} <= wanted.keys() <= set(names.values()):
        raise KmsConfigurationError("write the KMS URI as pkcs11:token=LABEL?module-path=FILE, without a PIN")
    if "token_serial" in wanted:
        wanted["token_serial"] = wanted["token_serial"].encode()
    return wanted


def _read_pin(path: Path) -> str:
    pin = ""
    try:
        pin = read_guarded(path, secret=True).decode().strip("\r\n")
    except FileNotFoundError:
        raise KmsConfigurationError(f"no PKCS#11 PIN: {path} is missing") from None
    except OSError as error:
        raise KmsConfigurationError(f"the PKCS#11 PIN cannot be read: {error}") from None
    except UnicodeDecodeError:
        pin = ""
    if not pin:
        raise KmsConfigurationError(f"{path} does not hold a PIN")
    return pin


def _label_of(kek: KekRef) -> str:
    scheme, _, label = kek.name.partition(":")
    if scheme != Pkcs11Kms.scheme or not _LABEL.fullmatch(label) or not _VERSION.fullmatch(kek.version):
        raise KmsDenied("the KEK is not one of a PKCS#11 token")
    return label


def _is_enabled(key: Any) -> bool:
    return isinstance(key, pkcs11.EncryptMixin) and isinstance(key, pkcs11.DecryptMixin)


def _keys(session: Any, label: str) -> dict[str, Any]:
    """Return the keys of this label by their versions."""
    objects = list(session.get_objects({**_KEK, Attribute.LABEL: label}))
    keys = {bytes(key[Attribute.ID]).decode("ascii", "replace"): key for key in objects}
    return {version: key for version, key in keys.items() if _VERSION.fullmatch(version)}


def _newest(session: Any, label: str) -> KekRef:
    versions = _keys(session, label)
    if not versions:
        raise KmsDenied("the PKCS#11 token has no such KEK")
    return KekRef(f"{Pkcs11Kms.scheme}:{label}", max(versions))


def _make(session: Any, label: str, time_ns: int) -> None:
    version = f"{time_ns:019d}-{secrets.token_hex(4)}"
    with session.token.open(rw=True) as writing:
        writing.generate_key(KeyType.AES, 256, id=version.encode(), label=label, store=True, template=_RIGHTS)


def _aes_gcm(nonce: bytes, aad: bytes) -> dict[str, Any]:
    parameters = pkcs11.GCMParams(nonce, aad, _TAG_BITS)
    return {"mechanism": Mechanism.AES_GCM, "mechanism_param": parameters}
