"""All numbers as of one moment, and the digests of who may read them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row
from wardkey_core import keeper_client
from wardkey_core.errors import WardError

from ..daemon.sessions import connect
from .registry import PLATFORM, Metric, Reading, Values, every, render

__all__ = ["Collector", "Snapshot"]

_TENANTS = "select id, slug from ward_internal.tenants where status in ('active', 'suspended')"
_TOKENS = "select tenant_id, sha256 from ward_internal.metrics_tokens"
_KEEPER_SECONDS = 2.0
_QUERY_SECONDS = 20
_SETTINGS = {"search_path": "pg_catalog", "statement_timeout": f"{_QUERY_SECONDS}s"}


@dataclass(slots=True)
class Snapshot:
    """``digests``: of tokens by slug; the platform's is called ``""``. ``taken``: by ``time.monotonic``."""

    taken: float
    tenants: Mapping[str, UUID]
    digests: Mapping[str, bytes]
    values: Mapping[UUID, Mapping[Metric, Values]]
    _texts: dict[str, bytes] = field(default_factory=dict)

    def text(self, slug: str) -> bytes:
        """Return what is told of a tenant, or of the platform."""
        if slug not in self._texts:
            values = self.values.get(self.tenants[slug] if slug else PLATFORM, {})
            self._texts[slug] = render(values)
        return self._texts[slug]


class Collector:
    """Keeps a connection, as ward_metrics. For one thread at a time."""

    def __init__(self, dsn: str, keeper: Path | None) -> None:
        self._dsn, self._keeper = dsn, keeper
        self._connection: psycopg.Connection[Any] | None = None

    def collect(self) -> Snapshot:
        """Return everything as it is now, in one transaction of the database.

        Raises WardError, psycopg.Error.
        """
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._dsn, "wardkey metrics", settings=_SETTINGS)
        try:
            with self._connection.transaction():
                self._connection.execute("set transaction isolation level repeatable read, read only")
                return self._read(self._connection.cursor(row_factory=tuple_row))
        except psycopg.Error:
            self._connection.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _read(self, cursor: psycopg.Cursor[tuple[Any, ...]]) -> Snapshot:
        tenants = {slug: tenant for tenant, slug in cursor.execute(_TENANTS).fetchall()}
        digests = dict(cursor.execute(_TOKENS).fetchall())
        known: dict[str, list[tuple[Any, ...]]] = {}

        def rows(query: str) -> list[tuple[Any, ...]]:
            if query not in known:
                known[query] = cursor.execute(query).fetchall()
            return known[query]

        reading = Reading(rows, self._ask_keeper(rows), list(tenants.values()))
        values: dict[UUID, dict[Metric, dict[str, Any]]] = {}
        for metric in every():
            for tenant, label, value in metric.read(reading):
                if (tenant != PLATFORM) == metric.is_of_tenants:
                    values.setdefault(tenant, {}).setdefault(metric, {})[label] = value
        return Snapshot(
            time.monotonic(),
            tenants,
            {
                slug: digests[tenant]
                for slug, tenant in {**tenants, "": PLATFORM}.items()
                if tenant in digests
            },
            values,
        )

    def _ask_keeper(self, rows: Any) -> Mapping[str, Any] | None:
        path = self._keeper
        if path is None:
            sockets = rows("select value from ward_internal.settings where name = 'keeper_socket'")
            path = Path(sockets[0][0]) if sockets else None
        try:
            return None if path is None else keeper_client.status(path, _KEEPER_SECONDS)
        except WardError:
            return None
