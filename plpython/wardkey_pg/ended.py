"""Subjects whose logins the keeper has ended, as it tells backends: in a file beside its socket.

A look at the file costs a login 2 µs. It needs no answer of the keeper, so that a keeper that is away stops
nobody, and no transaction, so that a ROLLBACK undoes nothing.
"""

from __future__ import annotations

import os

from wardkey_core.errors import KeeperUnavailable, LoginsEnded
from wardkey_core.identity import subject_digest
from wardkey_core.wire import ENDED_SUFFIX

__all__ = ["EndedLogins"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wardkey_core.tokens import Claims


class EndedLogins:
    """What the file said when it was last another one."""

    __slots__ = ("_digests", "_own", "_seen")

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self._own: set[bytes] = set()  # of which the keeper may not know
        self._seen: tuple[int, int] | None = None  # inode and time of the file

    def add(self, claims: Claims) -> None:
        """Let the subject in no more here, whether or not the keeper could be told."""
        self._own.add(subject_digest(claims.tenant_id, claims.issuer, claims.subject))

    def check(self, socket: str | None, claims: Claims) -> None:
        """Raises LoginsEnded. ``socket``: the keeper's."""
        if socket:
            self._look(socket + ENDED_SUFFIX)
        if not self._digests and not self._own:
            return
        digest = subject_digest(claims.tenant_id, claims.issuer, claims.subject)
        if digest in self._digests or digest in self._own:
            raise LoginsEnded

    def _look(self, path: str) -> None:
        try:
            status = os.stat(path)  # noqa: PTH116 - pathlib is imported by no backend
            seen = status.st_ino, status.st_mtime_ns
            if seen != self._seen:
                with open(path, encoding="ascii") as file:  # noqa: PTH123
                    self._digests = {bytes.fromhex(line) for line in file}
                self._seen = seen
        except FileNotFoundError:
            pass  # nobody's were, ever
        except (OSError, ValueError):
            raise KeeperUnavailable(
                "whose logins were ended cannot be read", "the server's user must be able to read it"
            ) from None
