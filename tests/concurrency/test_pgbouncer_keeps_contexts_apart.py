"""ATTACKS 3, 9, 10: many tenants behind PgBouncer, 10,000 transactions, no context but one's own.

Each tenant has two clients of different subjects and one server connection, so that each transaction meets a
backend another subject has just used: ended by commit, rollback, error or savepoint, with settings and
prepared statements left behind.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.pgbouncer import pgbouncer

TENANTS = 8
TRANSACTIONS = 10_000
PATIENTS = 6


@dataclass
class Findings:
    """What went wrong, and how often what was done."""

    leaks: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)


class Client(threading.Thread):
    """One application process of a tenant, under one subject."""

    def __init__(self, dsn: str, slug: str, subject: str, token: str, count: int, findings: Findings) -> None:
        super().__init__()
        self.dsn, self.slug, self.subject, self.token, self.count = dsn, slug, subject, token, count
        self.findings = findings
        self.random = random.Random(f"{slug} {subject}")

    def run(self) -> None:
        try:
            with psycopg.connect(self.dsn, prepare_threshold=None, autocommit=True) as connection:
                for _ in range(self.count):
                    action = self.random.choices(
                        [
                            self.read,
                            self.write,
                            self.roll_back,
                            self.fail,
                            self.save,
                            self.leave,
                            self.nobody,
                        ],
                        [6, 3, 2, 2, 2, 1, 4],
                    )[0]
                    action(connection)
                    self.findings.done[action.__name__] += 1
        except Exception as error:
            self.findings.leaks.append(f"{self.slug}/{self.subject}: {type(error).__name__}: {error}")

    def check(self, connection: Connection) -> None:
        """In a transaction with a login: one's own subject, one's own tenant's rows, all of them."""
        rows = connection.execute(
            "select ward.subject(), name from patients where id <= %s", [PATIENTS]
        ).fetchall()
        if {row[0] for row in rows} != {self.subject} or len(rows) != PATIENTS:
            self.findings.leaks.append(f"{self.slug}/{self.subject} saw {rows}")
        if any(not name.startswith(f"{self.slug} ") for _, name in rows):
            self.findings.leaks.append(f"{self.slug}/{self.subject} saw {rows}")

    def begin(self, connection: Connection) -> None:
        connection.execute("begin")
        connection.execute("select ward.login(%s)", [self.token])
        self.check(connection)

    def read(self, connection: Connection) -> None:
        self.begin(connection)
        connection.execute("commit")

    def write(self, connection: Connection) -> None:
        self.begin(connection)
        name = f"{self.slug} {self.subject} {self.random.random()}"
        patient = self.random.randint(1, PATIENTS)
        try:
            connection.execute("update patients set name = %s where id = %s", [name, patient])
            seen = connection.execute("select name from patients where id = %s", [patient]).fetchone()
            if seen != (name,):
                self.findings.leaks.append(f"{self.slug}/{self.subject} wrote {name}, read {seen}")
            connection.execute("commit")
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            connection.execute("rollback")

    def roll_back(self, connection: Connection) -> None:
        self.begin(connection)
        connection.execute(
            "insert into patients (id, name) values (%s, 'never')", [self.random.randint(100, 10**9)]
        )
        connection.execute("rollback")

    def fail(self, connection: Connection) -> None:
        self.begin(connection)
        with suppress(psycopg.errors.DivisionByZero):
            connection.execute("select 1 / (id - id), name from patients")
        connection.execute("rollback")

    def save(self, connection: Connection) -> None:
        connection.execute("begin")
        connection.execute("savepoint before")
        connection.execute("select ward.login(%s)", [self.token])
        self.check(connection)
        with suppress(psycopg.Error):
            connection.execute("select 'no number'::integer")
        connection.execute("rollback to before")
        self.check(connection)
        connection.execute("commit")

    def leave(self, connection: Connection) -> None:
        """Leave things behind for the backend's next client: they are of the same tenant."""
        self.begin(connection)
        left = f"left_{self.subject}"
        connection.execute(f"select set_config('app.{left}', %s, false)", [self.subject])
        with suppress(psycopg.errors.DuplicatePreparedStatement), connection.transaction():
            connection.execute(f"prepare {left} as select ward.subject(), name from patients")
        connection.execute("commit")

    def nobody(self, connection: Connection) -> None:
        """Without a login there is no context and no row, by any way others may have left."""
        connection.execute("begin")
        state = connection.execute("select ward.tenant_id(), ward.subject()").fetchone()
        if state != (None, None):
            self.findings.leaks.append(f"{self.slug}/{self.subject} without login: {state}")
        left = connection.execute("select name from pg_prepared_statements where name ~ '^left_'").fetchall()
        for query in ("select count(*) from patients", *(f"execute {name}" for (name,) in left)):
            with suppress(psycopg.Error), connection.transaction():
                rows = connection.execute(query).fetchall()
                self.findings.leaks.append(f"{self.slug}/{self.subject} without login: {rows}")
        connection.execute("commit")


@pytest.fixture
def slugs(database: Database) -> list[str]:
    made = [database.new_tenant() for _ in range(TENANTS)]
    for slug in made:
        with database.tenant(slug, subject="loader") as connection:
            connection.execute(
                "insert into patients (id, name) select n, %s || n from generate_series(1, %s) n",
                [f"{slug} ", PATIENTS],
            )
    return made


@pytest.mark.timeout(180)
def test_ten_thousand_transactions(database: Database, slugs: list[str]) -> None:
    findings = Findings()
    with pgbouncer(database, slugs, pool_size=1) as dsns:
        clients = [
            Client(
                dsns[slug],
                slug,
                subject,
                database.token(slug, subject),
                TRANSACTIONS // TENANTS // 2,
                findings,
            )
            for slug in slugs
            for subject in ("ann", "bob")
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        with database.admin() as admin:
            backends = admin.execute(
                "select count(*) from pg_stat_activity where usename ~ '^tenant_' and datname = %s",
                [database.name],
            ).fetchone()
    assert findings.leaks == []
    assert findings.done.total() == TRANSACTIONS
    assert backends == (TENANTS,)  # two clients of a tenant did share one backend
    for slug in slugs:
        with database.tenant(slug, subject="loader") as connection:
            names = [row[0] for row in connection.execute("select name from patients").fetchall()]
        assert len(names) == PATIENTS
        assert all(name.startswith(f"{slug} ") for name in names)
