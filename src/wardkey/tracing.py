"""OpenTelemetry spans of logins, releases of keys and calls of a KMS: the extra ``wardkey[otel]``.

Off, and nothing is imported, until ``enable`` is called; the keeper calls it where WARDKEY_TRACES is ``on``.
Whom spans are sent to is what the process sets up with OpenTelemetry's SDK. No token, SQL, key or value is in
a span: names and attributes are those of SPANS, and of an error its SQLSTATE of class WK alone, because the
text of an exception, and the frames it came through, may have more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["SPANS", "begin", "enable", "end", "end_login", "span"]

SPANS: Final = {
    "wardkey.login": frozenset(("db.system.name", "wardkey.shares_round_trip")),
    "wardkey.release": frozenset(("wardkey.tenant", "wardkey.key_version", "wardkey.classes")),
    "wardkey.kms": frozenset(("wardkey.kms", "wardkey.attempt")),
}
"""Name → attributes. Of the client: a login, until it is answered; of the keeper: a release, a KMS call."""

_SQLSTATE = re.compile(r"WK[0-9]{3}")
_OF_ERRORS = "wardkey.sqlstate"

_api: Any = None


def enable() -> None:
    """Trace from now on. Raises ImportError."""
    global _api
    from opentelemetry import trace

    with trace.get_tracer("wardkey").start_as_current_span("wardkey.enabled"):
        pass  # what is imported for the first span is imported now
    _api = trace


def begin(name: str, **attributes: str | int | bool) -> Any:
    """Return a span that has begun, for ``end``; None where nothing is traced. ``_`` stands for a dot."""
    if _api is None:
        return None
    known = {each.replace(".", "_"): each for each in SPANS[name]}
    return _api.get_tracer("wardkey").start_span(
        name, attributes={known[each]: value for each, value in attributes.items()}
    )


def end(begun: Any, error: BaseException | None = None) -> None:
    """End a span, with the error that it ended with."""
    if begun is None:
        return
    if error is not None:
        sqlstate = getattr(error, "sqlstate", None)
        if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate):
            begun.set_attribute(_OF_ERRORS, sqlstate)
        begun.set_status(_api.Status(_api.StatusCode.ERROR))
    begun.end()


def end_login(begun: Any, error: BaseException | None) -> None:
    """End a login's span: an error that is not of class WK is of the statement that shared its round trip."""
    sqlstate = getattr(error, "sqlstate", None)
    end(begun, error if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate) else None)


@contextmanager
def span(name: str, **attributes: str | int | bool) -> Iterator[None]:
    """Trace a block; spans that begin in it are its children."""
    begun = begin(name, **attributes)
    if begun is None:
        yield
        return
    with _api.use_span(begun, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            yield
        except BaseException as error:
            end(begun, error)
            raise
    end(begun)
