"""What does wardkey's client add to a page: 20 rows by key with 5 sealed fields each, the token known?

By hand with psycopg, on a connection that is at hand: BEGIN, login and query in one pipeline, and COMMIT when
the rows were read. The client does the same with a connection from the pool of the tenant that the token
names. All statements in one pipeline, COMMIT too, is a round trip less, and tells a program too late what it
read.
"""

from __future__ import annotations

import asyncio
from itertools import cycle

from _common import Figure, Server, Subject, main, measure

from wardkey import AsyncWards, Wards

ROWS = 10_000
ROUNDS = 1_001

_PAGE = "select id, name, ssn, birth_date, phone, address, city from patients where id = any(%s)"
_KEYS = [list(range(start, start + 20 * 97, 97)) for start in range(1, 1000)]


def run(server: Server) -> list[Figure]:
    database = server.database("client")
    tenant = database.tenant()
    tenant.load(ROWS)
    with database.admin() as admin:
        admin.execute("vacuum analyze")
    token, keys = tenant.token(), cycle(_KEYS).__next__
    dsn, slugs = server.cluster.dsn(database.name, "tenant_{tenant}"), {tenant.id: tenant.slug}
    with (
        tenant.connect() as raw,
        tenant.connect() as single,
        Wards(dsn, tenants=slugs) as wards,
        asyncio.Runner() as runner,
    ):
        awaited = AsyncWards(dsn, tenants=slugs)

        def by_hand() -> None:
            with raw.pipeline():
                raw.execute("begin")
                raw.execute("select ward.login(%s)", [token])
                cursor = raw.execute(_PAGE, [keys()])
            _check(cursor.fetchall())
            raw.commit()

        def in_one_pipeline() -> None:
            with single.pipeline():
                single.execute("begin")
                single.execute("select ward.login(%s)", [token])
                cursor = single.execute(_PAGE, [keys()])
                single.execute("commit")
            _check(cursor.fetchall())

        def by_wards() -> None:
            with wards.transaction(token) as connection:
                _check(connection.execute(_PAGE, [keys()]).fetchall())

        async def by_async_wards() -> None:
            async with awaited.transaction(token) as connection:
                _check(await (await connection.execute(_PAGE, [keys()])).fetchall())

        timings = measure(
            [
                Subject("hand", by_hand),
                Subject("single", in_one_pipeline),
                Subject("wards", by_wards),
                Subject("async", lambda: runner.run(by_async_wards())),
            ],
            ROUNDS,
            warmup=20,
        )
        runner.run(awaited.close())
    hand, wall = timings["hand"].wall, {name: timing.wall for name, timing in timings.items()}
    more = timings["wards"].client - timings["hand"].client
    return [
        Figure("a page by wards.transaction, in such pages by hand", wall["wards"] / hand, "×", 1.1),
        Figure("… by AsyncWards", wall["async"] / hand, "×"),
        Figure("… by hand, COMMIT in the pipeline too", wall["single"] / hand, "×"),
        Figure("… CPU time of the client by wards.transaction, more than by hand", more * 1e6, "µs"),
        Figure("… the page by hand", hand * 1e3, "ms"),
    ]


def _check(rows: list[tuple[object, ...]]) -> None:
    if len(rows) != 20:
        raise AssertionError("rows are missing")


if __name__ == "__main__":
    main("client", run)
