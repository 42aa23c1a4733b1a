"""People at work: each reads and writes rows of a tenant and keeps a diary of what the database confirmed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from tests.support.database import Database

ROLES = ("ADMIN", "EVALUATOR", "ADMIN", "VIEWER")
PAGE = 5

Row = tuple[str, int]  # table, id
Write = tuple[str, str, str, int]  # subject, operation, table, id


@dataclass
class Diary:
    """What was confirmed, by slug. ``maybe``: what a lost connection left open whether it was committed."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    seen: dict[str, set[tuple[str, str, int]]] = field(default_factory=dict)  # subject, table, id
    written: dict[str, Counter[Write]] = field(default_factory=dict)
    maybe: dict[str, Counter[Write]] = field(default_factory=dict)
    rows: dict[str, dict[Row, tuple[str, ...] | None]] = field(default_factory=dict)
    unsure: dict[str, set[Row]] = field(default_factory=dict)
    transactions: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    keeper_away: list[float] = field(default_factory=list)  # when it was killed
    server_away: list[float] = field(default_factory=list)

    def summary(self) -> str:
        errors = ", ".join(f"{state} {count}" for state, count in sorted(self.errors.items())) or "none"
        return f"{self.transactions} transactions, errors: {errors}"

    def explains(self, state: str | None, began: float) -> bool:
        """Whether something that was done to the server explains that a transaction begun then ended so."""

        def lately(times: list[float], seconds: float) -> bool:
            return any(began - seconds < at <= time.monotonic() for at in times)

        if state in ("WK102", "WK113"):
            return lately(self.keeper_away, 15.0)
        if state == "WK401":
            return lately(self.server_away, 15.0)
        if state is None or state[:2] in ("08", "57"):
            return lately(self.server_away, 30.0)
        return state in ("40001", "WK107")  # to be retried by the client, as documented


class Client:
    """One person, over PgBouncer (``pooled``: its DSN) or directly. It writes its own rows and reads all."""

    def __init__(
        self,
        database: Database,
        slug: str,
        tenant: UUID,
        number: int,
        pooled: str | None,
        diary: Diary,
        stop: threading.Event,
        chance: random.Random,
    ) -> None:
        self._database, self._slug, self._tenant, self._number = database, slug, tenant, number
        self._dsn = pooled
        self._diary, self._stop, self._chance = diary, stop, random.Random(chance.random())
        self._subject, self._role = f"person {number}", ROLES[number % len(ROLES)]
        self._next = number * 1_000_000 + 1
        self._mine: dict[str, list[int]] = {"patients": [], "visits": []}
        self._patients: dict[int, int] = {}
        with diary.lock:
            diary.seen.setdefault(slug, set())
            diary.written.setdefault(slug, Counter())
            diary.maybe.setdefault(slug, Counter())
            diary.rows.setdefault(slug, {})
            diary.unsure.setdefault(slug, set())

    def run(self) -> None:
        connection: psycopg.Connection | None = None
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                if connection is None or connection.closed or self._chance.random() < 0.02:
                    if connection is not None:
                        connection.close()
                    connection = self._connect()
                self._transaction(connection)
            except psycopg.Error as error:
                self._failed(error, began)
                if connection is not None:
                    connection.close()
                time.sleep(0.1)
            except Exception as error:
                self._fault(f"{type(error).__name__}: {error}")
            self._stop.wait(self._chance.uniform(0, 0.05))
        if connection is not None:
            connection.close()

    def _connect(self) -> psycopg.Connection:
        dsn = self._dsn or self._database.dsn(f"tenant_{self._slug}")
        return psycopg.connect(dsn, prepare_threshold=None, connect_timeout=30)

    def _transaction(self, connection: psycopg.Connection) -> None:
        seen: set[tuple[str, str, int]] = set()
        writes: list[Write] = []
        after: dict[Row, tuple[str, ...] | None] = {}
        token = self._database.issuer.sign_token(self._tenant, self._subject, self._role)
        committing = False
        try:
            with connection.transaction():
                connection.execute("select ward.login(%s)", [token])
                for _ in range(self._chance.randrange(1, 4)):
                    if self._role == "VIEWER" or self._chance.random() < 0.6:
                        self._read(connection, seen)
                    else:
                        self._write(connection, writes, after)
                committing = True
        except psycopg.Error as error:
            # a read is journalled whether or not its transaction ends well; a write is not
            self._note(seen, [], {})
            if committing and (error.sqlstate is None or error.sqlstate.startswith(("08", "57"))):
                with self._diary.lock:
                    self._diary.maybe[self._slug].update(writes)
                    self._diary.unsure[self._slug].update(after)
            raise
        self._note(seen, writes, after)

    def _note(
        self, seen: set[tuple[str, str, int]], writes: list[Write], after: dict[Row, tuple[str, ...] | None]
    ) -> None:
        with self._diary.lock:
            self._diary.seen[self._slug] |= seen
            self._diary.written[self._slug].update(writes)
            self._diary.rows[self._slug].update(after)
            self._diary.transactions += 1
        for (table, key), values in after.items():
            if values is not None and key not in self._mine[table]:
                self._mine[table].append(key)
            elif values is None and key in self._mine[table]:
                self._mine[table].remove(key)

    def _read(self, connection: psycopg.Connection, seen: set[tuple[str, str, int]]) -> None:
        table, value = self._chance.choice((("patients", "ssn"), ("visits", "note")))
        query = f"select id, {value} from {table} where id >= %s order by id limit {PAGE}"
        start = self._chance.randrange(4) * 1_000_000 + self._chance.randrange(200)
        for key, text in connection.execute(query, [start]).fetchall():
            if not str(text).startswith(f"{self._slug} {key} "):
                self._fault(f"{self._slug}: {table} {key} is {text!r}")
            seen.add((self._subject, table, key))

    def _write(
        self, connection: psycopg.Connection, writes: list[Write], after: dict[Row, tuple[str, ...] | None]
    ) -> None:
        key, mark = self._next, f"{self._chance.randrange(10**9)}"
        self._next += 1
        mine = [each for each in self._mine["patients"] if ("patients", each) not in after]
        what = self._chance.random()
        if what < 0.4 or len(mine) < 3:
            values = (f"name {mark}", f"{self._slug} {key} {mark}")
            connection.execute("insert into patients values (%s, %s, %s)", [key, *values])
            writes.append((self._subject, "insert", "patients", key))
            after["patients", key] = values
        elif what < 0.65:
            patient, text = self._chance.choice(mine), f"{self._slug} {key} {mark}"
            connection.execute("insert into visits values (%s, %s, %s)", [key, patient, text])
            writes.append((self._subject, "insert", "visits", key))
            after["visits", key] = (str(patient), text)
            self._patients[key] = patient
        elif what < 0.9:
            key = self._chance.choice(mine)
            values = (f"name {mark}", f"{self._slug} {key} {mark}")
            connection.execute("update patients set name = %s, ssn = %s where id = %s", [*values, key])
            writes.append((self._subject, "update", "patients", key))
            after["patients", key] = values
        elif visits := [each for each in self._mine["visits"] if ("visits", each) not in after]:
            key = self._chance.choice(visits)
            connection.execute("delete from visits where id = %s", [key])
            writes.append((self._subject, "delete", "visits", key))
            after["visits", key] = None

    def _failed(self, error: psycopg.Error, began: float) -> None:
        state = error.sqlstate
        with self._diary.lock:
            self._diary.errors[state or type(error).__name__] += 1
        if not self._diary.explains(state, began):
            self._fault(f"{self._slug} {self._subject}: {state} {error}")

    def _fault(self, text: str) -> None:
        with self._diary.lock:
            self._diary.faults.append(" ".join(text.split()))
