"""Where each tenant's key is wrapped, and whether keeper and orchestrator can do there what is theirs.

The keeper is asked to wrap the active data key once more, as it is; what it answers is thrown away. The
orchestrator is asked for the versions of the KEK. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.errors import WardError

from .kek import Keks

__all__ = ["Checked", "check", "schemes_in_use"]

Connection = psycopg.Connection[Any]
OK = "ok"
TO_MOVE = "not moved yet: wardkey keys rewrap"
_MASTER = "master"


@dataclass(frozen=True, slots=True)
class Checked:
    """What one key's owner finds. ``keeper`` and ``orchestrator`` are ``ok`` or what went wrong.

    A KEK that the tenant's present KMS does not know is in one from before, where it can be used.
    """

    tenant: str
    kek: str
    keeper: str
    orchestrator: str

    @property
    def ok(self) -> bool:
        return self.keeper == OK and self.orchestrator in (OK, TO_MOVE)


def schemes_in_use(connection: Connection) -> dict[str, int]:
    """Return how many data keys are wrapped in KMSes of each scheme."""
    rows = connection.execute(
        "select split_part(kek, ':', 1), count(*) from ward_internal.tenant_keys"
        " where wrapped is not null and kek <> %s group by 1 order by 1",
        [_MASTER],
    )
    return dict(rows.fetchall())


def check(connection: Connection, keks: Keks, socket: Path, slug: str | None = None) -> Iterator[Checked]:
    """Try the active key of every tenant, or of one. A derived key is its master's business."""
    rows = connection.execute(
        "select coalesce(t.slug, %(master)s), k.tenant_id, k.version,"
        "   k.kek, k.kek_version, k.wrapped, k.commitment, k.region"
        " from ward_internal.tenant_keys as k left join ward_internal.tenants as t on t.id = k.tenant_id"
        " where k.state = 'active' and k.kek <> %(master)s and (%(slug)s::text is null or t.slug = %(slug)s)"
        " order by t.slug nulls first",
        {"master": _MASTER, "slug": slug},
    ).fetchall()
    for name, tenant, version, kek, kek_version, wrapped, commitment, region in rows:
        key = wire.key_members(version, kek, kek_version, wrapped, commitment=commitment, region=region)
        request = wire.rewrap(str(tenant), key, kek, kek_version)
        yield Checked(name, kek, _keeper(socket, request), _orchestrator(keks, tenant, region))


def _keeper(socket: Path, request: dict[str, Any]) -> str:
    try:
        client.ask(socket, request)
    except WardError as error:
        return error.message
    return OK


def _orchestrator(keks: Keks, tenant: UUID, region: str) -> str:
    try:
        known = keks.versions(tenant, region)
    except WardError as error:
        return error.message
    if known and all(version.state != "enabled" for version in known):
        return "no version of the KEK is enabled"
    return OK if known else TO_MOVE
