"""Errors of class WK as errors of Django, with the one of ``wardkey.errors`` as ``__cause__``.

Who asks is not known, or keeper, KMS or log are away: ``OperationalError``. All others, such as a class
that the role does not see: ``ProgrammingError``, as for a missing privilege.
"""

from __future__ import annotations

from typing import Any

from django.db import OperationalError, ProgrammingError
from django.db.utils import DatabaseErrorWrapper

from ..errors import (
    AuditUnavailable,
    ContextError,
    KeeperBusy,
    KeeperUnavailable,
    RoleMayNotWrite,
    ServerError,
    WardError,
    ward_error,
)

__all__ = ["ErrorWrapper"]

_OPERATIONAL = (ContextError, KeeperBusy, KeeperUnavailable, AuditUnavailable, ServerError)


class ErrorWrapper(DatabaseErrorWrapper):
    """Errors of psycopg and of wardkey as those of Django."""

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        cause = error if isinstance(error, WardError) else ward_error(error)
        if cause is None:
            super().__exit__(kind, error, traceback)
            return
        self.wrapper.errors_occurred = True
        error.__traceback__ = None  # frames of psycopg have statement and parameters
        operational = isinstance(cause, _OPERATIONAL) and not isinstance(cause, RoleMayNotWrite)
        message = f"{cause.message}\nHINT:  {cause.hint}" if cause.hint else cause.message
        raise (OperationalError if operational else ProgrammingError)(message) from cause
