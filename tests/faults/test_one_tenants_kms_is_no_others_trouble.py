"""A tenant's own KMS hangs, with many of its backends waiting for it: no other tenant waits."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from wardkey_core.errors import KeeperUnavailable

from tests.kms.benches import LocalBench, VaultBench
from tests.support.database import Database
from tests.support.openbao import OpenBao

from .cells import SECRET, TIMEOUT, Cell, fails, read, recovers, running

BACKENDS, ASKING = 6, 20
"""Who waits for the hanging KMS. Backends share one call for their key; each of the others has its own."""
READS = 30


@pytest.fixture
def own_bench(openbao: OpenBao, tmp_path: Path) -> VaultBench:
    (tmp_path / "own").mkdir()
    return VaultBench(tmp_path / "own", openbao)


def test_cold_reads_of_others_take_as_long_as_before(
    database: Database, local_bench: LocalBench, own_bench: VaultBench
) -> None:
    with running(database, local_bench) as cell:
        own, other = cell.new_tenant(own=own_bench), cell.new_tenant(secret="of the other")
        assert cell.key(own)["kek"].startswith("vault:") and cell.key(other)["kek"].startswith("local:")
        calm = _cold_reads(cell, other)
        cell.forget()
        stop = threading.Event()
        patients = [threading.Thread(target=_insist, args=[cell, own, stop]) for _ in range(BACKENDS)]
        patients += [threading.Thread(target=_provision, args=[cell, own, stop]) for _ in range(ASKING)]
        own_bench.server.send(signal.SIGSTOP)
        try:
            for thread in patients:
                thread.start()
            time.sleep(0.5)
            troubled = _cold_reads(cell, other)
            created = min(_creation(cell) for _ in range(3))  # who waits for the other's KMS does each time
            assert all(thread.is_alive() for thread in patients)
        finally:
            stop.set()
            own_bench.server.send(signal.SIGCONT)
            for thread in patients:
                thread.join()
        print(f"median cold read {calm[0]:.4f} s, with the other's KMS hanging {troubled[0]:.4f} s")
        assert troubled[0] < 3 * calm[0] + 0.05, "others wait"
        assert troubled[1] < TIMEOUT / 2 and created < TIMEOUT
        with cell.connect(own) as connection:
            assert recovers(connection) == SECRET


def test_a_credential_that_is_damaged_is_its_tenants_trouble_only(
    database: Database, local_bench: LocalBench, own_bench: VaultBench
) -> None:
    with running(database, local_bench) as cell:
        own, other = cell.new_tenant(own=own_bench), cell.new_tenant()
        credential: Path = cell.keeper.directory / "tenants" / str(cell.id(own)) / "0" / "vault.json"
        kept = credential.read_bytes()
        credential.write_bytes(b"{}")
        cell.forget()
        with cell.connect(own) as one, cell.connect(other) as another:
            fails(one, "WK103")
            assert read(another) == SECRET
            credential.write_bytes(kept)
            assert recovers(one) == SECRET


def _creation(cell: Cell) -> float:
    """Return how long making a tenant takes, in seconds."""
    started = time.monotonic()
    cell.new_tenant()
    return time.monotonic() - started


def _cold_reads(cell: Cell, slug: str) -> tuple[float, float]:
    """Return the median and the longest of reads for which each time the keeper is asked, and the KMS."""
    cell.set("key_ttl", "0")
    seconds = []
    with cell.connect(slug) as connection:
        for _ in range(READS):
            began = time.monotonic()
            read(connection)
            seconds.append(time.monotonic() - began)
            time.sleep(0.03)
    return statistics.median(seconds), max(seconds)


def _provision(cell: Cell, slug: str, stop: threading.Event) -> None:
    key, tenant = cell.key(slug), str(cell.id(slug))
    kek = {"kek": key["kek"], "kek_version": key["kek_version"]}
    while not stop.is_set():
        with suppress(KeeperUnavailable):
            cell.keeper.ask(op="provision", tenant=tenant, version=2, **kek)


def _insist(cell: Cell, slug: str, stop: threading.Event) -> None:
    with cell.connect(slug) as connection:
        while not stop.is_set():
            with suppress(psycopg.Error):
                read(connection)
