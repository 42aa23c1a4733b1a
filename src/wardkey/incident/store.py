"""What is kept of incidents: state, the officer's judgements, what was counted and done.

Functions take a connection of a superuser; the caller commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ..errors import UnknownObject
from .losses import Loss

__all__ = ["Incident", "close", "every", "judge", "load", "open_", "record_act", "record_scope"]

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Incident:
    """``facts``: as ``ward.incidents`` has them. ``evidence``: of the last scope, None before the first."""

    id: UUID
    facts: dict[str, Any]
    patients_model: UUID
    losses: Rows
    judgements: Rows
    acts: Rows
    evidence: dict[str, Any] | None

    @property
    def discovered_at(self) -> datetime:
        at: datetime = self.facts["discovered_at"]
        return at


def open_(
    connection: Connection, title: str, discovered: datetime, losses: Sequence[Loss], patients: str
) -> UUID:
    """Open an incident. Raises psycopg.Error (WK203, WK204, WK212, WK228, WK285)."""
    named = Jsonb([loss.document() for loss in losses])
    query = "select ward.open_incident(%s, %s, %s, %s)"
    ((made,),) = connection.execute(query, [title, discovered, named, patients]).fetchall()
    return UUID(str(made))


def every(connection: Connection) -> Rows:
    """Return all incidents, the last first."""
    return _rows(connection, "select * from ward.incidents order by opened_at desc")


def load(connection: Connection, identity: UUID) -> Incident:
    """Return what is known of an incident. Raises UnknownObject."""
    facts = _rows(connection, "select * from ward.incidents where id = %s", identity)
    if not facts:
        raise UnknownObject("no incident has that id", "list them: wardkey incident list")
    ((model,),) = connection.execute(
        "select patients_model from ward_internal.incidents where id = %s", [identity]
    ).fetchall()
    losses = _rows(connection, _LOSSES, identity)
    judgements = _rows(connection, _OF["judgements"], identity)
    scopes = connection.execute(_SCOPE, [identity]).fetchall()
    evidence = scopes[0][0] if scopes else None
    acts = _rows(connection, _OF["acts"], identity)
    return Incident(identity, facts[0], model, losses, judgements, acts, evidence)


_LOSSES = """
select l.number, l.kind, l.what, l.tenant_id, coalesce(t.slug, l.tenant_id::text) as tenant, l.version,
       l.since, l.until
  from ward_internal.incident_losses as l left join ward_internal.tenants as t on t.id = l.tenant_id
 where l.incident_id = %s order by l.number"""
_OF = {
    "judgements": "select factor, is_low, reason, judged_by, judged_at from ward_internal.incident_judgements"
    " where incident_id = %s order by factor",
    "acts": "select a.act, coalesce(t.slug, a.tenant_id::text) as tenant, a.what, a.done_by, a.done_at"
    " from ward_internal.incident_acts as a left join ward_internal.tenants as t on t.id = a.tenant_id"
    " where a.incident_id = %s order by a.done_at",
}
_SCOPE = "select evidence from ward_internal.incident_scopes where incident_id = %s order by at desc limit 1"


def record_scope(connection: Connection, identity: UUID, evidence: dict[str, Any]) -> None:
    """Keep what was counted; it is an event of the platform's log. Raises psycopg.Error (WK285 closed)."""
    affected = [tenant["slug"] for tenant in evidence["tenants"]]
    patients, secured = evidence["patients"], evidence["is_secured"]
    connection.execute("select ward_internal.lock_incident(%s)", [identity])
    connection.execute(
        "insert into ward_internal.incident_scopes (incident_id, tenants, patients, is_secured, evidence)"
        " values (%s, %s, %s, %s, %s)",
        [identity, len(affected), patients, secured, Jsonb(evidence)],
    )
    told = {"incident": str(identity), "tenants": affected[:100], "patients": patients, "secured": secured}
    _log(connection, "incident scoped", told)


def record_act(connection: Connection, identity: UUID, act: str, tenant: UUID, what: str) -> None:
    """Keep that something was done, once."""
    connection.execute(
        "insert into ward_internal.incident_acts (incident_id, act, tenant_id, what) values (%s, %s, %s, %s)"
        " on conflict do nothing",
        [identity, act, tenant, what],
    )
    _log(connection, "incident acted", {"incident": str(identity), "act": act, "tenant": str(tenant)})


def judge(connection: Connection, identity: UUID, factor: int, is_low: bool, reason: str) -> None:
    """Raises psycopg.Error (WK204, WK212, WK285)."""
    connection.execute("select ward.judge_incident(%s, %s, %s, %s)", [identity, factor, is_low, reason])


def close(connection: Connection, identity: UUID, conclusion: str, reason: str) -> None:
    """Raises psycopg.Error (WK204, WK212, WK285)."""
    connection.execute("select ward.close_incident(%s, %s, %s)", [identity, conclusion, reason])


def _log(connection: Connection, kind: str, detail: dict[str, Any]) -> None:
    connection.execute(
        "select ward_internal.log_event(ward_internal.master_id(), %s, %s)", [kind, Jsonb(detail)]
    )


def _rows(connection: Connection, query: str, *values: object) -> Rows:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()
