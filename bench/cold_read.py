"""What does a read cost when the tenant's key is cold in the backend and in the keeper, over the KMS itself?

A backend forgets the key when the tenant's key epoch has moved on, the keeper when its TTL, a very short one
here, has passed: both happen before every cold read. The KMS's own latency is that of unwrapping the same key
directly, with the client that the keeper uses, in turn with the reads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from _common import Connection, Database, Figure, Server, Subject, Tenant, cpu_seconds, main, measure
from _kms import PROVIDERS, Provider, keeper, provider
from wardkey_core import keeper_client as client
from wardkey_core.envelope import key_aad

from wardkey.daemon.files import write_atomically
from wardkey.embedded.kms_choice import credential_files
from wardkey.kms import KekRef, open_kms

ROUNDS, WARMUP = 101, 5
TTL = 0.01


def run(server: Server) -> list[Figure]:
    figures: list[Figure] = []
    for name in PROVIDERS:
        with (
            provider(name) as kms,
            keeper(server.cluster, "--ttl", str(TTL), kms=kms) as socket,
            tempfile.TemporaryDirectory() as directory,
        ):
            figures += _compare(server, kms, socket, Path(directory))
    return figures


def _compare(server: Server, kms: Provider, socket: Path, directory: Path) -> list[Figure]:
    database = server.database(f"cold_read_{kms.name.lower().replace(' ', '_')}")
    tenant = database.tenant()
    tenant.load(100)
    token = tenant.token()
    unwrap = _unwrapping(database, tenant, kms, directory)

    def page(connection: Connection) -> None:
        with connection.pipeline():
            connection.execute("begin")
            connection.execute("select ward.login(%s)", [token])
            cursor = connection.execute("select name from patients where id = 7")
            connection.execute("commit")
            if len(cursor.fetchall()) != 1:
                raise AssertionError("the row is missing")

    with tenant.connect() as warm, tenant.connect() as cold, database.admin() as admin:
        # All wait the same time after the epoch was raised, and the warm backend reads it again first.
        def forget() -> None:
            time.sleep(TTL * 1.5)
            admin.execute(
                "update ward_internal.tenants set key_epoch = key_epoch + 1 where id = %s", [tenant.id]
            )
            page(warm)
            time.sleep(TTL * 1.5)

        page(cold)
        before = client.status(socket)
        cpu = cpu_seconds(before["pid"])
        timings = measure(
            [
                Subject("warm", lambda: page(warm), warm.info.backend_pid, forget),
                Subject("cold", lambda: page(cold), cold.info.backend_pid, forget),
                Subject("KMS", unwrap, prepare=forget),
            ],
            ROUNDS,
            warmup=WARMUP,
        )
        cpu = cpu_seconds(before["pid"]) - cpu
        calls = client.status(socket)["kms_calls"] - before["kms_calls"]
    if calls != 4 * (ROUNDS + WARMUP):  # one for each forget(), in which the warm backend gets the key again
        raise AssertionError("the KMS was not called once for each cold read")
    own = timings["KMS"].wall
    return [
        Figure(
            f"{kms.name}: a read cold in backend and keeper, above the KMS's latency",
            (timings["cold"].wall - own) * 1e3,
            "ms",
            3,
        ),
        Figure("… the KMS's own latency: unwrapping the key directly", own * 1e3, "ms"),
        Figure("… the warm read: login and one field", timings["warm"].wall * 1e3, "ms"),
        Figure("… the cold read as CPU time of the backend", timings["cold"].cpu * 1e3, "ms"),
        Figure("… CPU time of the keeper for it", cpu / calls * 1e3, "ms"),
    ]


def _unwrapping(database: Database, tenant: Tenant, kms: Provider, directory: Path) -> Callable[[], bytes]:
    """Return what unwraps the tenant's key as the keeper does, with its credential."""
    with database.admin() as admin:
        row = admin.execute(
            "select version, kek, kek_version, wrapped from ward_internal.tenant_keys"
            " where tenant_id = %s and state = 'active'",
            [tenant.id],
        ).fetchone()
    if row is None:
        raise AssertionError("the tenant has no key")
    version, kek, kek_version, wrapped = row
    if kms.choice is None:
        opened = open_kms("local:", database.server.cluster.home.keeper)
    else:
        files = (kms.choice.credential, kms.choice.ca)
        for name, file in zip(credential_files(kms.choice.uri), files, strict=False):
            if file is not None:
                write_atomically(directory / name, file.read_bytes())
        opened = open_kms(kms.choice.uri, directory)
    aad = key_aad(UUID(tenant.id).bytes, version, "default")
    return lambda: opened.unwrap(KekRef(kek, kek_version), wrapped, aad)


if __name__ == "__main__":
    main("cold_read", run)
