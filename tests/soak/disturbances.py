"""What is done to the server meanwhile: rotations, kills, restarts, tenants that come and go."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import psycopg

from tests.soak.clients import Diary
from tests.support.database import Database
from wardkey.embedded import Cluster
from wardkey.embedded.parts import Part
from wardkey.errors import WardError
from wardkey.keys import run
from wardkey.tenants import provisioning as tenants


class Disturber:
    """``done``: how often each was done; ``back``: seconds until what was killed was at work again."""

    def __init__(
        self,
        cluster: Cluster,
        database: Database,
        slugs: Sequence[str],
        diary: Diary,
        stop: threading.Event,
        chance: random.Random,
    ) -> None:
        self._cluster, self._database, self._slugs = cluster, database, slugs
        self._diary, self._stop, self._chance = diary, stop, chance
        self._number = 0
        self.done: Counter[str] = Counter()
        self.back: dict[str, list[float]] = {}

    def run(self) -> None:
        every: list[Callable[[], None]] = [
            *[self.tenant_comes_and_goes] * 4,
            *[self.keys_rotated] * 3,
            *[self.keeper_killed] * 3,
            *[self.scribe_killed] * 2,
            self.supervisor_killed,
            self.backend_killed_gently,
            self.server_restarted,
        ]
        while not self._stop.wait(self._chance.uniform(0.5, 3)):
            what = self._chance.choice(every)
            try:
                what()
            except (psycopg.Error, WardError, AssertionError) as error:
                self._diary.faults.append(" ".join(f"{what.__name__}: {error}".split()))
            self.done[what.__name__.replace("_", " ")] += 1

    def told(self, done: str) -> str:
        times = self.back.get(done)
        return (
            f", back within {max(times):.2f} s, mostly {sorted(times)[len(times) // 2]:.2f} s"
            if times
            else ""
        )

    def tenant_comes_and_goes(self) -> None:
        self._number += 1
        slug, remember = f"passer_by_{self._number}", tenants.passfile_keeper(self._cluster.home.pgpass)
        with self._database.admin(autocommit=False) as admin:
            tenants.create(admin, slug, None, remember)
        with self._database.tenant(slug, role="ADMIN") as ward:
            ward.execute("insert into patients values (1, 'x', 'y')")
            assert ward.execute("select ssn from patients").fetchall() == [("y",)]
        with self._database.admin(autocommit=False) as admin:
            tenants.drop(admin, slug, force=True, remember=remember)

    def keys_rotated(self) -> None:
        slug = self._chance.choice(self._slugs)
        with self._database.admin() as admin:
            admin.execute("select ward.rotate_key(%s, 'soak')", [slug])
            outcome = run.reseal(admin, slug, run.Throttle(), threading.Event())
        assert outcome.state in ("finished", "waiting") and not outcome.failed, outcome

    def keeper_killed(self) -> None:
        self._diary.keeper_away.append(time.monotonic())
        self._killed("keeper killed", self._cluster.keeper)
        self._diary.keeper_away.append(time.monotonic())

    def scribe_killed(self) -> None:
        self._killed("scribe killed", self._cluster.scribe)

    def supervisor_killed(self) -> None:
        """And then the keeper: the next supervisor takes the one over that runs, or starts one."""
        if supervisor := self._cluster.supervision.supervisor:
            supervisor.signal(signal.SIGKILL)
        self._diary.keeper_away.append(time.monotonic())
        self._cluster.start()
        self._diary.keeper_away.append(time.monotonic())

    def backend_killed_gently(self) -> None:
        self._diary.server_away.append(time.monotonic())
        with self._database.admin() as admin:
            query = "select pid from pg_stat_activity where usename like 'tenant%' order by random() limit 1"
            admin.execute(f"select pg_terminate_backend(pid) from ({query}) as one")

    def server_restarted(self) -> None:
        self._diary.server_away.append(time.monotonic())
        self._diary.keeper_away.append(time.monotonic())
        with self._cluster.home.locked():
            self._cluster.postgres.stop()
        self._cluster.start()
        self._diary.server_away.append(time.monotonic())

    def _killed(self, name: str, part: Part) -> None:
        process, began = part.process, time.monotonic()
        assert process, f"no {part.name}"
        process.signal(signal.SIGKILL)
        while time.monotonic() < began + 60:
            victim = part.process
            if victim and victim != process and part.is_at_work(victim):
                self.back.setdefault(name, []).append(time.monotonic() - began)
                return
            time.sleep(0.01)
        raise AssertionError(f"the {part.name} does not come back")
