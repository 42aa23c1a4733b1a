"""A soak: ``make soak``, or ``python -m tests.soak --minutes 10 --seed 7``. It is no part of ``make test``.

On an embedded server of its own, four tenants are read and written over PgBouncer and directly, by people of
several roles, while keys are rotated, processes killed, PostgreSQL restarted and tenants made and dropped. At
its end, each row that was seen or written is compared with the tables and with the log, and each log is
verified. Exit code 1 when anything differs, or when a client got an error that nothing of this explains.

Before all that, undisturbed, 10,000 requests of 50 more tenants go through one ``AsyncWards`` and are
cancelled at random: ``--requests 0`` leaves that out.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from pathlib import Path

from tests.soak.cancellations import TENANTS, cancellations
from tests.soak.clients import Client, Diary
from tests.soak.disturbances import Disturber
from tests.soak.reckoning import compare
from tests.support.database import Database
from tests.support.homes import make_directory, throw_away
from tests.support.pgbouncer import pgbouncer
from wardkey.embedded import Cluster, Home
from wardkey.tenants import provisioning as tenants

SLUGS = ("boston", "cambridge", "quincy", "salem")
MODEL = """
create schema clinic;
create table clinic.patients (id bigint primary key, name text not null, ssn text);
create table clinic.visits (
  id bigint primary key, patient bigint not null references clinic.patients, note text
);
select ward.protect('clinic.patients', seal => '{name,ssn}');
select ward.protect('clinic.visits', seal => '{note}');
"""


def main() -> int:
    parser = argparse.ArgumentParser("soak", description="Use wardkey and disturb it, then compare.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    say(f"{options.minutes:g} minutes, seed {options.seed}")
    directory = make_directory()
    try:
        return soak(directory, options.minutes * 60, options.requests, random.Random(options.seed))
    finally:
        throw_away(directory)


def soak(directory: Path, seconds: float, requests: int, chance: random.Random) -> int:
    cluster = Cluster(Home(directory / "home"))
    cluster.start()
    database = Database(cluster, "wardkey")
    with database.admin(autocommit=False) as admin:
        admin.execute(MODEL)
        remember = tenants.passfile_keeper(cluster.home.pgpass)
        for slug in SLUGS:
            tenants.create(admin, slug, None, remember)
    if requests and (faults := _cancelled(cluster, database, requests, chance)):
        say(f"{len(faults)} faults")
        return 1
    diary, stop = Diary(), threading.Event()
    with pgbouncer(database, SLUGS, pool_size=3) as pooled:
        ids = {slug: database.tenant_id(slug) for slug in SLUGS}
        clients = [
            Client(
                database, slug, ids[slug], number, pooled[slug] if number % 2 else None, diary, stop, chance
            )
            for slug in SLUGS
            for number in range(4)
        ]
        disturber = Disturber(cluster, database, SLUGS, diary, stop, random.Random(chance.random()))
        threads = [threading.Thread(target=each.run) for each in (*clients, disturber)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until and not diary.faults:
            stop.wait(min(10.0, max(until - time.monotonic(), 0)))
            say(diary.summary())
        stop.set()
        for thread in threads:
            thread.join()
    cluster.start()
    for fault in diary.faults:
        say(f"FAULT {fault}")
    faults = [*diary.faults, *compare(cluster, database, ids, diary)]
    say(diary.summary())
    for done, times in sorted(disturber.done.items()):
        say(f"  {done}: {times} times" + disturber.told(done))
    for fault in faults[len(diary.faults) :][:50]:
        say(f"FAULT {fault}")
    say("nothing is amiss" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


def _cancelled(cluster: Cluster, database: Database, requests: int, chance: random.Random) -> list[str]:
    """Run the storm in the wards of tenants made for it, which go afterwards."""
    remember = tenants.passfile_keeper(cluster.home.pgpass)
    slugs = [f"storm_{number}" for number in range(TENANTS)]
    for slug in slugs:
        with database.admin(autocommit=False) as admin:
            tenants.create(admin, slug, None, remember)
    say(f"{len(slugs)} tenants made")
    began = time.monotonic()
    outcomes, faults = cancellations(database, slugs, requests, chance)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    say(f"of {requests} requests in {time.monotonic() - began:.0f} s: {counts}")
    for fault in faults:
        say(f"FAULT {fault}")
    with database.admin(autocommit=False) as admin:
        for slug in slugs:
            tenants.drop(admin, slug, force=True, remember=remember)
    return faults


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
