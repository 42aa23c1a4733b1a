"""The cache: whether what is in Redis is told of writes."""

from __future__ import annotations

from collections.abc import Iterator

from ..cache.lock import is_at_work
from ..daemon.status import StatusFile
from ._check import Check, Problem, Server

__all__ = ["CHECKS"]


def _at_work(server: Server) -> Iterator[Problem]:
    if not server.rows("select from ward_internal.cache_state"):
        return
    if not is_at_work(server.connection):
        text = "is not at work: clients read from the database"
        yield Problem("invalidator", text, "wardkey up")
    elif server.home is not None and server.home.exists:
        told = StatusFile.read(server.home.invalidator_status) or {}
        if trouble := told.get("trouble"):
            yield Problem("invalidator", f"is in trouble: {trouble}", "wardkey cache status")


CHECKS = (
    Check(
        "invalidator-at-work",
        "where clients cache, an invalidator marks in Redis what is written",
        _at_work,
        "warn",
        primary=True,
    ),
)
