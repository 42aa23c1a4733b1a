"""The database ``wardkey`` of a running home: made when missing, its extension updated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import from_psycopg
from ..install.extension import prepare_extension

if TYPE_CHECKING:
    from .cluster import Cluster

__all__ = ["NAME", "prepare"]

NAME = "wardkey"


def prepare(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Make the database, its extension and its settings. Raises WardError."""
    import psycopg

    from ..daemon.sessions import connect
    from .issuer import embedded_issuer

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
            if cluster.regions:
                connection.execute("select ward.set('region', %s)", [cluster.regions[0]])
            connection.commit()
            if embedded_issuer(connection, cluster.home)[1]:
                say("embedded issuer registered in database and keeper")
    except psycopg.Error as error:
        raise from_psycopg(error) from None
