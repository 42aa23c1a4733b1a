"""KEK rotation: a new KEK version at the KMS, data keys wrapped again under it, the old version disabled.

No row of data is touched. Per tenant::

    the current KEK version wraps a key of the tenant? ── yes ──▶ rotate the KEK
        │ no: an interrupted run made it, or the KMS itself          │
        └──────────────▶ rewrap every key that is left ◀─────────────┘
                                     │ commit
                         disable the versions that wrap nothing any more

A KEK that the tenant left in another KMS is disabled there, too, after a rotation that makes its current
version another one. Where that is refused or not answered, the tenant is rewrapped all the same: the result
says which version is still enabled, and the next run tries again.

So nothing is rotated twice, wherever a run was interrupted. A run is a row of ``rewrap_runs``; one of
the same scope that began within the last day and did not finish is continued, and leaves alone what it did.

Several tenants share a transaction, as many as take half a second: a flush to disk for each would take
longer than its wrapping. A tenant whose KMS makes trouble is reported, and the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from ..errors import KeyRefused, RotationRunning, WardError, from_psycopg
from ..kms import KekRef
from .kek import Keks
from .policy import TenantKeys
from .registry import Connection

__all__ = [
    "Result",
    "Run",
    "begin",
    "disable_unused",
    "finish",
    "keks_in_use",
    "lock_tenant",
    "register_kek",
    "rewrap",
]

WORKERS = 4
TRANSACTION_SECONDS = 0.5
_GO_ON = "1 day"
_LOCK = "select pg_try_advisory_lock(hashtext('wardkey'), hashtext('rewrap'))"
_UNLOCK = "select pg_advisory_unlock(hashtext('wardkey'), hashtext('rewrap'))"

_LIVE = """
select version, kek, kek_version, wrapped_at from ward_internal.tenant_keys
 where tenant_id = %s and state <> 'destroyed' and kek <> 'master' order by version"""
_LEFT = """
select kek, kek_version from ward_internal.kek_versions
 where tenant_id = %s and left_at is not null and disabled_at is null"""
_UNFINISHED = """
select id::text, started_at from ward_internal.rewrap_runs
 where scope = %s and finished_at is null and started_at > clock_timestamp() - %s::interval
 order by started_at desc limit 1"""
_STARTED = """
with run as (
  insert into ward_internal.rewrap_runs (scope, tenants) values (%s, %s) returning *)
select id::text, started_at, ward_internal.log_event(ward_internal.master_id(), 'rewrap started',
  jsonb_build_object('run', id, 'scope', scope, 'tenants', tenants)) from run"""
_FINISHED = """
with run as (
  update ward_internal.rewrap_runs set finished_at = clock_timestamp() where id = %s returning *)
select ward_internal.log_event(ward_internal.master_id(), 'rewrap finished', jsonb_build_object('run', id))
  from run"""


@dataclass(frozen=True, slots=True)
class Run:
    """``continued``: an interrupted run that is continued, since ``started_at``."""

    id: str
    started_at: datetime
    continued: bool


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one tenant. ``keys``: how many were wrapped again; ``trouble``: why it was not done.

    ``left_enabled``: versions in KMSes that the tenant has left, and why they could not be disabled there.
    """

    tenant: TenantKeys
    kek: KekRef | None = None
    keys: int = 0
    disabled: tuple[KekRef, ...] = ()
    trouble: WardError | None = None
    left_enabled: tuple[tuple[KekRef, WardError], ...] = ()


@contextmanager
def begin(connection: Connection, scope: str, tenants: int) -> Iterator[Run]:
    """Begin a run, or continue one of the same ``scope``. One at a time: raises RotationRunning.

    ``connection`` is an autocommitting one, and stays open meanwhile.
    """
    if connection.execute(_LOCK).fetchone() != (True,):
        raise RotationRunning("somebody else rewraps keys at the moment", "try again when that is done")
    try:
        interrupted = connection.execute(_UNFINISHED, [scope, _GO_ON]).fetchone()
        run: Any = interrupted or connection.execute(_STARTED, [scope, tenants]).fetchone()
        yield Run(run[0], run[1], interrupted is not None)
    finally:
        if not connection.closed:
            connection.execute(_UNLOCK)


def finish(connection: Connection, run: Run) -> None:
    """Say that the run is over, so that the next one begins again."""
    connection.execute(_FINISHED, [run.id])


def rewrap(
    connect: Callable[[], Connection],
    keks: Keks,
    tenants: Sequence[TenantKeys],
    run: Run,
    report: Callable[[Result], None],
    stop: threading.Event,
) -> None:
    """Rewrap ``tenants`` over a few connections of their own; ``report`` is called with each tenant's result.

    Returns early when ``stop`` is set. Raises psycopg.Error when the database goes away.
    """
    queue = iter(tenants)
    lock = threading.Lock()

    def take() -> TenantKeys | None:
        with lock:
            return None if stop.is_set() else next(queue, None)

    def tell(results: list[Result]) -> None:
        with lock:
            for result in results:
                report(result)

    def work() -> None:
        try:
            with connect() as connection:
                _work(connection, keks, run, take, tell)
        except BaseException:
            stop.set()  # the others would fail as well, each in its turn
            raise

    workers = min(WORKERS, len(tenants))
    with ThreadPoolExecutor(max(workers, 1), thread_name_prefix="rewrap") as pool:
        for done in [pool.submit(work) for _ in range(workers)]:
            done.result()


def _work(
    connection: Connection,
    keks: Keks,
    run: Run,
    take: Callable[[], TenantKeys | None],
    tell: Callable[[list[Result]], None],
) -> None:
    tenant = take()
    while tenant is not None:
        until = time.monotonic() + TRANSACTION_SECONDS
        batch: list[tuple[Result, set[KekRef] | None]] = []
        with connection.transaction():
            while tenant is not None:
                batch.append(_rewrap_one(connection, keks, run, tenant))
                tenant = take() if time.monotonic() < until else None
        with connection.transaction():
            tell([_disable_old(connection, keks, result, old) for result, old in batch])
        tenant = take()


def _rewrap_one(
    connection: Connection, keks: Keks, run: Run, tenant: TenantKeys
) -> tuple[Result, set[KekRef] | None]:
    """Return the result and the KEK versions left behind; None: those that an interrupted run left."""
    try:
        with connection.transaction():
            lock_tenant(connection, tenant.id)
            keys = connection.execute(_LIVE, [tenant.id]).fetchall()
            used = {KekRef(kek, version) for _, kek, version, _ in keys}
            if not keys or (run.continued and all(at >= run.started_at for *_, at in keys)):
                # Done before the interruption, but for disabling perhaps.
                return Result(tenant, next(iter(used), None)), None if keys else set()
            kek = keks.create(tenant.id, tenant.region)
            if kek in used:
                kek = keks.rotate(tenant.id, tenant.region)
                connection.execute(
                    "select ward_internal.log_event(%s, 'kek rotated',"
                    " jsonb_build_object('kek', %s::text, 'kek_version', %s::text))",
                    [tenant.id, kek.name, kek.version],
                )
            for version, *_ in keys:
                connection.execute(
                    "select ward_internal.rewrap_key(%s, %s, %s, %s)",
                    [tenant.id, version, kek.name, kek.version],
                )
            return Result(tenant, kek, len(keys)), used - {kek}
    except psycopg.Error as error:
        if connection.broken:
            raise
        return Result(tenant, trouble=from_psycopg(error)), set()
    except WardError as error:
        return Result(tenant, trouble=error), set()


def _disable_old(connection: Connection, keks: Keks, result: Result, old: set[KekRef] | None) -> Result:
    """Disable the versions left behind; ``old`` is None where nobody remembers which."""
    tenant = result.tenant.id
    if result.trouble:
        return result
    try:
        left = set() if old is None else old
        if keks.has_several(tenant):
            left = left | _left_behind(connection, tenant)
        disabled: tuple[KekRef, ...] = ()
        if old is None or old:
            try:
                disabled = disable_unused(connection, keks, tenant, old)
            except KeyRefused:  # Vault wants older ones to be disabled first, which a crash may have left
                disabled = disable_unused(connection, keks, tenant)
        gone, left_enabled = _leave(connection, keks, tenant, left) if left else ((), ())
    except WardError as error:
        return replace(result, trouble=error)
    return replace(result, disabled=(*disabled, *gone), left_enabled=left_enabled)


def disable_unused(
    connection: Connection, keks: Keks, tenant: UUID, old: set[KekRef] | None = None
) -> tuple[KekRef, ...]:
    """Disable those of ``old``, or all, that wrap no key of the tenant, and return them.

    That takes a transaction, which locks the tenant: nobody else can come to use one of them meanwhile. KEKs
    in a KMS that the tenant has left are left alone.
    """
    with connection.transaction():
        lock_tenant(connection, tenant)
        used = keks_in_use(connection, tenant)
        old = _enabled(connection, keks, tenant, used) if old is None else old
        here = (kek for kek in old - used if not _is_elsewhere(keks, tenant, kek, used))
        disabled = tuple(sorted(here, key=_age))
        for kek in disabled:
            keks.disable(tenant, kek)
            register_kek(connection, tenant, kek, "disabled")
    return disabled


def _leave(
    connection: Connection, keks: Keks, tenant: UUID, old: set[KekRef]
) -> tuple[tuple[KekRef, ...], tuple[tuple[KekRef, WardError], ...]]:
    """Disable those of ``old`` that are in a KMS the tenant has left; return them, and what was refused."""
    disabled: list[KekRef] = []
    refused: list[tuple[KekRef, WardError]] = []
    with connection.transaction():
        lock_tenant(connection, tenant)
        used = keks_in_use(connection, tenant)
        elsewhere = (kek for kek in old - used if _is_elsewhere(keks, tenant, kek, used))
        for kek in sorted(elsewhere, key=_age):
            try:
                keks.leave(tenant, kek)
            except WardError as error:
                refused.append((kek, error))
                continue
            register_kek(connection, tenant, kek, "disabled")
            disabled.append(kek)
    return tuple(disabled), tuple(refused)


def _is_elsewhere(keks: Keks, tenant: UUID, kek: KekRef, used: set[KekRef]) -> bool:
    """Whether the KEK may be in another KMS than those in use are in."""
    return kek.name not in {each.name for each in used} or keks.is_ambiguous(tenant, kek)


def _left_behind(connection: Connection, tenant: UUID) -> set[KekRef]:
    """Return the KEK versions that data keys were taken from, and that were never disabled."""
    return {KekRef(*row) for row in connection.execute(_LEFT, [tenant]).fetchall()}


def keks_in_use(connection: Connection, tenant: UUID) -> set[KekRef]:
    """Return the KEK versions that wrap a key of the tenant which is not destroyed."""
    keks = connection.execute(_LIVE, [tenant]).fetchall()
    return {KekRef(kek, version) for _, kek, version, _ in keks}


def _enabled(connection: Connection, keks: Keks, tenant: UUID, used: set[KekRef]) -> set[KekRef]:
    """Return the enabled versions of the KEK in use but the current one, as the KMS knows them."""
    if not used:
        return set()
    (region,) = connection.execute("select ward_internal.region_of(%s)", [tenant]).fetchall()[0]
    current = keks.create(tenant, region)
    if any(kek.name != current.name for kek in used):
        return set()
    enabled = [version.version for version in keks.versions(tenant, region) if version.state == "enabled"]
    return {KekRef(current.name, version) for version in enabled if version != current.version}


def _age(kek: KekRef) -> tuple[int, str]:
    """Sort oldest first: most KMSes number their versions."""
    return (int(kek.version) if kek.version.isdigit() else 0, kek.version)


def lock_tenant(connection: Connection, tenant: UUID) -> None:
    """Keep others from making keys of this tenant until the transaction ends; the master has no row."""
    connection.execute("select from ward_internal.tenants where id = %s for no key update", [tenant])
    if tenant.int == 0:
        connection.execute("lock table ward_internal.tenant_keys in share row exclusive mode")


def register_kek(connection: Connection, tenant: UUID, kek: KekRef, what: str) -> None:
    """Store that a version was ``disabled`` or ``destroyed``, and log it."""
    query = "select ward_internal.register_kek(%s, %s, %s, %s)"
    connection.execute(query, [tenant, kek.name, kek.version, what])
