"""A cell to break: a database, a keeper of its own whose keys are short-lived, and the KMS that it asks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.kms.benches import Bench
from tests.support.database import Connection, Database
from tests.support.keepers import Keeper
from tests.support.sqlstate import everything
from wardkey.identity import issuers
from wardkey.keys.kek import Keks
from wardkey.kms import configured
from wardkey.kms.configured import Entry
from wardkey.tenants import provisioning as tenants

SECRET = "999-77-4321"
READ = "select ssn from patients where id = 1"
KEY_TTL, KEEPER_TTL, TIMEOUT = 0.25, 0.5, 1.2
"""Seconds that a backend and the keeper keep a key, and that a backend waits for the keeper."""
MARGIN = 0.5
"""Seconds that a busy machine may add to a deadline."""


class Cell:
    """``keeper`` runs; ``keks`` are made with the orchestrator's credential where the KMS wants that."""

    def __init__(self, database: Database, bench: Bench) -> None:
        self.database, self.bench, self.keeper = database, bench, Keeper()
        shutil.copytree(bench.directory, self.keeper.directory, dirs_exist_ok=True)
        self.orchestrator = self.keeper.base / "orchestrator"
        shutil.copytree(bench.admin_directory, self.orchestrator)
        self._use(configured.Configuration((_entry(bench),)))
        self.issuer = database.issuer
        self.keeper.trust(self.issuer.document())
        self.keeper.base.chmod(0o755)
        self.start()
        self.set("keeper_socket", str(self.keeper.socket))
        self.set("keeper_timeout", str(TIMEOUT))
        self.set("key_ttl", str(KEY_TTL))

    @property
    def keks(self) -> Keks:
        return Keks(self.orchestrator, self.keeper.socket)

    def start(self, ttl: float = KEEPER_TTL) -> None:
        """Start the keeper, where this cell's backends reach it."""
        server = self.database.cluster.home.server_user()
        users = ("--allow-uid", str(server.uid), "--socket-group", str(server.gid))
        self.keeper.start("--ttl", str(ttl), *users)

    def set(self, name: str, value: str) -> None:
        with self.database.admin() as admin:
            admin.execute("select ward.set(%s, %s)", [name, value])

    def new_tenant(self, secret: str = SECRET, own: Bench | None = None, mode: str = "envelope") -> str:
        """Make a tenant with one patient and return its slug. ``own``: the KMS it brings."""
        tenant = uuid4()
        if own is not None:
            self._bring(tenant, own)
        slug = f"f{tenant.hex[:12]}"
        remember = tenants.passfile_keeper(self.database.cluster.home.pgpass)
        with self.database.admin(autocommit=False) as admin:
            tenants.create(admin, slug, None, remember, mode=mode, tenant=tenant, keks=self.keks)
        with self.connect(slug) as connection:
            connection.execute(
                "insert into patients (id, name, ssn, city) values (1, 'Bob', %s, 'Ogden')", [secret]
            )
        return slug

    def id(self, slug: str) -> UUID:
        with self.database.admin() as admin:
            return issuers.tenant_id(admin, slug)

    def connect(self, slug: str, **claims: str) -> Connection:
        """Connect as a user of the tenant, with a new backend, which holds no key."""
        return self.database.tenant(slug, **{"subject": "dr.grey", **claims})

    def forget(self) -> None:
        """Let the keeper hold no key any more: start another."""
        self.keeper.stop()
        self.start()

    def key(self, slug: str, version: int = 1) -> dict[str, Any]:
        """Return the tenant's key as a superuser of the database has it, for the keeper's requests."""
        columns = "kek, kek_version, encode(wrapped, 'base64'), encode(commitment, 'base64')"
        query = f"select {columns} from ward_internal.tenant_keys where tenant_id = %s and version = %s"
        with self.database.admin() as admin:
            row = admin.execute(query, [self.id(slug), version]).fetchone()
        assert row
        values = [str(value).replace("\n", "") for value in row]
        names = ("kek", "kek_version", "wrapped", "commitment")
        return {"version": version, **dict(zip(names, values, strict=True))}

    def _bring(self, tenant: UUID, own: Bench) -> None:
        for directory, source in (
            (self.keeper.directory, own.directory),
            (self.orchestrator, own.admin_directory),
        ):
            shutil.copytree(source, configured.directory_of(directory, tenant))
        self._use(configured.read(self.orchestrator).with_owned(tenant, [_entry(own, tenant)]))

    def _use(self, configuration: configured.Configuration) -> None:
        for directory in (self.keeper.directory, self.orchestrator):
            configured.write(directory, configuration)


def _entry(bench: Bench, tenant: UUID | None = None) -> Entry:
    return Entry(bench.uri, tenant, admin=None if bench.admin_uri == "local:" else bench.admin_uri)


@contextmanager
def running(database: Database, bench: Bench) -> Iterator[Cell]:
    cell = Cell(database, bench)
    try:
        yield cell
    finally:
        cell.keeper.remove()


def read(connection: Connection) -> str:
    row = connection.execute(READ).fetchone()
    assert row
    return str(row[0])


def fails(connection: Connection, sqlstate: str, *, within: float = TIMEOUT, query: str = READ) -> str:
    """Assert that ``query`` fails so, in time, and return all that the client is told."""
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(query)
    assert time.monotonic() - began < within + MARGIN
    assert caught.value.sqlstate == sqlstate, caught.value
    return everything(caught.value)


def recovers(connection: Connection, within: float = 5.0) -> str:
    """Read until it goes again, and return what was read."""
    until = time.monotonic() + within
    while True:
        try:
            return read(connection)
        except psycopg.Error as error:
            assert str(error.sqlstate).startswith("WK10"), error
            if time.monotonic() > until:
                raise
        time.sleep(0.05)
