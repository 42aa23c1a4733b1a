"""Whose tokens the keeper believes: ``issuers.json`` in its own directory, out of the database's reach.

The file is ``{"issuers": [issuer document, …]}``. The keeper reads it again when it was replaced, before
the next token is verified; a file that is missing, damaged or writable by others means that no token is
believed.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from wardkey_core.errors import InvalidToken, KeyRefused
from wardkey_core.tokens import Claims, Issuer, unverified_issuer, verify
from wardkey_core.wire import parse_json

from wardkey.daemon.files import read_guarded, write_atomically

__all__ = ["ISSUERS_FILE", "TrustedIssuers", "identity_of", "read_documents", "write_documents"]

ISSUERS_FILE = "issuers.json"
MOST_VERIFIED = 4096  # tokens known to be good


class _Issuers(msgspec.Struct, forbid_unknown_fields=True):
    issuers: list[dict[str, Any]]


class TrustedIssuers:
    """Verifies tokens against the issuers in ``path``. ``report`` is told when the file cannot be used.

    A token that was verified is known by its hash, for as long as it is valid and the file is the same.
    """

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._verified: OrderedDict[bytes, tuple[float, Claims]] = OrderedDict()  # since when, by hash
        self._report = report
        self._seen: tuple[int, ...] | None = ()
        self._issuers: Mapping[str, Issuer] | None = None

    def verify(self, token: str, now: float) -> Claims:
        """Return the token's claims.

        Raises InvalidToken, TokenExpired, KeyRefused (no issuers can be read).
        """
        issuers = self._current()
        if issuers is None:
            raise KeyRefused(
                "the keeper cannot read its issuers",
                "correct issuers.json; the keeper's own log says what is wrong",
            )
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        since, known = self._verified.get(digest, (0.0, None))
        if known is not None and since <= now < known.expires_at:  # a clock set back asks again
            return known
        issuer = issuers.get(unverified_issuer(token))
        if issuer is None:
            raise InvalidToken("token is not valid: the keeper does not know its issuer")
        claims = verify(token, issuer, now)
        self._verified[digest] = now, claims
        if len(self._verified) > MOST_VERIFIED:
            self._verified.popitem(last=False)
        return claims

    def count(self) -> int:
        """Return how many issuers are believed."""
        return len(self._current() or ())

    def _current(self) -> Mapping[str, Issuer] | None:
        seen = identity_of(self._path)
        if seen != self._seen:
            self._seen = seen
            self._verified.clear()
            try:
                self._issuers = {
                    issuer.issuer: issuer for issuer in map(Issuer.from_document, read_documents(self._path))
                }
            except (OSError, ValueError) as error:
                self._issuers = None
                self._report(f"{self._path} cannot be used, so no key is released: {error}")
        return self._issuers


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Return the issuer documents in ``path``, none when there is no such file.

    Raises ValueError, OSError.
    """
    try:
        documents = msgspec.convert(parse_json(read_guarded(path, secret=False)), _Issuers).issuers
    except FileNotFoundError:
        return []
    names = [document.get("issuer") for document in documents]
    if None in names or len(set(map(str, names))) != len(names):
        raise ValueError("issuers: each must be an issuer document, of another issuer than the rest")
    return documents


def write_documents(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``path`` at once.

    It belongs to whom its directory belongs to, the keeper's user. Raises OSError.
    """
    directory = path.parent.stat()
    content = json.dumps({"issuers": list(documents)}, indent=1).encode("utf-8")
    write_atomically(path, content + b"\n", owner=(directory.st_uid, directory.st_gid))


def identity_of(path: Path) -> tuple[int, ...] | None:
    """Return what is another as soon as the file was replaced or changed, None when there is no file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
