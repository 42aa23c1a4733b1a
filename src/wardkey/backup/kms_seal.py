"""Backups that a KMS opens: an age identity made for one backup, sealed under a data key that the KMS wraps.

``manifest.json`` has it, as ``kms``: the KEK and its version, the wrapped data key (AES-256) and the
identity sealed under that, in base64. The KEK is of no tenant: its name is that of a tenant ``BACKUPS``.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import RestoreRefused, ServerError
from ..kms import KekRef, KmsError, configured, open_kms, scheme_of
from .sealed import age

__all__ = ["BACKUPS", "CELL", "KmsChoice", "chosen", "identity", "recipient"]

BACKUPS: Final = UUID("00000000-0000-4000-8000-6261636b7570")
CELL: Final = "cell"
_AAD: Final = b"wardkey/1 backup"
_NONCE: Final = 12
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class KmsChoice:
    """A KMS and where its credential is; ``admin``: those that make the KEK."""

    uri: str
    directory: Path
    admin: tuple[str, Path]


def chosen(uri: str, directory: Path | None, keeper: Path, orchestrator: Path) -> KmsChoice:
    """Return the KMS at ``uri``, or for CELL the one that the cell has for its own keys.

    ``directory``: where the credential is, the keeper's if None. ``local:`` is refused: its KEKs are in the
    backup. Raises ServerError.
    """
    admin = (uri, directory or keeper)
    if uri == CELL:
        used = _asked("serve", lambda: configured.read(orchestrator if orchestrator.exists() else keeper))
        os.environ.update(used.environment)  # modules in C look there, and nowhere else
        entry = used.owned(None)[0].everywhere()[0]
        uri = entry.uri
        admin = (entry.admin, orchestrator) if entry.admin else (uri, directory or keeper)
    if scheme_of(uri) == "local":
        raise ServerError(
            "local: is no KMS for backups: its keys would be sealed under themselves",
            "name another with --kms URI, or seal to --recipient",
        )
    return KmsChoice(uri, directory or keeper, admin)


def recipient(kms: KmsChoice) -> tuple[Any, dict[str, str]]:
    """Return an age recipient and what its identity is got from again, with the KMS. Raises ServerError."""
    made, key, nonce = age().x25519.Identity.generate(), AESGCM.generate_key(256), os.urandom(_NONCE)
    kek = _asked("seal", lambda: open_kms(*kms.admin).create_kek(BACKUPS))
    wrapped = _asked("seal", lambda: open_kms(kms.uri, kms.directory).wrap(kek, key, _AAD))
    sealed = nonce + AESGCM(key).encrypt(nonce, str(made).encode(), _AAD)
    texts = {"wrapped": b64encode(wrapped).decode(), "identity": b64encode(sealed).decode()}
    return made.to_public(), {"kek": kek.name, "version": kek.version, **texts}


def identity(kms: KmsChoice, envelope: Mapping[str, str] | None) -> Any:
    """Return the identity that ``recipient`` made. Raises RestoreRefused, ServerError."""
    if envelope is None:
        raise RestoreRefused("the backup is not sealed by a KMS", "give the --identity of a recipient")
    try:
        kek = KekRef(envelope["kek"], envelope["version"])
        wrapped, sealed = (b64decode(envelope[name], validate=True) for name in ("wrapped", "identity"))
        key = _asked("open", lambda: open_kms(kms.uri, kms.directory).unwrap(kek, wrapped, _AAD))
        text = AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _AAD).decode()
        return age().x25519.Identity.from_str(text)
    except (KeyError, TypeError, ValueError, InvalidTag):
        raise RestoreRefused(
            "what the KMS has to open was changed in manifest.json", "use the backup as it was made"
        ) from None


def _asked(verb: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except KmsError as error:
        raise ServerError(
            f"the KMS does not {verb} the backup: {error}",
            "its credential has to be in --kms-directory and may use the KEK of backups; "
            "see docs/operations/backup.md",
        ) from None
