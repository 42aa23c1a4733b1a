"""A tenant's log as the file that anyone can verify, written in the database: ``ward.audit_export``."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from wardkey_core.administration import Unsupported
from wardkey_core.log.exporter import Period, steps
from wardkey_core.log.source import DamagedLog, Log, Row

__all__ = ["export"]


class Host(Protocol):
    def fetch(self, sql: str, size: int, values: Sequence[str | None] = ()) -> Iterator[list[Any]]: ...


class _Database:
    def __init__(self, host: Host) -> None:
        self._host = host

    def rows(self, query: str, *values: str | None, size: int = 1000) -> Iterator[Row]:
        for piece in self._host.fetch(query, size, values):
            for row in piece:
                yield tuple(row.values())


def export(
    host: Host, tenant: str, slug: str | None, table: str, begin: str | None, end: str | None
) -> Iterator[str]:
    """Yield the lines of an export; ``begin`` and ``end`` in ISO 8601. Raises Unsupported of a damaged log.

    ``table``: the tenant's part of the log, as SQL quotes it: the owner may read no more.

    Where SQL functions do not join by nested loops, and under one snapshot.
    """
    stream = io.BytesIO()
    period = Period(*(bound and datetime.fromisoformat(bound) for bound in (begin, end)))  # type: ignore[arg-type]
    try:
        for _ in steps(Log(_Database(host), UUID(tenant), table), slug, period, stream):
            yield from _taken(stream)
    except DamagedLog as error:
        raise Unsupported(str(error), error.hint) from None
    yield from _taken(stream)


def _taken(stream: io.BytesIO) -> list[str]:
    """Return the lines that were written since."""
    lines = stream.getvalue().decode().split("\n")[:-1]
    stream.seek(0)
    stream.truncate()
    return lines
