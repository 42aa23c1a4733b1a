"""What does a lookup by key cost with 1,000 tenants in the database, against one tenant?"""

from __future__ import annotations

from _common import Figure, Server, Subject, Tenant, main, measure

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
    return figures


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
