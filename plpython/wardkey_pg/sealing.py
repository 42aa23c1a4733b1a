"""Sealing and opening values in the current context."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from wardkey_core.envelope import ColumnKey
from wardkey_core.errors import NoContext, OpenFailed

from .context import Session
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

_Open = Callable[[bytes, bytes, bytes], bytes | None]  # None: refused, see wardkey_pg._host
_Statement = Callable[[], int]


def make_unseal_bytes(session: Session, statement: _Statement, slow: _Open) -> _Open:
    """Return ``unseal_bytes(sealed, column, row)``.

    Its body is what every sealed field of every row costs: a comparison, a look-up, a call, and whether the
    row is journalled; if not, it is before the plaintext is returned. Whatever does not go that smoothly is
    left to ``slow``, which is ``open_slowly`` with its refusals kept for SQL to raise.
    """

    def unseal_bytes(sealed: bytes, column: bytes, row: bytes) -> bytes | None:
        if statement() == session.stamp:
            opener = session.openers.get((column, sealed[:5]))
            if opener is not None:
                try:
                    plaintext = opener[0](sealed[5:17], sealed[17:], opener[1] + row)
                    rows = opener[2]
                    if rows is not None and row not in rows:
                        opener[3](row)  # type: ignore[misc]  # where there are rows, there is what notes one
                    return plaintext
                except (InvalidTag, ValueError):
                    pass
        return slow(sealed, column, row)

    return unseal_bytes


def make_unseal(
    session: Session, statement: _Statement, slow: Callable[[bytes, bytes, bytes], str | None]
) -> Callable[[bytes, bytes, bytes], str | None]:
    """Return ``unseal(sealed, column, row)``: the same, for text."""

    def unseal(sealed: bytes, column: bytes, row: bytes) -> str | None:
        if statement() == session.stamp:
            opener = session.openers.get((column, sealed[:5]))
            if opener is not None:
                try:
                    plaintext = opener[0](sealed[5:17], sealed[17:], opener[1] + row)
                    rows = opener[2]
                    if rows is not None and row not in rows:
                        opener[3](row)  # type: ignore[misc]
                    return plaintext.decode()
                except (InvalidTag, ValueError):
                    pass
        return slow(sealed, column, row)

    return unseal


def open_slowly(session: Session, sealed: bytes, column: bytes, row: bytes) -> bytes:
    """Open a value whose context or key is not at hand, or whose column is new to the statement; journal it.

    Raises NoContext, OpenFailed or a keeper's error.
    """
    reads = session.reading()
    key = reads.keys.get((column, sealed[:5]))  # the same columns are opened statement by statement
    try:
        if key is None:
            key = session.opening(sealed, column)
            reads = session.reading()  # another, if the registry's keys were looked at again
        plaintext = key.open(sealed, row)
    except OpenFailed:
        session.report_tampering(column, row)
        raise
    reads.note(column, key, row)
    return plaintext


def open_text_slowly(session: Session, sealed: bytes, column: bytes, row: bytes) -> str:
    try:
        return open_slowly(session, sealed, column, row).decode()
    except UnicodeDecodeError:
        raise OpenFailed from None


def make_seal_bytes(session: Session, slow: Callable[[bytes], ColumnKey | None]) -> _Open:
    """Return ``seal_bytes(plaintext, column, row)``, under the tenant's active key.

    Only face triggers may call it, right after ``begin_write``, which has just asked for the context: it is
    not asked for again, and a context that ended took its sealers along.
    """

    def seal_bytes(plaintext: bytes, column: bytes, row: bytes) -> bytes | None:
        sealer = session.sealers.get(column)
        if sealer is None:
            key = slow(column)
            return None if key is None else key.seal(plaintext, row, nonce())
        header, encrypt, aad = sealer
        once = nonce()
        return header + once + encrypt(once, plaintext, aad + row)

    return seal_bytes


def make_seal(
    session: Session, slow: Callable[[bytes], ColumnKey | None]
) -> Callable[[str, bytes, bytes], bytes | None]:
    """Return ``seal(text, column, row)``."""

    def seal(plaintext: str, column: bytes, row: bytes) -> bytes | None:
        sealer = session.sealers.get(column)
        if sealer is None:
            key = slow(column)
            return None if key is None else key.seal(plaintext.encode(), row, nonce())
        header, encrypt, aad = sealer
        once = nonce()
        return header + once + encrypt(once, plaintext.encode(), aad + row)

    return seal


def sealer_slowly(session: Session, column: bytes) -> ColumnKey:
    """Return the key that seals ``column``. Raises NoContext and what a keeper may say."""
    context = session.current(begun=True)
    if context is None:
        raise NoContext
    return context.keys.sealing(column, session.release)
