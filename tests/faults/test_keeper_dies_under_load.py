"""kill -9 of keeper and KMS while tenants read and write: one clear error, no row lost, all goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from tests.kms.benches import VaultBench
from tests.support.database import Database

from .cells import SECRET, Cell, read, recovers, running

TENANTS, ROUNDS, PAUSE = 3, 2, 0.4


@pytest.fixture
def vault_cell(database: Database, vault_bench: VaultBench) -> Iterator[Cell]:
    with running(database, vault_bench) as cell:
        yield cell


class Load:
    """A reader and a writer of each tenant, who go on whatever happens."""

    def __init__(self, cell: Cell, slugs: list[str]) -> None:
        self._cell, self._stop = cell, threading.Event()
        self.errors: Counter[str | None] = Counter()
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.kept: dict[str, list[int]] = {slug: [] for slug in slugs}
        self._threads = [
            threading.Thread(target=self._work, args=[work, slug])
            for slug in slugs
            for work in (self._read, self._write)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self, work: object, slug: str) -> None:
        connection, number = self._cell.connect(slug), 1
        while not self._stop.is_set():
            number += 1
            try:
                work(connection, slug, number)  # type: ignore[operator]
                self.done[slug] += 1
            except psycopg.Error as error:
                self.errors[error.sqlstate] += 1
            if number % 10 == 0:  # and some come cold
                connection.close()
                connection = self._cell.connect(slug)
            time.sleep(0.01)
        connection.close()

    def _read(self, connection: psycopg.Connection, slug: str, number: int) -> None:
        if (value := read(connection)) != f"{SECRET} of {slug}":
            self.wrong.append(value)

    def _write(self, connection: psycopg.Connection, slug: str, number: int) -> None:
        connection.execute(
            "insert into patients (id, name, ssn) values (%s, 'x', %s)", [number, f"{slug} {number}"]
        )
        self.kept[slug].append(number)


def test_of_keeper_and_kms_killed_again_and_again(vault_cell: Cell, vault_bench: VaultBench) -> None:
    cell = vault_cell
    slugs = [cell.new_tenant() for _ in range(TENANTS)]
    for slug in slugs:
        with cell.connect(slug) as connection:
            connection.execute("update patients set ssn = %s", [f"{SECRET} of {slug}"])
    with Load(cell, slugs) as load:
        for _ in range(ROUNDS):
            time.sleep(PAUSE)
            cell.keeper.stop(signal.SIGKILL)
            time.sleep(PAUSE)
            cell.start()
            time.sleep(PAUSE)
            vault_bench.server.kill()
            time.sleep(PAUSE + 0.5)
            vault_bench.server.restart()
        before = load.done.copy()
        time.sleep(2)
        recovered = {slug for slug in slugs if load.done[slug] > before[slug] + 10}
        seen = load.errors.copy()
        time.sleep(0.7)
        assert load.errors == seen, "errors after all was well again"
    assert recovered == set(slugs)
    assert set(load.errors) == {"WK102"}, load.errors
    assert not load.wrong
    for slug in slugs:
        with cell.connect(slug) as connection:
            assert recovers(connection) == f"{SECRET} of {slug}"
            rows = connection.execute("select id, ssn from patients where id > 1 order by id").fetchall()
        assert rows == [(number, f"{slug} {number}") for number in load.kept[slug]]
        assert len(rows) > 20
