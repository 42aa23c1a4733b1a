"""What does a row cost that is copied into a face with five sealed columns?"""

from __future__ import annotations

from _common import Connection, Figure, Server, Subject, copy_patients, main, measure, patients

ROWS = 5_000
ROUNDS = 9


def run(server: Server) -> list[Figure]:
    database = server.database("copy_in")
    tenant = database.tenant()
    rows = patients(ROWS)
    with database.admin() as plain, tenant.log_in() as ward:
        timings = measure(
            [_copier("plain", plain, "plain.patients", rows), _copier("ward", ward, "patients", rows)], ROUNDS
        )
    plain_row, ward_row = timings["plain"].wall / ROWS, timings["ward"].wall / ROWS
    return [
        Figure("a row copied into a face with 5 sealed columns", ward_row * 1e6, "µs", 40),
        Figure("… as CPU time of the backend", timings["ward"].cpu / ROWS * 1e6, "µs"),
        Figure("a row copied into the plain table", plain_row * 1e6, "µs"),
        Figure("… as CPU time of its backend", timings["plain"].cpu / ROWS * 1e6, "µs"),
        Figure("face against plain table", ward_row / plain_row, "×"),
    ]


def _copier(name: str, connection: Connection, table: str, rows: list[tuple[object, ...]]) -> Subject:
    def copy() -> None:
        with connection.transaction(force_rollback=True):
            copy_patients(connection, table, rows)

    return Subject(name, copy, connection.info.backend_pid)


if __name__ == "__main__":
    main("copy_in", run)
