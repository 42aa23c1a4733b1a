"""The database ``wardkey`` of a running home: made when missing, its extension brought up to date."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import from_psycopg
from . import resources

if TYPE_CHECKING:
    from psycopg import Connection

    from ..embedded.cluster import Cluster

__all__ = ["NAME", "prepare", "prepare_extension"]

NAME = "wardkey"


def prepare(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Make the database, its extension and its settings. Raises WardError."""
    import psycopg

    from ..daemon.sessions import connect
    from ..identity import issuers

    try:
        with connect(cluster.dsn("postgres"), "wardkey", autocommit=True) as connection:
            if connection.execute("select 1 from pg_database where datname = %s", [NAME]).fetchone() is None:
                connection.execute(f"create database {NAME} template template0 encoding 'UTF8'")
                say(f"database {NAME} made")
            # there a tenant could watch the whole server: activity views are hidden in our database only
            connection.execute("revoke all on database postgres, template1 from public")
        with connect(cluster.dsn(), "wardkey") as connection:
            if change := prepare_extension(connection):
                say(change)
            connection.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])
            connection.commit()
            if issuers.embedded(connection, cluster.home)[1]:
                say("embedded issuer registered in database and keeper")
    except psycopg.Error as error:
        raise from_psycopg(error) from None


def prepare_extension(connection: Connection[Any]) -> str | None:
    """Create the extension or update it to the version of the installed files; says what it did."""
    row = connection.execute(
        "select installed_version, default_version from pg_available_extensions where name = 'wardkey'"
    ).fetchone()
    installed, available = row or (None, None)
    connection.execute("create extension if not exists plpython3u")
    if installed is None:
        connection.execute("create extension wardkey")
        return f"extension wardkey {available} created"
    if installed != available:
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
        # pg_upgrade makes pg_catalog anew, with PostgreSQL's own privileges
        connection.execute("select ward_internal.harden()")
        for kind, name, role, privilege in resources.manifest()["grants"]:
            if name.startswith("pg_"):
                connection.execute(f"grant {privilege} on {kind} {name} to {role}")
        return "what PostgreSQL grants to PUBLIC taken back"
    return None
