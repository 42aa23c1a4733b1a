"""The platform's access policy as the keeper has it: ``policy.json`` in its own directory.

Without the file the policy is the default one. The keeper reads it again when it was replaced, before the
next release. A file that is damaged or writable by others means that no key is released.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from wardkey_core.errors import KeyRefused
from wardkey_core.policy import DEFAULT, Cell, Policy
from wardkey_core.policy_document import document, parse
from wardkey_core.wire import parse_json

from wardkey.daemon.files import identity_of, read_guarded, write_atomically
from wardkey.daemon.lines import Line

__all__ = ["POLICY_FILE", "KeeperPolicy", "read_policy", "write_policy"]

POLICY_FILE = "policy.json"


class KeeperPolicy:
    """``report`` is told when the file cannot be used."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self._path = path
        self._report = report
        self._seen: tuple[int, ...] | None = ()
        self._policy: Policy | None = None

    def of(self, role: str) -> Mapping[str, Cell]:
        """Return what ``role`` may have, by class. Raises KeyRefused when no policy can be read."""
        seen = identity_of(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._policy = read_policy(self._path)
            except (OSError, ValueError) as error:
                self._policy = None
                self._report(
                    Line("file_unusable", f"{self._path} cannot be used, so no key is released: {error}")
                )
        if self._policy is None:
            raise KeyRefused(
                "the keeper cannot read its access policy",
                "correct policy.json; the keeper's own log says what is wrong",
            )
        return self._policy.get(role, {})


def read_policy(path: Path) -> Policy:
    """Return the policy in ``path``, the default one without a file. Raises ValueError, OSError."""
    try:
        return parse(parse_json(read_guarded(path, secret=False)))
    except FileNotFoundError:
        return DEFAULT


def write_policy(path: Path, policy: Policy) -> None:
    """Replace ``path`` at once; it belongs to whom its directory belongs to. Raises OSError."""
    directory = path.parent.stat()
    content = json.dumps(document(policy), indent=1).encode("utf-8")
    write_atomically(path, content + b"\n", owner=(directory.st_uid, directory.st_gid))
