"""Whose token the next transaction logs in with: a context variable, of a request, thread or task.

The middleware sets it for a request. Elsewhere, in a management command or a worker::

    with tokens.use(token), transaction.atomic(using="wards"):
        ...
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..client.tokens import Secret

__all__ = ["current", "use"]

current: ContextVar[Secret | None] = ContextVar("wardkey_token", default=None)


@contextmanager
def use(token: str | None) -> Iterator[None]:
    """Let transactions that begin in the block log in with ``token``; None: with none."""
    held = current.set(Secret(token) if token else None)
    del token
    try:
        yield
    finally:
        current.reset(held)
