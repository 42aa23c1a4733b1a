"""What an operator can have done to keys: one method per request, each of which may be repeated.

Methods act on tenants as ``registry.read_tenants`` gave them. Trouble with one tenant is told and the others
go on; whatever the database or the keeper refuses is a WardError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from ..errors import from_psycopg
from ..kms import KekRef
from . import destroy, policy, registry, rewrap, run
from .kek import Keks
from .policy import Due, Policy, TenantKeys
from .registry import Connection
from .run import Outcome, Progress, Throttle

__all__ = ["MASTER", "Orchestrator", "Request"]

MASTER = UUID(int=0)
_ROTATION = """
select version, reason, incident, requested_by, started_at, fenced_at, paused, finished_at,
       rows, fields, failed
  from ward_internal.rotations where tenant_id = %s order by started_at desc limit 1"""


@dataclass(frozen=True, slots=True)
class Request:
    """Why a key is rotated. ``incident``: also while another rotation of it is under way."""

    reason: str
    incident: bool = False


class Orchestrator:
    """Works over ``connect``, which opens autocommitting connections of a superuser.

    ``directory``: of the orchestrator, with its credentials. ``stop``: set it, and what is under way ends at
    the next safe point. ``keeper``: its socket, if it is not where the database says.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        directory: Path,
        stop: threading.Event,
        keeper: Path | None = None,
    ) -> None:
        self._connect = connect
        self._stop = stop
        self.connection = connect()
        try:
            self._socket = keeper or registry.keeper_socket(self.connection)
            self._keks = Keks(directory, self._socket)
            self.policy: Policy = registry.read_policy(self.connection)
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(self, *failure: object) -> None:
        self.connection.close()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def tenants(self, slugs: Sequence[str] | None = None, *, master: bool = False) -> list[TenantKeys]:
        """Return the tenants of these slugs, or all with, if asked, the master secret first."""
        return registry.read_tenants(self.connection, slugs, master=master)

    def due(self, tenant: TenantKeys) -> list[Due]:
        return policy.due(tenant, self.policy, datetime.now(UTC))

    def rotate(self, tenant: TenantKeys, request: Request) -> int:
        """Make a new version of a tenant's key, or of the master secret, and return it. No row is resealed.

        Raises RotationRunning when somebody else rotated it since ``tenant`` was read.
        """
        values: list[object] = [request.reason]
        query = "select ward.rotate_master(%s, %s, %s)"
        if tenant.slug is not None:
            values = [tenant.slug, *values, tenant.active and tenant.active.version, request.incident]
            query = "select ward.rotate_key(%s, %s, %s, %s, %s, %s)"
        (version,) = self.call(query, *values, *self._own_kek(tenant))[0]
        return int(version)

    def _own_kek(self, tenant: TenantKeys) -> tuple[str | None, str | None]:
        """Return the KEK if the orchestrator manages it; the keeper, which then may not, is told which."""
        if tenant.mode == "derived" or self._keks.uri(tenant.id, tenant.region) is None:
            return None, None
        kek = self._keks.create(tenant.id, tenant.region)
        return kek.name, kek.version

    def reseal(
        self, slug: str, throttle: Throttle, patience: float, watch: Callable[[Progress], None]
    ) -> Outcome:
        with _explained():
            return run.reseal(self.connection, slug, throttle, self._stop, patience=patience, watch=watch)

    def rewrap(
        self, tenants: Sequence[TenantKeys], scope: str, report: Callable[[rewrap.Result], None]
    ) -> bool:
        """Rotate the KEKs of ``tenants``; True when an interrupted run of that ``scope`` was continued."""
        with _explained(), rewrap.begin(self.connection, scope, len(tenants)) as begun:
            trouble: list[rewrap.Result] = []

            def tell(result: rewrap.Result) -> None:
                if result.trouble:
                    trouble.append(result)
                report(result)

            rewrap.rewrap(self._connect, self._keks, tenants, begun, tell, self._stop)
            if not trouble and not self.stopped:
                rewrap.finish(self.connection, begun)
            return begun.continued

    def retire(self, slug: str) -> list[int]:
        """Retire what can be, and return the versions. Raises KeyInUse."""
        return list(self.call("select ward.retire_keys(%s)", slug)[0][0])

    def destroy(self, tenant: TenantKeys, version: int, *, now: bool = False) -> int:
        """Destroy a retired version and return it; ``now``: before its grace is over. Raises KeyInUse."""
        with _explained():
            destroy.destroy_key(self.connection, self._socket, tenant.id, tenant.slug, version, now=now)
            return version

    def destroy_keks(self, tenant: UUID, *, now: bool = False) -> tuple[KekRef, ...]:
        """Destroy KEK versions that have wrapped nothing for the grace, or at all."""
        with _explained():
            grace = timedelta() if now else self.policy.grace
            return destroy.destroy_keks(self.connection, self._keks, tenant, grace)

    def keks_to_destroy(self) -> set[UUID]:
        return registry.keks_to_destroy(self.connection, self.policy)

    def rotation(self, tenant: UUID) -> dict[str, Any] | None:
        """Return how the tenant's rotation goes, or how the last one went."""
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_ROTATION, [tenant]).fetchone()

    def count(self, slug: str) -> dict[int | None, int]:
        """Return how many values are under each version, by reading all; None: those that are damaged."""
        query = "select version, sum(fields)::bigint from ward.key_rows(%s) group by version"
        return dict(self.connection.execute(query, [slug]).fetchall())

    def call(self, query: str, *values: object) -> list[Any]:
        """Call a function of the database that needs nothing else."""
        with _explained():
            return self.connection.execute(query, values).fetchall()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what the database refuses into a WardError; that it is gone stays a psycopg.Error."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None:
            raise
        raise from_psycopg(error) from None
