"""What do the first login and the first sealed field of a new backend cost, with the keeper warm?

Beside it, an empty function of PL/Python that is the first of its backend: the start of Python itself.
"""

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
    python: list[float] = []
    for _ in range(ROUNDS):
        with database.admin() as connection:
            start = time.perf_counter()
            connection.execute("select name from plain.patients where id = 7").fetchall()
            plain.append(time.perf_counter() - start)
        with database.admin() as connection:
            before = cpu_seconds(connection.info.backend_pid)
            connection.execute("do language plpython3u 'pass'")
            time.sleep(0.005)
            python.append(cpu_seconds(connection.info.backend_pid) - before)
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
    started = statistics.median(python)
    return [
        Figure("a first login and field, in starts of PL/Python", statistics.median(cpu) / started, "×", 2.4),
        Figure("… as CPU time of the backend", statistics.median(cpu) * 1e3, "ms"),
        Figure("… until the client has it", statistics.median(ward) * 1e3, "ms"),
        Figure("a backend's first empty function of PL/Python, CPU time", started * 1e3, "ms"),
        Figure("a backend's first plain field", statistics.median(plain) * 1e3, "ms"),
    ]


if __name__ == "__main__":
    main("first_login", run)
