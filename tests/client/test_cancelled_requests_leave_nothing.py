"""A request that is cancelled, wherever it is, leaves no context, no transaction and no connection out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import psycopg
import pytest

from tests.support.pgbouncer import passwords
from tests.support.storm import storm
from wardkey import AsyncWards, errors

OTHERS = "select query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
MAX_SIZE, MAX_PER_TENANT = 6, 3


def run(database, work: Callable[[AsyncWards], Awaitable[None]], **settings) -> None:
    async def main() -> None:
        async with AsyncWards(database.dsn("tenant_{tenant}"), **settings) as wards:
            await work(wards)

    asyncio.run(main())


async def all_are_there(wards: AsyncWards, slugs: list[str]) -> None:
    """Take as many connections as there may be, of two tenants; each is idle. And give them back."""
    connections = [await wards.getconn(slug) for slug in slugs for _ in range(MAX_PER_TENANT)]
    assert len(connections) == MAX_SIZE
    for connection in connections:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with pytest.raises(errors.NoContext):
            await connection.execute("select name from patients")
        await wards.putconn(connection)


def test_random_cancellation(database):
    slugs = ["acme", "globex", database.new_tenant(), database.new_tenant()]
    tokens = [
        (slug, who, database.token(slug, who, tenant=slug)) for slug in slugs for who in ("ann", "bob", "eve")
    ]

    async def work(wards: AsyncWards) -> None:
        outcomes = await storm(wards, tokens, 600, Random(7), at_once=30)
        assert outcomes["answered"] + outcomes["cancelled"] == 600
        assert outcomes["wrong"] == 0
        assert outcomes["answered"] > 100
        assert outcomes["cancelled"] > 100
        await all_are_there(wards, slugs[:2])

    run(database, work, max_size=MAX_SIZE, max_per_tenant=MAX_PER_TENANT, timeout=60)
    with database.admin() as admin:
        while admin.execute(OTHERS).fetchall():  # backends end after their clients
            pass


def test_cancelled_while_it_waits_for_a_connection(database):
    token = database.token("acme", tenant="acme")

    async def work(wards: AsyncWards) -> None:
        async with wards.transaction(token) as connection:
            waiting = asyncio.ensure_future(wards.getconn("acme"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await connection.execute("select 1")
        connection = await wards.getconn("acme")
        await wards.putconn(connection)

    run(database, work, max_per_tenant=1)


def test_cancelled_in_a_statement_that_changed_rows(database):
    token = database.token("acme", tenant="acme")

    async def work(wards: AsyncWards) -> None:
        async def request() -> None:
            async with wards.transaction(token) as connection:
                await connection.execute("insert into patients (name) values ('lost')")
                await connection.execute("select pg_sleep(600)")

        task = asyncio.ensure_future(request())
        with database.admin() as admin:
            while admin.execute(OTHERS + " and state = 'active'").fetchall() != [("select pg_sleep(600)",)]:
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with wards.transaction(token) as connection:
            assert await (await connection.execute("select name from patients")).fetchall() == []

    run(database, work, max_per_tenant=1)


@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_while_it_gives_its_connection_back(database, times):
    """However often: what was begun goes on without who began it."""
    token = database.token("acme", tenant="acme")

    async def work(wards: AsyncWards) -> None:
        connection = await wards.getconn("acme")
        wards.begin(connection, token)
        await connection.execute("insert into patients (name) values ('lost')")
        async with connection.share.pool._lock:  # so that it cannot be given back yet
            giving = asyncio.ensure_future(wards.putconn(connection))
            while connection.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                await asyncio.sleep(0)
            for _ in range(times):
                giving.cancel()
                await asyncio.wait([giving])
            assert giving.cancelled()
        again = await wards.getconn("acme")
        assert again is connection
        await wards.putconn(again)

    run(database, work, max_per_tenant=1, timeout=60)


def test_a_password_may_be_awaited(database):
    async def password(tenant: str) -> str:
        await asyncio.sleep(0)
        asked.append(tenant)
        return known[f"tenant_{tenant}"]

    async def work(wards: AsyncWards) -> None:
        connection = await wards.getconn("globex")
        assert connection.info.user == "tenant_globex"
        await wards.putconn(connection)

    asked: list[str] = []
    known = dict(passwords(database.cluster.home.pgpass))
    run(database, work, password=password)
    assert asked == ["globex"]
