"""Logs that go on from an older checkpoint than the last one their keeper signed: after a restore.

The keeper signs one history of each log. What it signed and the database has lost cannot be restored, and
neither can the reads that were journalled then: the log says so in an entry of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.log.checkpoint import Checkpoint

from .live import ask_keeper, log_name
from .remembered import Remembered
from .which import PLATFORM

__all__ = ["Readmission", "forked", "readmit"]

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class Readmission:
    """A log, its newest checkpoint here (None: none), and what the keeper has signed last."""

    tenant: UUID
    name: str
    newest: Checkpoint | None
    remembered: Remembered

    @property
    def is_forked(self) -> bool:
        """Whether the keeper refuses the next checkpoint."""
        number, digest = (self.newest.number, self.newest.digest()) if self.newest else (0, b"")
        last = self.remembered
        return last.number != 0 and (last.number, last.digest) != (number, digest)


def find(connection: Connection, keeper: Path, tenant: UUID, name: str) -> Readmission:
    """Compare a log with the keeper's memory. Raises KeeperUnavailable, KeyRefused."""
    remembered = ask_keeper(connection, keeper, tenant)
    row = connection.execute(
        "select checkpoint from ward_internal.audit_checkpoints where tenant_id = %s"
        " order by size desc limit 1",
        [tenant],
    ).fetchone()
    return Readmission(tenant, name, Checkpoint.decode(row[0].encode()) if row else None, remembered)


def forked(connection: Connection, keeper: Path) -> Iterator[Readmission]:
    """Yield every log, also of tenants that are gone, of which the keeper refuses the next checkpoint."""
    query = """
        select l.id, coalesce(t.slug, case l.id when %s then 'platform' else l.id::text end)
        from (select tenant_id as id from ward_internal.audit_trees
          union select id from ward_internal.tenants) as l
        left join ward_internal.tenants as t on t.id = l.id order by 2"""
    for tenant, name in connection.execute(query, [PLATFORM]).fetchall():
        if (log := find(connection, keeper, tenant, name)).is_forked:
            yield log


def readmit(connection: Connection, keeper: Path, readmission: Readmission, operator: str) -> None:
    """Let the keeper sign any next checkpoint of the log, once, and write into the log what was lost.

    The log's Kafka topic is left as it is: the publisher makes another one. ``connection``: in autocommit.
    Raises KeeperUnavailable, KeyRefused, psycopg.Error.
    """
    had = {"number": readmission.remembered.number, "size": readmission.remembered.size}
    detail: dict[str, Any] = {"operator": operator, "keeper_had": had}
    if readmission.newest is not None:
        detail |= {
            "since": readmission.newest.at,
            "log_has": {"number": readmission.newest.number, "size": readmission.newest.size},
        }
    is_behind = readmission.remembered.number > (readmission.newest.number if readmission.newest else 0)
    kind = "journal gap" if is_behind else "log readmitted"
    if is_behind:
        detail["why"] = "the database was restored from a backup, and its log readmitted"
    log = log_name(connection) if readmission.tenant == PLATFORM else None
    with connection.transaction():
        connection.execute(
            "select ward_internal.log_event(%s, %s, %s)", [readmission.tenant, kind, Jsonb(detail)]
        )
        connection.execute(
            "delete from ward_internal.audit_topics where tenant_id = %s", [readmission.tenant]
        )
        client.ask(keeper, wire.checkpoint(str(readmission.tenant), log, readmit=True))
