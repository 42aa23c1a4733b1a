"""A KMS goes away: warm backends go on for the TTL, then all fail closed, then all is well again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from wardkey_core.errors import KeeperUnavailable

from tests.kms.benches import Bench, GcpBench, Pkcs11Bench, VaultBench
from tests.support.cloud_kms_server import CloudKmsServer
from tests.support.database import Database

from .cells import KEEPER_TTL, KEY_TTL, MARGIN, SECRET, Cell, fails, read, recovers, running


@dataclass
class Outage:
    cell: Cell
    begin: Callable[[], object]
    end: Callable[[], object]
    sqlstate: str = "WK102"


@pytest.fixture(params=["gcpkms stopped", "vault sealed", "pkcs11 gone", "local unreadable"])
def outage(request: pytest.FixtureRequest, database: Database) -> Iterator[Outage]:
    bench: Bench = request.getfixturevalue(f"{request.param.split()[0]}_bench")
    with running(database, bench) as cell:
        made = _outage(cell, bench)
        yield made
        made.end()


def _outage(cell: Cell, bench: Bench) -> Outage:
    match bench:
        case GcpBench():
            return Outage(cell, bench.server.stop_grpc, bench.server.start_grpc)
        case VaultBench(server=bao):
            return Outage(cell, bao.seal, bao.unseal)
        case Pkcs11Bench(server=hsm):
            there, away = hsm.base / "tokens", hsm.base / "away"
            # Its objects are seen to be gone first, which is a denial, then the whole token.
            return Outage(
                cell, lambda: there.rename(away), lambda: away.exists() and away.rename(there), "WK103"
            )
    keks = cell.keeper.directory / "kek"
    away = keks.with_name("kek.away")

    def begin() -> None:
        keks.rename(away)
        keks.symlink_to(keks)

    def end() -> None:
        if away.exists():
            keks.unlink()
            away.rename(keks)

    return Outage(cell, begin, end)


def test_warm_goes_on_until_the_ttl_then_nothing_opens_then_all_is_well(outage: Outage) -> None:
    cell = outage.cell
    slug = cell.new_tenant()
    cell.forget()
    with cell.connect(slug) as warm, cell.connect(slug) as cold:
        began = time.monotonic()
        assert read(warm) == SECRET
        ending = threading.Thread(target=outage.begin)
        ending.start()
        warm_reads, away = 0, float("inf")
        while True:
            at = time.monotonic()
            if not ending.is_alive():
                away = min(away, at)
            try:
                assert read(warm) == SECRET
            except psycopg.Error as error:
                assert error.sqlstate in ("WK102", outage.sqlstate), error
                assert time.monotonic() - began > KEEPER_TTL
                break
            warm_reads += 1
            assert at - away < KEEPER_TTL + KEY_TTL + MARGIN, "a key outlived its time"
            time.sleep(0.02)
        assert warm_reads > 3
        ending.join()
        for connection in (warm, cold):
            told = fails(connection, "WK102")
            assert "key management service does not answer" in told and "keeper's log" in told
            fails(connection, "WK102", query="insert into patients (id, name, ssn) values (2, 'x', '1')")
            assert connection.execute("select city from patients").fetchall() == [("Ogden",)]
        outage.end()
        assert recovers(warm) == recovers(cold) == SECRET
        cold.execute("insert into patients (id, name, ssn) values (3, 'x', '3')")
        assert warm.execute("select id from patients order by id").fetchall() == [(1,), (3,)]


def test_no_tenant_is_made_without_a_kms(gcp_cell: Cell, cloud_kms: CloudKmsServer) -> None:
    before, server = _tenants(gcp_cell), cloud_kms
    server.stop_grpc()
    try:
        with pytest.raises(KeeperUnavailable, match="does not answer the orchestrator"):
            gcp_cell.new_tenant()
        assert _tenants(gcp_cell) == before
    finally:
        server.start_grpc()
    gcp_cell.new_tenant()


def _tenants(cell: Cell) -> list[tuple[str]]:
    query = "select slug from ward.tenants union select rolname from pg_roles where rolname ~ '^tenant_'"
    with cell.database.admin() as admin:
        return admin.execute(f"{query} order by 1").fetchall()


def test_a_hanging_kms_is_given_up_in_time_and_asked_again_when_it_goes_on(
    database: Database, vault_bench: VaultBench
) -> None:
    """Stopped in the middle, as by a debugger or a dying disk: it takes connections and never answers."""
    with running(database, vault_bench) as cell:
        slug = cell.new_tenant()
        cell.forget()
        with cell.connect(slug) as connection:
            vault_bench.server.send(signal.SIGSTOP)
            try:
                for _ in range(2):
                    assert "did not answer in time" in fails(connection, "WK102")
            finally:
                vault_bench.server.send(signal.SIGCONT)
            assert recovers(connection) == SECRET
