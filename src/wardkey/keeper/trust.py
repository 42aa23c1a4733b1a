"""Whose tokens the keeper believes: ``issuers.json`` in its own directory, out of the database's reach.

The file is ``{"issuers": [issuer document, …]}``. The keeper reads it again when it was replaced, before
the next token is verified; a file that is missing, damaged or writable by others means that no token is
believed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wardkey_core.errors import KeyRefused
from wardkey_core.tokens import Claims, Issuer
from wardkey_core.verifier import Verifier, parse_issuers

from wardkey.daemon.files import identity_of, read_guarded, write_atomically
from wardkey.daemon.lines import Line

__all__ = ["ISSUERS_FILE", "TrustedIssuers", "read_documents", "write_documents"]

ISSUERS_FILE = "issuers.json"


class TrustedIssuers:
    """Verifies tokens against the issuers in ``path``. ``report`` is told when the file cannot be used."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._seen: tuple[int, ...] | None = ()
        self._verifier: Verifier | None = None

    def verify(self, token: str, now: float) -> Claims:
        """Return the token's claims.

        Raises InvalidToken, TokenExpired, KeyRefused (no issuers can be read).
        """
        verifier = self._current()
        if verifier is None:
            raise KeyRefused(
                "the keeper cannot read its issuers",
                "correct issuers.json; the keeper's own log says what is wrong",
            )
        return verifier.verify(token, now)

    def count(self) -> int:
        """Return how many issuers are believed."""
        verifier = self._current()
        return 0 if verifier is None else len(verifier.issuers)

    def _current(self) -> Verifier | None:
        seen = identity_of(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._verifier = Verifier(map(Issuer.from_document, read_documents(self._path)))
            except (OSError, ValueError) as error:
                self._verifier = None
                self._report(
                    Line("file_unusable", f"{self._path} cannot be used, so no key is released: {error}")
                )
        return self._verifier


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Return the issuer documents in ``path``, none when there is no such file.

    Raises ValueError, OSError.
    """
    try:
        return parse_issuers(read_guarded(path, secret=False))
    except FileNotFoundError:
        return []


def write_documents(path: Path, documents: Sequence[Mapping[str, Any]]) -> None:
    """Replace ``path`` at once.

    It belongs to whom its directory belongs to, the keeper's user. Raises OSError.
    """
    directory = path.parent.stat()
    content = json.dumps({"issuers": list(documents)}, indent=1).encode("utf-8")
    write_atomically(path, content + b"\n", owner=(directory.st_uid, directory.st_gid))
