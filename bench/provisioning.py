"""What does a new tenant of the clinic model cost, and how much more the 1,000th than the 10th?

Two databases, of 5 and of 990 tenants, get their next ones in turn.
"""

from __future__ import annotations

import time
from itertools import count

from _common import Database, Figure, Server, Subject, main, measure

FEW, MANY = 5, 985
ROUNDS = 9


def run(server: Server) -> list[Figure]:
    small, large = server.database("few"), server.database("many")
    small.fill(FEW)
    start = time.perf_counter()
    large.fill(MANY)
    filling = (time.perf_counter() - start) / MANY
    timings = measure(
        [_provisioner("10th", small, FEW), _provisioner("1,000th", large, MANY)], ROUNDS, warmup=2
    )
    tenth, thousandth = timings["10th"].wall, timings["1,000th"].wall
    return [
        Figure("provisioning 4 tables as the 1,000th tenant", thousandth * 1e3, "ms", 100),
        Figure("provisioning 4 tables as the 10th tenant", tenth * 1e3, "ms"),
        Figure("the 1,000th against the 10th", thousandth / tenth, "×", 1.5),
        Figure("… as CPU time of the backend", timings["1,000th"].cpu / timings["10th"].cpu, "×"),
        Figure("a tenant, while 1,000 are made in one session", filling * 1e3, "ms"),
    ]


def _provisioner(name: str, database: Database, tenants: int) -> Subject:
    numbers = count(tenants + 1)
    connection = database.admin()

    def provision() -> None:
        connection.execute("select ward.create_tenant(%s)", [database.slug(next(numbers))])

    return Subject(name, provision, connection.info.backend_pid)


if __name__ == "__main__":
    main("provisioning", run)
