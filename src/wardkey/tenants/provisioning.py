"""Tenants as an operator handles them: the SQL API of schema ``ward`` and the password of each login role.

Functions take an open connection of a superuser; the caller commits.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ..daemon.files import locked, write_atomically
from ..errors import UnknownTenant, WardError

if TYPE_CHECKING:
    from ..keys.kek import Keks
    from ..kms import KekRef

__all__ = ["bound", "create", "drop", "list_all", "passfile_keeper", "set_password"]

Connection = psycopg.Connection[Any]
Remember = Callable[[str, str | None], None]
"""Called with login role and password before the commit; with None when the role goes."""


def list_all(connection: Connection) -> list[dict[str, Any]]:
    """Return a row per tenant, by slug."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select slug, name, status, region, login_role, schema_name, key_version, created_at, id"
            " from ward.tenants order by slug"
        ).fetchall()


def create(
    connection: Connection,
    slug: str,
    name: str | None,
    remember: Remember,
    *,
    mode: str = "envelope",
    tenant: UUID | None = None,
    keks: Keks | None = None,
    connections: int | None = None,
    region: str | None = None,
) -> dict[str, Any]:
    """Make a ward and give its login role a password, in a transaction of its own or a savepoint.

    Raises psycopg.Error (WK201, WK202, WK102, WK240, WK241), WardError. ``connections``: at most so many.
    ``region``: for good; the setting's if none is named.
    ``keks``: make its KEK with the orchestrator's credential, where there is one; the keeper's may not.
    """
    tenant = tenant or uuid4()
    if region is None:
        region = str(connection.execute("select ward_internal.region_of()").fetchall()[0][0])
    kek = _made(connection, keks, tenant, mode, region)
    try:
        with connection.transaction():
            connection.execute(
                "select ward.create_tenant(%s, %s, %s, %s, %s, %s, %s)",
                [slug, name, mode, tenant, *(astuple(kek) if kek else (None, None)), region],
            )
            set_password(connection, slug, remember)
            if connections is not None:
                bound(connection, slug, "connections", str(connections))
    except psycopg.Error as error:
        if keks and kek and mode == "envelope" and error.sqlstate:
            with suppress(WardError):
                keks.destroy_all(tenant)  # there will be no tenant of this id, nor was there one
        raise
    return find(connection, slug)


def _made(connection: Connection, keks: Keks | None, tenant: UUID, mode: str, region: str) -> KekRef | None:
    """Return the tenant's new KEK, or the first master secret's, if the orchestrator is to make it."""
    if mode == "derived":
        from wardkey_core.envelope import MASTER

        tenant = UUID(bytes=MASTER)
        there = "select from ward_internal.tenant_keys where tenant_id = %s and state = 'active'"
        if connection.execute(there, [tenant]).fetchone() is not None:
            return None
    return keks.create(tenant, region) if keks and keks.uri(tenant, region) else None


def find(connection: Connection, slug: str) -> dict[str, Any]:
    """Return the row of one tenant. Raises UnknownTenant."""
    for row in list_all(connection):
        if row["slug"] == slug:
            return row
    raise UnknownTenant("no tenant has that slug", "list them: wardkey tenant list")


def set_password(connection: Connection, slug: str, remember: Remember) -> str:
    """Give the tenant's login role a new random password; the server sees its SCRAM verifier only."""
    import secrets  # reads OpenSSL, 10 ms of each command

    role, password = str(find(connection, slug)["login_role"]), secrets.token_urlsafe(32)
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    connection.execute(
        sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
    )
    remember(role, password)
    return password


def bound(connection: Connection, slug: str, name: str, value: str | None) -> None:
    """Set a bound of the tenant's login role; None: its default. Raises psycopg.Error (WK203, WK204)."""
    connection.execute("select ward.bound_tenant(%s, %s, %s)", [slug, name, value])


def drop(connection: Connection, slug: str, *, force: bool, remember: Remember) -> None:
    """Drop a ward with its role and keys. Raises psycopg.Error (WK203, WK210)."""
    role = str(find(connection, slug)["login_role"])
    connection.execute("select ward.drop_tenant(%s, %s, %s)", [slug, slug, force])
    remember(role, None)


def passfile_keeper(path: Path) -> Remember:
    """Return a Remember that keeps a line per login role in a libpq password file (mode 0600)."""

    def remember(role: str, password: str | None) -> None:
        with locked(path.parent):
            lines: list[str] = []
            with suppress(FileNotFoundError):
                lines = path.read_text().splitlines()
            kept = [line for line in lines if line.split(":")[3:4] != [role]]
            added = [] if password is None else [f"*:*:*:{role}:{password}"]
            write_atomically(path, "".join(f"{line}\n" for line in kept + added).encode())

    return remember
