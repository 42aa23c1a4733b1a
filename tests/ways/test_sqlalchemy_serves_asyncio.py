"""The Engine for asyncio: tasks of many tenants share it, and what is cancelled leaves nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.support.database import TENANTS, Database
from wardkey import AsyncWards
from wardkey.errors import InvalidToken, NoContext, Unsupported
from wardkey.sqlalchemy import Sealed, as_token, async_engine, upsert


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patients"
    __table_args__: ClassVar[Any] = {"schema": "clinic"}
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Sealed)


@asynccontextmanager
async def engine_of(shared: Database) -> AsyncIterator[tuple[AsyncEngine, dict[str, str]]]:
    slugs = {str(shared.tenant_id(slug)): slug for slug in TENANTS}
    dsn = shared.dsn("tenant_{tenant}")
    async with AsyncWards(dsn, tenants=slugs, max_size=4, max_per_tenant=3, timeout=20) as wards:
        yield async_engine(wards), {slug: shared.token(slug) for slug in TENANTS}


def run(shared: Database, test: Callable[[AsyncEngine, dict[str, str]], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with engine_of(shared) as (engine, tokens):
            for token in tokens.values():
                with as_token(token):
                    async with engine.begin() as connection:
                        await connection.execute(sa.delete(Patient))
            await test(engine, tokens)

    asyncio.run(main())


def test_orm_core_and_streams_work(shared: Database) -> None:
    async def test(engine: AsyncEngine, tokens: dict[str, str]) -> None:
        with as_token(tokens["acme"]):
            async with AsyncSession(engine, expire_on_commit=False) as session:
                session.add_all([Patient(name=f"n{number:03}") for number in range(120)])
                await session.commit()
                assert await session.scalar(upsert(Patient, {"id": 10**6, "name": "n999"})) == 1
                await session.rollback()
            async with engine.connect() as connection:
                names = [row.name async for row in await connection.stream(sa.select(Patient.name))]
                assert sorted(names) == [f"n{number:03}" for number in range(120)]
                await connection.rollback()
                with pytest.raises(Unsupported, match="AUTOCOMMIT"):
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
            serial = engine.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True)
            async with serial.connect() as connection:
                for setting, value in (("isolation", "serializable"), ("read_only", "on")):
                    assert await connection.scalar(sa.text(f"show transaction_{setting}")) == value
            async with engine.connect() as connection:
                keys = await connection.run_sync(lambda sync: sa.inspect(sync).get_pk_constraint("patients"))
                assert keys["constrained_columns"] == ["id"]
        async with engine.execution_options(ward_token=tokens["globex"]).connect() as connection:
            assert await connection.scalar(sa.select(sa.func.count()).select_from(Patient)) == 0
        async with engine.connect() as connection:
            with pytest.raises(NoContext):
                await connection.scalar(sa.text("select 1"))
            with as_token(tokens["acme"][:-8] + "AAAAAAAA"), pytest.raises(InvalidToken):
                await connection.scalar(sa.text("select 1"))

    run(shared, test)


def test_tasks_that_are_cancelled_leave_no_transaction_and_no_context(shared: Database) -> None:
    async def test(engine: AsyncEngine, tokens: dict[str, str]) -> None:
        order = random.Random(7)
        wrong: list[object] = []

        async def request(slug: str) -> None:
            with as_token(tokens[slug]):
                async with AsyncSession(engine) as session:
                    session.add(Patient(name=slug))
                    await session.flush()
                    names = set(await session.scalars(sa.select(Patient.name)))
                    if names != {slug}:
                        wrong.append((slug, names))
                    await session.execute(sa.text("select pg_sleep(0.002)"))
                    await session.rollback()

        tasks = [asyncio.create_task(request(order.choice(TENANTS))) for _ in range(150)]
        while pending := [task for task in tasks if not task.done()]:
            order.choice(pending).cancel()
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in tasks if not task.cancelled()]
        assert wrong == [] and [task.exception() for task in done] == [None] * len(done) and done
        for slug in TENANTS:
            with as_token(tokens[slug]):
                async with engine.connect() as connection:
                    assert await connection.scalar(sa.select(sa.func.count()).select_from(Patient)) == 0
        with shared.admin() as admin:
            query = (
                "select count(*) from pg_stat_activity where usename in ('tenant_acme', 'tenant_globex')"
                " and datname = current_database() and state <> 'idle'"
            )
            assert admin.execute(query).fetchone() == (0,)

    run(shared, test)
