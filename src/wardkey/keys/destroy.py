"""The end of keys: a retired data key, and KEK versions that wrap nothing any more.

The database looks, under its locks, whether a row refers to the key; before it commits, the keeper writes the
key's tombstone into its ledger. Killed in between, the key is still retired here and refused there, no row
needs it, and the next run ends it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import UUID

from wardkey_core import keeper_client as client
from wardkey_core import wire

from ..kms import KekRef
from .kek import Keks
from .registry import Connection
from .rewrap import disable_unused, keks_in_use, lock_tenant, register_kek

__all__ = ["destroy_keks", "destroy_key"]

_DISABLED = """
select kek, kek_version from ward_internal.kek_versions
 where tenant_id = %(tenant)s and disabled_at <= clock_timestamp() - %(grace)s and destroyed_at is null
 order by disabled_at"""


def destroy_key(
    connection: Connection, socket: Path, tenant: UUID, slug: str | None, version: int, *, now: bool = False
) -> None:
    """Destroy a retired version of a tenant's key or, without slug, of the master secret; may be repeated.

    ``now``: does not wait for the end of the grace. Raises psycopg.Error (WK214 not retired, or needed), what
    the keeper refuses with.
    """
    with connection.transaction():
        connection.execute("select ward.destroy_key(%s, %s, %s)", [slug, version, now])
        name = "the master secret" if slug is None else slug
        client.ask(socket, wire.tombstone(str(tenant), name, version))


def destroy_keks(connection: Connection, keks: Keks, tenant: UUID, grace: timedelta) -> tuple[KekRef, ...]:
    """Destroy the KEK versions that have been disabled for ``grace``, and return them; may be repeated.

    Until then a backup from before can be read again: its wrapped keys are under these.
    """
    disable_unused(connection, keks, tenant)
    with connection.transaction():
        lock_tenant(connection, tenant)
        used = keks_in_use(connection, tenant)
        disabled = connection.execute(_DISABLED, {"tenant": tenant, "grace": grace}).fetchall()
        destroyed = tuple(kek for kek in (KekRef(*row) for row in disabled) if kek not in used)
        for kek in destroyed:
            keks.destroy(tenant, kek)
            register_kek(connection, tenant, kek, "destroyed")
    return destroyed
