"""Pruning of logs whose retention is over; what may go says ``sql/functions/audit/retention.sql``.

A month's partition is dropped under a lock that waits for readers of the log, 5 s at most: then it is
tried again, and given up at last. Nothing is half pruned: each log is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg

from ..errors import OnHold, WardError, from_psycopg

__all__ = ["logs", "plan", "prune", "prune_all"]

_TRIES = 3

Connection = psycopg.Connection[Any]


def logs(connection: Connection) -> Iterator[tuple[UUID, str]]:
    """Yield each log's tenant and how to call it: slug, ``platform``, the id of a tenant that is gone."""
    yield from connection.execute(
        "select r.tenant_id, case r.tenant_id when ward_internal.master_id() then 'platform'"
        " else coalesce(t.slug, r.tenant_id::text) end"
        " from ward_internal.audit_trees as r left join ward_internal.tenants as t on t.id = r.tenant_id"
        " where to_regclass(ward_internal.audit_leaf(r.tenant_id)) is not null order by 2"
    ).fetchall()


def plan(connection: Connection, tenant: UUID) -> dict[str, Any]:
    """Return what could be pruned now: see ``ward_internal.plan_audit_pruning``."""
    return _one(connection, "select ward_internal.plan_audit_pruning(%s)", tenant)


def prune(connection: Connection, tenant: UUID) -> dict[str, Any]:
    """Prune, and return what went; nothing under legal hold. ``connection``: in autocommit.

    Raises DatabaseError where somebody keeps reading the log.
    """
    for attempt in range(_TRIES):
        try:
            return _one(connection, "select ward.prune_audit(%s)", str(tenant))
        except psycopg.errors.LockNotAvailable as error:
            if attempt == _TRIES - 1:
                raise from_psycopg(error) from None
        except psycopg.Error as error:
            if error.sqlstate != OnHold.sqlstate:
                raise
            break
    return plan(connection, tenant) | {"months": [], "entries": 0}


def prune_all(
    connection: Connection, say: Callable[[str], None], *, dry_run: bool = False
) -> Iterator[dict[str, Any]]:
    """Prune every log and yield what went; a log that cannot be pruned now is said, and ``failed``."""
    for tenant, name in list(logs(connection)):
        try:
            facts = plan(connection, tenant) if dry_run else prune(connection, tenant)
        except WardError as error:
            say(f"{name}: {error.message}")
            facts = {"failed": True, "why": error.message}
        yield {"slug": name, "dry_run": dry_run, **facts}


def _one(connection: Connection, query: str, value: object) -> dict[str, Any]:
    row = connection.execute(query, [value]).fetchone()
    facts: dict[str, Any] = row[0] if row else {}
    return facts
