"""Sealing and opening values in the current context."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag

from .context import Session
from .envelope import ColumnKey
from .errors import NoContext, OpenFailed
from .keyring import nonce

__all__ = [
    "make_seal",
    "make_seal_bytes",
    "make_unseal",
    "make_unseal_bytes",
    "open_slowly",
    "open_text_slowly",
    "sealer_slowly",
]

_Open = Callable[[bytes, bytes, bytes], bytes]
_Transaction = Callable[[], int]


def make_unseal_bytes(session: Session, transaction: _Transaction, slow: _Open) -> _Open:
    """Return ``unseal_bytes(sealed, column, row)``.

    Its body is what every sealed field of every row costs: a comparison, a look-up, a call. Whatever does not
    go that smoothly is left to ``slow``, which is ``open_slowly`` behind the boundary that makes SQL errors.
    """

    def unseal_bytes(sealed: bytes, column: bytes, row: bytes) -> bytes:
        if transaction() == session.stamp:
            opener = session.openers.get((column, sealed[:5]))
            if opener is not None:
                try:
                    return opener[0](sealed[5:17], sealed[17:], opener[1] + row)
                except (InvalidTag, ValueError):
                    pass
        return slow(sealed, column, row)

    return unseal_bytes


def make_unseal(
    session: Session, transaction: _Transaction, slow: Callable[[bytes, bytes, bytes], str]
) -> Callable[[bytes, bytes, bytes], str]:
    """Return ``unseal(sealed, column, row)``: the same, for text."""

    def unseal(sealed: bytes, column: bytes, row: bytes) -> str:
        if transaction() == session.stamp:
            opener = session.openers.get((column, sealed[:5]))
            if opener is not None:
                try:
                    return opener[0](sealed[5:17], sealed[17:], opener[1] + row).decode()
                except (InvalidTag, ValueError):
                    pass
        return slow(sealed, column, row)

    return unseal


def open_slowly(session: Session, sealed: bytes, column: bytes, row: bytes) -> bytes:
    """Open a value whose context or key is not at hand. Raises NoContext, OpenFailed or a keeper's error."""
    context = session.current()
    if context is None:
        raise NoContext
    if len(column) != 16:
        raise OpenFailed
    keys = session.look_again() if context.keys.lacks(sealed) else context.keys
    return keys.opening(sealed, column, session.release).open(sealed, row)


def open_text_slowly(session: Session, sealed: bytes, column: bytes, row: bytes) -> str:
    try:
        return open_slowly(session, sealed, column, row).decode()
    except UnicodeDecodeError:
        raise OpenFailed from None


def make_seal_bytes(session: Session, slow: Callable[[bytes], ColumnKey]) -> _Open:
    """Return ``seal_bytes(plaintext, column, row)``, under the tenant's active key.

    Only face triggers may call it, right after ``begin_write``, which has just asked for the context: it is
    not asked for again, and a context that ended took its sealers along.
    """

    def seal_bytes(plaintext: bytes, column: bytes, row: bytes) -> bytes:
        sealer = session.sealers.get(column)
        if sealer is None:
            return slow(column).seal(plaintext, row, nonce())
        header, encrypt, aad = sealer
        once = nonce()
        return header + once + encrypt(once, plaintext, aad + row)

    return seal_bytes


def make_seal(session: Session, slow: Callable[[bytes], ColumnKey]) -> Callable[[str, bytes, bytes], bytes]:
    """Return ``seal(text, column, row)``."""

    def seal(plaintext: str, column: bytes, row: bytes) -> bytes:
        sealer = session.sealers.get(column)
        if sealer is None:
            return slow(column).seal(plaintext.encode(), row, nonce())
        header, encrypt, aad = sealer
        once = nonce()
        return header + once + encrypt(once, plaintext.encode(), aad + row)

    return seal


def sealer_slowly(session: Session, column: bytes) -> ColumnKey:
    """Return the key that seals ``column``. Raises NoContext and what a keeper may say."""
    context = session.current()
    if context is None:
        raise NoContext
    return context.keys.sealing(column, session.release)
