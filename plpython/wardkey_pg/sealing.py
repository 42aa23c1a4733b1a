"""Sealing and opening values in the current context."""

from __future__ import annotations

from wardkey_core import ciphers
from wardkey_core.errors import NoContext, OpenFailed

from .keyring import nonce

__all__ = ["make_seal", "make_unseal", "open_slowly", "sealers_slowly"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .context import Session
    from .keyring import Sealer

    _Open = Callable[[bytes, bytes, bytes], bytes | None]  # None: refused, see wardkey_pg._host


def make_unseal(session: Session, slow: _Open) -> _Open:
    """Return ``unseal(sealed, column, row)``.

    Its body is what every sealed field of every row costs: a look-up, a call, and whether the row is
    journalled; if not, it is before the plaintext is returned. Whatever does not go that smoothly is left to
    ``slow``, which is ``open_slowly`` with its refusals kept for SQL to raise. When a statement ends its
    openers do: nothing is looked up that a later one might have to ask the context for.
    """

    def unseal(sealed: bytes, column: bytes, row: bytes) -> bytes | None:
        opener = session.openers.get((column, sealed[:5]))
        if opener is not None:
            try:
                plaintext = opener[0](sealed[5:17], sealed[17:], opener[1] + row)
                rows = opener[2]
                if rows is not None and row not in rows:
                    opener[3](row)  # type: ignore[misc]  # where there are rows, there is what notes one
                return plaintext
            except (ciphers.InvalidTag, ValueError):
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


def make_seal(
    session: Session, slow: Callable[[bytes, Sequence[bytes | None]], Sequence[Sealer] | None]
) -> Callable[[Sequence[bytes | None], bytes, bytes], list[bytes | None] | None]:
    """Return ``seal(plaintexts, columns, row)``, under the tenant's active key; None stays None.

    ``columns``: their ids, one after the other. Only face triggers may call it, right after ``begin_write``,
    which has just asked for the context: it is not asked for again, and a context that ended took its
    sealers along.
    """

    counts = session.counts

    def seal(plaintexts: Sequence[bytes | None], columns: bytes, row: bytes) -> list[bytes | None] | None:
        sealers = session.sealers.get(columns) or slow(columns, plaintexts)
        if sealers is None:
            return None
        made: list[bytes | None] = []
        for plaintext, (header, encrypt, aad) in zip(plaintexts, sealers, strict=True):
            if plaintext is None:
                made.append(None)
            else:
                once = nonce()
                made.append(header + once + encrypt(once, plaintext, aad + row))
        counts.sealed += len(made) - made.count(None)
        return made

    return seal


def sealers_slowly(session: Session, columns: bytes, plaintexts: Sequence[bytes | None]) -> Sequence[Sealer]:
    """Return what seals each of ``columns``.

    Raises NoContext, RoleMayNotWrite of a class with a value in ``plaintexts``, and what a keeper may say.
    """
    context = session.current(begun=True)
    if context is None:
        raise NoContext
    keys = context.keys if context.keys.knows(columns) else session.look_again()
    return keys.sealing(columns, plaintexts, session.release)
