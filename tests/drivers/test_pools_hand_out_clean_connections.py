"""asyncpg's pool resets what comes back: no transaction, context, setting or cursor is left in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from tests.drivers.conftest import Way
from tests.support.database import Database

QUERY = "select note from specimens"
Work = Callable[[asyncpg.Pool], Awaitable[None]]


@pytest.fixture
def run(way: Way) -> Callable[[Work], None]:
    """Run with a pool of one connection; what asyncio's event loop is told of is an error."""

    async def with_pool(work: Work) -> None:
        pool = asyncpg.create_pool(
            way.url,
            password=way.password,
            min_size=1,
            max_size=1,
            statement_cache_size=0 if way.is_pooled else 100,
        )
        async with pool:
            await work(pool)
            async with pool.acquire() as connection:
                assert not connection.is_in_transaction()
                assert await connection.fetchrow("select ward.subject(), ward.tenant_id()") == (None, None)
                assert await connection.fetchval("select current_setting('statement_timeout')") == "0"
                with pytest.raises(asyncpg.PostgresError) as refused:
                    await connection.fetch(QUERY)
                assert refused.value.sqlstate == "WK001"

    return lambda work: asyncio.run(with_pool(work))


async def sleeping(database: Database) -> None:
    """Wait until PostgreSQL is at the query: it ignores a cancellation that comes before."""
    there = "select 1 from pg_stat_activity where datname = current_database() and query ~ '^select pg_sleep'"
    with database.admin() as admin:
        while not admin.execute(there + " and state = 'active'").fetchall():
            await asyncio.sleep(0.01)


def test_after_a_task_was_cancelled(way: Way, run: Callable[[Work], None]) -> None:
    token = way.database.token("acme", "dr.grey")

    async def work(pool: asyncpg.Pool) -> None:
        async def transaction() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select ward.login($1)", token)
                await connection.execute("insert into specimens (accession) values ('cancelled')")
                await connection.execute("select pg_sleep(120)")

        for _ in range(3):
            task = asyncio.create_task(transaction())
            await sleeping(way.database)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(work)
    with way.database.tenant("acme", subject="reader") as ward:
        assert ward.execute(QUERY).fetchall() == []


def test_after_a_transaction_was_left_open(way: Way, run: Callable[[Work], None]) -> None:
    token = way.database.token("acme", "dr.grey")

    async def work(pool: asyncpg.Pool) -> None:
        told = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: told.append(context["message"].partition(" <")[0])
        )
        async with pool.acquire() as connection:
            await connection.execute("begin")
            await connection.execute("select ward.login($1)", token)
            await connection.execute("declare open cursor for " + QUERY)
            await connection.execute("set statement_timeout = '1h'")
        assert told == ["Resetting connection with an active transaction"]
        asyncio.get_running_loop().set_exception_handler(None)

    run(work)


def test_after_a_login_for_the_session(way: Way, run: Callable[[Work], None]) -> None:
    """It is for psql; the reset has RESET ALL, which ends it."""
    token = way.database.token("acme", "dr.grey")

    async def work(pool: asyncpg.Pool) -> None:
        async with pool.acquire() as connection:
            await connection.execute("select ward.login_session($1)", token)
            assert await connection.fetchval("select ward.subject()") == "dr.grey"

    run(work)
