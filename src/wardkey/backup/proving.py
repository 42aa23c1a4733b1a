"""The proof that a restored home is whole: every key is released, what it sealed opens, logs are as signed.

Of a tenant that was shredded it is the other way round: no key of it may be released.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from wardkey_core import keeper_client as client
from wardkey_core import wire
from wardkey_core.log.source import DamagedLog

from ..audit.checking import check_log
from ..audit.which import PLATFORM
from ..embedded import Cluster
from ..embedded.issuer import embedded_issuer
from ..errors import KeyDestroyed, ServerError, WardError, from_psycopg
from ..keeper.ledger import LEDGER_FILE, tombstones

__all__ = ["Proof", "prove"]

Connection = psycopg.Connection[Any]

_TENANTS = "select id, slug, login_role, status::text from ward.tenants order by slug"
_KEYS = """
select k.version, k.kek, k.kek_version, k.wrapped, k.commitment, k.region from ward_internal.tenant_keys as k
 where k.tenant_id = %s and k.wrapped is not null and k.kek <> 'master' order by k.version"""
_SEALED = "select face, sealed from ward.models where sealed <> '{}' order by face"
_FORGOTTEN = (1, "local:forgotten", "1", bytes(61), bytes(32), "default")  # the form of a key, and none
_SUBJECT = "wardkey restore"
_HIDDEN = "WK232"  # the tenant's own policy: its ADMIN does not see the class either


@dataclass(frozen=True, slots=True)
class Proof:
    """What of a tenant opened. ``error``: why not all of it did; None is well.

    ``entries``: of its log, verified. Of a shredded one nothing opens, and that is what was tried.
    """

    tenant: str
    status: str
    keys: int = 0
    tables: int = 0
    rows: int = 0
    values: int = 0
    entries: int = 0
    error: str | None = None


def prove(cluster: Cluster, rows: int | None) -> Iterator[Proof]:
    """Have every tenant's keys released, and up to ``rows`` rows of each table opened (None: all).

    A suspended tenant is let in by nobody: only its keys are tried. At last the log of the platform.
    """
    ended = tombstones(cluster.home.keeper / LEDGER_FILE)
    with psycopg.connect(cluster.dsn(), autocommit=True) as admin:
        issuer, _ = embedded_issuer(admin, cluster.home)
        for tenant, slug, role, status in admin.execute(_TENANTS).fetchall():
            keys = tables = read = values = entries = 0
            error = None
            is_ended = status == "shredded" or (tenant, None) in ended
            try:
                token = issuer.sign_token(tenant, _SUBJECT, "ADMIN")
                if is_ended:
                    _try_closed(cluster, admin, tenant, token)
                else:
                    keys = _release_keys(cluster, admin, tenant, token)
                if status == "active" and not is_ended:
                    tables, read, values = _open_rows(cluster, admin, role, token, rows)
                entries = _verify_log(cluster, admin, tenant)
            except psycopg.Error as failed:
                error = from_psycopg(failed).message
            except WardError as failed:
                error = failed.message
            yield Proof(slug, "shredded" if is_ended else status, keys, tables, read, values, entries, error)
        try:
            yield Proof("platform", "log", entries=_verify_log(cluster, admin, PLATFORM))
        except WardError as failed:
            yield Proof("platform", "log", error=failed.message)


def _verify_log(cluster: Cluster, admin: Connection, tenant: UUID) -> int:
    try:
        report = check_log(admin, tenant, cluster.home.keeper_socket)
    except DamagedLog as error:
        raise ServerError(f"its log is damaged: {error}") from None
    if report.defect is not None:
        raise ServerError(f"its log is {report.defect.kind}: {report.defect.message}")
    return report.entries


def _try_closed(cluster: Cluster, admin: Connection, tenant: UUID, token: str) -> None:
    """Raise ServerError unless the keeper refuses every key, those that the database has forgotten, too."""
    keys = admin.execute(_KEYS, [tenant]).fetchall() or [_FORGOTTEN]
    for version, kek, kek_version, wrapped, commitment, region in keys:
        key = wire.key_members(version, kek, kek_version, wrapped, commitment=commitment, region=region)
        try:
            client.ask(cluster.home.keeper_socket, wire.release(str(tenant), key, token, ["clinical"]))
        except KeyDestroyed:
            continue
        raise ServerError("it was shredded, and a key of it is released")


def _release_keys(cluster: Cluster, admin: Connection, tenant: UUID, token: str) -> int:
    keys = admin.execute(_KEYS, [tenant]).fetchall()
    for version, kek, kek_version, wrapped, commitment, region in keys:
        key = wire.key_members(version, kek, kek_version, wrapped, commitment=commitment, region=region)
        client.ask(cluster.home.keeper_socket, wire.release(str(tenant), key, token, ["clinical"]))
    return len(keys)


def _open_rows(
    cluster: Cluster, admin: Connection, role: str, token: str, rows: int | None
) -> tuple[int, int, int]:
    faces = admin.execute(_SEALED).fetchall()
    read = values = 0
    with psycopg.connect(cluster.dsn(user=role), autocommit=True) as ward:
        for face, columns in faces:
            for number, column in enumerate(columns):
                count = sql.SQL(
                    "select count(*), count({0}) from (select {0} from {1}.{2} limit {3}) as sample"
                )
                query = count.format(*map(sql.Identifier, (column, role, face)), sql.Literal(rows))
                try:
                    with ward.transaction():
                        ward.execute("select ward.login(%s)", [token])
                        counted = ward.execute(query).fetchone() or (0, 0)
                except psycopg.Error as error:
                    if error.sqlstate != _HIDDEN:
                        raise
                    continue
                read += counted[0] if number == 0 else 0
                values += counted[1]
    return len(faces), read, values
