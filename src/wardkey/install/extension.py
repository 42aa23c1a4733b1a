"""Extension "wardkey" in one database: created, or updated to the version of the installed files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import VersionMismatch
from . import resources

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["prepare_extension"]


def prepare_extension(connection: Connection[Any]) -> str | None:
    """Create the extension or update it to the version of the installed files; says what it did.

    Raises VersionMismatch where no update leads to that version.
    """
    row = connection.execute(
        "select installed_version, default_version from pg_available_extensions where name = 'wardkey'"
    ).fetchone()
    installed, available = row or (None, None)
    connection.execute("create extension if not exists plpython3u")
    if installed is None:
        connection.execute("create extension wardkey")
        return f"extension wardkey {available} created"
    if installed != available:
        query = "select path from pg_extension_update_paths('wardkey') where (source, target) = (%s, %s)"
        if connection.execute(query, [installed, available]).fetchone() in (None, (None,)):
            raise VersionMismatch(
                f"this database has wardkey {installed}, and no update leads from it to {available}",
                "no version before 0.3.0 was released: use a new home (--home) or database; the version that"
                " made this one can export its tenants",
            )
        connection.execute("alter extension wardkey update")
        # Functions that make faces and set roles up may have changed; an update script may not touch wards.
        connection.execute(
            "select ward_internal.lock_together(coalesce(array_agg(distinct leaf), '{}'))"
            " from ward_internal.tenants as t,"
            " unnest(ward_internal.leaves_of(t)) as leaf"
        )
        connection.execute(
            "select ward.repair_tenant(slug) from ward.tenants where status not in ('shredding', 'shredded')"
        )
        return f"extension wardkey updated from {installed} to {available}"
    if connection.execute("select 1 from ward_internal.open_to_public()").fetchone():
        # pg_upgrade makes pg_catalog again, with PostgreSQL's own privileges
        connection.execute("select ward_internal.harden()")
        for kind, name, role, privilege in resources.manifest()["grants"]:
            if name.startswith("pg_"):
                connection.execute(f"grant {privilege} on {kind} {name} to {role}")
        return "what PostgreSQL grants to PUBLIC taken back"
    return None
