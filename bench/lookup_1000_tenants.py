"""What does a lookup by key cost with 1,000 tenants in the database, against one tenant?

And a change of the policy, which is everybody's.
"""

from __future__ import annotations

from functools import partial

from _common import Database, Figure, Server, Subject, Tenant, main, measure

from wardkey.access import policy

TENANTS = 1000
ROWS = 2_000
ROUNDS = 2_001


def run(server: Server) -> list[Figure]:
    alone, crowd = server.database("alone"), server.database("many")
    crowd.fill(TENANTS)
    for database in (alone, crowd):
        database.tenant().load(ROWS)
        with database.admin() as connection:
            connection.execute("vacuum analyze")
    figures: list[Figure] = []
    for text, prepare in (("prepared", True), ("planned each time", False)):
        timings = measure(
            [_reader("one", alone.tenant(), prepare), _reader("many", crowd.tenant(), prepare)],
            ROUNDS,
            warmup=50,
        )
        one, many = timings["one"], timings["many"]
        figures += [
            Figure(f"lookup with 1,000 tenants against one, {text}", many.wall / one.wall, "×", 1.2),
            Figure("… as CPU time of the backend", many.cpu / one.cpu, "×"),
            Figure("… with one tenant", one.wall * 1e3, "ms"),
        ]
    seconds = _policy_changes(server, crowd)
    return [*figures, Figure("a change of the policy with 1,000 tenants", seconds, "s", 1.0)]


def _policy_changes(server: Server, database: Database) -> float:
    """Return how long one takes, in database and keeper."""
    keeper = server.cluster.home.keeper
    with database.admin(autocommit=False) as admin:
        changes = [
            Subject(access, partial(policy.set_cell, admin, keeper, "ANALYST", "note", access))
            for access in ("mask", "none")
        ]
        return max(timing.wall for timing in measure(changes, 5, warmup=1).values())


def _reader(name: str, tenant: Tenant, prepare: bool) -> Subject:
    connection = tenant.connect()
    token, keys = tenant.token(), iter(list(range(1, ROWS)) * 10)

    def read() -> None:
        with connection.pipeline():
            connection.execute("begin", prepare=True)
            connection.execute("select ward.login(%s)", [token], prepare=True)
            cursor = connection.execute(
                "select name from patients where id = %s", [next(keys)], prepare=prepare
            )
            connection.execute("commit", prepare=True)
            if len(cursor.fetchall()) != 1:
                raise AssertionError(f"{name}: the row is missing")

    return Subject(name, read, connection.info.backend_pid)


if __name__ == "__main__":
    main("lookup_1000_tenants", run)
