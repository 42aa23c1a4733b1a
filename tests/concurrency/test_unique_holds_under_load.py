"""Unique over sealed columns while sessions write and a worker replaces the key, at one time."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

import psycopg

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire, rotate

_VALUES = 300
_ROTATIONS = 6
_PATIENCE = 60
_TWICE = "select ssn from patients group by ssn having count(*) > 1"


def _write(database: Database, number: int, over: threading.Event, seen: Counter[str]) -> None:
    """One statement that may collide in each transaction: so writers cannot deadlock with one another."""
    chance = random.Random(number)
    with database.tenant("acme", subject=f"w{number}") as ward:
        while not over.is_set():
            ssn = f"{chance.randrange(_VALUES)}"
            try:
                with ward.transaction():
                    what = chance.random()
                    if what < 0.5:
                        ward.execute("insert into patients (name, ssn) values ('x', %s)", [ssn])
                    elif what < 0.7:
                        ward.execute("insert into patients (name, ssn) values ('x', %s)", [ssn])
                        time.sleep(0.02)  # others wait for this one; a rotation passes meanwhile
                    elif what < 0.8:  # under the key that was there when it began
                        ward.execute("select count(*) from patients where city = 'nowhere'")
                        time.sleep(0.1)
                        ward.execute("insert into patients (name, ssn) values ('x', %s)", [ssn])
                    elif what < 0.9:
                        row = ward.execute(
                            "select min(id) from patients where id > %s", [chance.randrange(2000)]
                        )
                        ward.execute(
                            "update patients set ssn = %s where id = %s", [ssn, row.fetchall()[0][0]]
                        )
                    else:
                        ward.execute("delete from patients where mod(id, 97) = %s", [chance.randrange(97)])
                seen["done"] += 1
            except psycopg.Error as error:
                seen[error.sqlstate or repr(error)] += 1


def _twice(ward: Connection) -> list[tuple[str, ...]]:
    return ward.execute(_TWICE).fetchall()


def test_no_duplicate_comes_in_while_keys_are_replaced(database: Database) -> None:
    with database.admin() as admin:
        admin.execute("select ward.add_unique('clinic.patients', '{ssn}')")
    over, seen = threading.Event(), Counter[str]()
    threads = [threading.Thread(target=_write, args=(database, n, over, seen)) for n in range(3)]
    for thread in threads:
        thread.start()
    blocked: Counter[str] = Counter()
    try:
        with database.admin() as admin, database.tenant("acme", subject="reader") as ward:
            for version in range(2, 2 + _ROTATIONS):
                assert rotate(admin) == version
                deadline = time.monotonic() + _PATIENCE
                finished = False
                while not finished:
                    assert time.monotonic() < deadline, (version, seen, blocked)
                    try:
                        reseal(admin, blocks=1)
                        retire(admin)
                        reseal(admin, blocks=1)
                        retire(admin)
                    except psycopg.Error as error:
                        blocked[error.sqlstate or ""] += 1
                    assert _twice(ward) == []
                    (finished,) = admin.execute(
                        "select bool_and(finished_at is not null) from ward_internal.rotations"
                    ).fetchall()[0]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(seen) <= {"done", "23505", "40001"}, seen
    assert seen["done"] and seen["23505"]
