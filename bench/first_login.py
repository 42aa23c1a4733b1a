"""What do the first login and the first sealed field of a new backend cost, with the keeper warm?"""

from __future__ import annotations

import statistics
import time

from _common import Figure, Server, cpu_seconds, main

ROUNDS = 31


def run(server: Server) -> list[Figure]:
    database = server.database("first_login")
    tenant = database.tenant()
    tenant.load(100)
    token = tenant.token()
    plain: list[float] = []
    ward: list[float] = []
    cpu: list[float] = []
    for _ in range(ROUNDS):
        with database.admin() as connection:
            start = time.perf_counter()
            connection.execute("select name from plain.patients where id = 7").fetchall()
            plain.append(time.perf_counter() - start)
        with tenant.connect() as connection:
            pid = connection.info.backend_pid
            before = cpu_seconds(pid)
            start = time.perf_counter()
            with connection.transaction():
                connection.execute("select ward.login(%s)", [token])
                connection.execute("select name from patients where id = 7").fetchall()
            ward.append(time.perf_counter() - start)
            time.sleep(0.005)
            cpu.append(cpu_seconds(pid) - before)
    return [
        Figure("a backend's first login and first sealed field", statistics.median(ward) * 1e3, "ms", 60),
        Figure("… as CPU time of the backend", statistics.median(cpu) * 1e3, "ms"),
        Figure("a backend's first plain field", statistics.median(plain) * 1e3, "ms"),
    ]


if __name__ == "__main__":
    main("first_login", run)
