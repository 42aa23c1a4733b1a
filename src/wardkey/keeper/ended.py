"""Whose logins were ended: subjects that opened a honey row or whose credential was lost, until an operator
lets them in again.

The keeper releases nothing to them, and tells backends, which refuse them at the next transaction, by a file
beside its socket, ``SOCKET.ended``: a SHA-256 a line (``wardkey_core.identity.subject_digest``), replaced
whole. What is in ``ended.jsonl`` of the keeper's directory is only ever appended to::

    {"what": "ended" or "lifted", "time": Unix seconds, "tenant": uuid, "issuer": text, "subject": text}
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Struct
from wardkey_core.administration import UnknownObject
from wardkey_core.errors import KeeperUnavailable, LoginsEnded
from wardkey_core.identity import subject_digest
from wardkey_core.tokens import Claims
from wardkey_core.wire import ENDED_SUFFIX, parse_json

from wardkey.daemon.appending import AppendFile
from wardkey.daemon.files import write_atomically
from wardkey.daemon.lines import Line
from wardkey.daemon.service import ServiceError

__all__ = ["ENDED_FILE", "Ended"]

ENDED_FILE = "ended.jsonl"
MOST_TOLD = 200

_Subject = tuple[str, str, str]  # tenant, issuer, subject


class _Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="what"):
    time: float
    tenant: UUID
    issuer: str
    subject: str


class _Ended(_Step, frozen=True, kw_only=True, tag="ended"):
    pass


class _Lifted(_Step, frozen=True, kw_only=True, tag="lifted"):
    pass


class Ended:
    """Reads ``path``, making it when it is missing; tells backends beside ``socket``.

    Raises ServiceError, OSError.
    """

    def __init__(self, path: Path, socket: Path, report: Callable[[str], None]) -> None:
        self._report = report
        self._told = socket.with_name(socket.name + ENDED_SUFFIX)
        self._since: dict[_Subject, float] = {}
        self._file = AppendFile(
            path, report, lambda data: self._apply(msgspec.convert(parse_json(data), _Ended | _Lifted))
        )
        self._tell()

    def check(self, claims: Claims) -> None:
        """Raises LoginsEnded."""
        if self._since and (claims.tenant_id, claims.issuer, claims.subject) in self._since:
            raise LoginsEnded

    def end(self, tenant: UUID, issuer: str, subject: str) -> None:
        """Let a subject in no more. Raises KeeperUnavailable."""
        if (str(tenant), issuer, subject) not in self._since:
            self._write(_Ended, (str(tenant), issuer, subject))

    def lift(self, tenant: UUID, issuer: str, subject: str) -> None:
        """Let a subject in again. Raises UnknownObject, KeeperUnavailable."""
        if (str(tenant), issuer, subject) not in self._since:
            raise UnknownObject(
                "the keeper has ended no logins of that subject", "list them: wardkey access honey ended"
            )
        self._write(_Lifted, (str(tenant), issuer, subject))

    def every(self, tenant: UUID) -> list[dict[str, Any]]:
        """Return those of a tenant, the last first."""
        subjects = [
            {"issuer": issuer, "subject": subject, "since": since}
            for (of, issuer, subject), since in self._since.items()
            if of == str(tenant)
        ]
        return subjects[: -MOST_TOLD - 1 : -1]

    def _write(self, kind: type[_Ended | _Lifted], subject: _Subject) -> None:
        tenant, issuer, name = subject
        line = kind(time=time.time(), tenant=UUID(tenant), issuer=issuer, subject=name)
        try:
            self._file.append(msgspec.json.encode(line) + b"\n")
            self._apply(line)
            self._tell()
        except (OSError, ServiceError) as error:
            self._report(Line("ledger_unwritable", f"whose logins end cannot be written: {error}"))
            raise KeeperUnavailable("the keeper cannot write its ledger", "see the keeper's log") from None

    def _apply(self, line: _Ended | _Lifted) -> None:
        subject = (str(line.tenant), line.issuer, line.subject)
        if isinstance(line, _Ended):
            self._since[subject] = line.time
        else:
            self._since.pop(subject, None)

    def _tell(self) -> None:
        digests = sorted(subject_digest(*subject).hex() for subject in self._since)
        if digests or self._told.exists():
            write_atomically(self._told, "".join(f"{each}\n" for each in digests).encode(), mode=0o644)
