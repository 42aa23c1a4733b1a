"""What does it cost when the tenant's key is cold in the backend and warm in the keeper?

A backend forgets the key when the tenant's key epoch has moved on: that is raised before every cold read.
"""

from __future__ import annotations

from _common import Connection, Figure, Server, Subject, main, measure

ROUNDS = 201


def run(server: Server) -> list[Figure]:
    database = server.database("cold_key")
    tenant = database.tenant()
    tenant.load(100)
    token = tenant.token()

    def page(connection: Connection) -> None:
        with connection.pipeline():
            connection.execute("begin")
            connection.execute("select ward.login(%s)", [token])
            cursor = connection.execute("select name from patients where id = 7")
            connection.execute("commit")
            if len(cursor.fetchall()) != 1:
                raise AssertionError("the row is missing")

    with tenant.connect() as warm, tenant.connect() as cold, database.admin() as admin:
        # Both wait the same time after the epoch was raised, and the warm one reads it again first.
        def raise_epoch() -> None:
            admin.execute(
                "update ward_internal.tenants set key_epoch = key_epoch + 1 where id = %s", [tenant.id]
            )
            page(warm)

        timings = measure(
            [
                Subject("warm", lambda: page(warm), warm.info.backend_pid, raise_epoch),
                Subject("cold", lambda: page(cold), cold.info.backend_pid, raise_epoch),
            ],
            ROUNDS,
            warmup=10,
        )
    extra = (timings["cold"].wall - timings["warm"].wall) * 1e3
    return [
        Figure("a read with a key cold in the backend, over a warm one", extra, "ms", 3),
        Figure("… the warm read itself: login and one field", timings["warm"].wall * 1e3, "ms"),
        Figure("… the cold read as CPU time of the backend", timings["cold"].cpu * 1e3, "ms"),
    ]


if __name__ == "__main__":
    main("cold_key", run)
