"""Who is answered what.

``/metrics``          the platform's numbers, to the platform's token
``/metrics/SLUG``     a tenant's numbers, to that tenant's token
``/health``           204, or 503 while nothing could be read

A wrong token, none, and a tenant that is not there have one answer, and take the same comparisons. What is
told is at most ``FRESH`` seconds old, and so is the revocation of a token: who asks more often has the
same again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg

from ..errors import WardError, from_psycopg
from .collecting import Collector, Snapshot
from .http import Answer, Request

__all__ = ["FRESH", "MetricsService"]

FRESH: Final = 5.0  # seconds
_AGAIN: Final = 1.0  # seconds after which a token that is not known is looked for again
_TYPE: Final = ("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
_REFUSED: Final = Answer(401, b"", [("WWW-Authenticate", "Bearer")])
_NOBODY: Final = bytes(32)


class MetricsService:
    """An application of ``http``.

    ``report`` hears when the database cannot be read, and when it can again.
    """

    def __init__(self, collector: Collector, report: Callable[[str], None]) -> None:
        self._collector, self._report = collector, report
        self._snapshot: Snapshot | None = None
        self._tried = float("-inf")
        self._trouble: str | None = None
        self._reading, self._thread = asyncio.Lock(), ThreadPoolExecutor(1)

    async def __call__(self, request: Request) -> Answer:
        if request.method not in ("GET", "HEAD"):
            return Answer(405, b"", [("Allow", "GET")])
        if request.path == "/health":
            return Answer(503 if await self._fresh(FRESH) is None else 204, b"")
        if request.path != "/metrics" and not request.path.startswith("/metrics/"):
            return Answer(404, b"")
        slug = request.path.removeprefix("/metrics").removeprefix("/")
        if (given := _bearer(request.authorization)) is None:
            return _REFUSED
        snapshot = await self._fresh(FRESH)
        if snapshot is not None and not _is_known(snapshot, slug, given):
            snapshot = await self._fresh(_AGAIN)
        if snapshot is None:
            return Answer(503, b"")
        if not _is_known(snapshot, slug, given):
            return _REFUSED
        return Answer(200, snapshot.text(slug), [_TYPE])

    async def _fresh(self, seconds: float) -> Snapshot | None:
        """Return a snapshot that is no older, None where none can be taken now."""
        async with self._reading:
            if time.monotonic() - self._tried >= seconds:
                self._tried = time.monotonic()
                try:
                    collected = asyncio.get_running_loop().run_in_executor(
                        self._thread, self._collector.collect
                    )
                    self._snapshot, trouble = await collected, None
                except WardError as error:
                    self._snapshot, trouble = None, error.message
                except psycopg.Error as error:
                    self._snapshot, trouble = None, from_psycopg(error).message
                if trouble != self._trouble:
                    self._report(trouble or "the database can be read again")
                self._trouble = trouble
        return self._snapshot


def _bearer(credentials: Sequence[bytes]) -> bytes | None:
    """Return the digest of the one bearer token that is given."""
    if len(credentials) != 1 or credentials[0][:7].lower() != b"bearer ":
        return None
    return hashlib.sha256(credentials[0][7:].strip()).digest()


def _is_known(snapshot: Snapshot, slug: str, given: bytes) -> bool:
    expected = snapshot.digests.get(slug, _NOBODY)
    return hmac.compare_digest(expected, given) and expected != _NOBODY
