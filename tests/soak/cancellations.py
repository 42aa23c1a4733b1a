"""Requests of many tenants through one AsyncWards, cancelled at random: none may see another's context."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import psycopg

from tests.support.database import Database
from tests.support.storm import storm
from wardkey import AsyncWards
from wardkey.errors import NoContext

__all__ = ["TENANTS", "cancellations"]

TENANTS = 50
MAX_SIZE, MAX_PER_TENANT = 20, 4
_OURS = "select count(*) from pg_stat_activity where application_name = 'wardkey client'"


def cancellations(
    database: Database, slugs: Sequence[str], requests: int, chance: random.Random
) -> tuple[Counter[str], list[str]]:
    """Make so many requests; return what came of them, and what is amiss afterwards."""
    tokens = [(slug, who, database.token(slug, who, tenant=slug)) for slug in slugs for who in ("ann", "bob")]
    faults: list[str] = []

    async def main() -> Counter[str]:
        dsn = database.dsn("tenant_{tenant}")
        async with AsyncWards(dsn, max_size=MAX_SIZE, max_per_tenant=MAX_PER_TENANT, timeout=300) as wards:
            outcomes = await storm(wards, tokens, requests, chance)
            await _take_all(wards, slugs, faults)
        return outcomes

    outcomes = asyncio.run(main())
    if outcomes["answered"] + outcomes["cancelled"] != requests or outcomes["wrong"]:
        faults.append(f"of {requests} requests {dict(outcomes)}")
    faults += _left(database)
    return outcomes, faults


async def _take_all(wards: AsyncWards, slugs: Sequence[str], faults: list[str]) -> None:
    """Take all connections there may be: one that leaked would be missing, a context would show."""
    taken = [await wards.getconn(slug) for slug in slugs[: MAX_SIZE // MAX_PER_TENANT] * MAX_PER_TENANT]
    for connection in taken:
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            faults.append("a connection came back in a transaction")
        try:
            await connection.execute("select count(*) from patients")
            faults.append("a connection came back with a context")
        except NoContext:
            pass
        await wards.putconn(connection)


def _left(database: Database) -> list[str]:
    """Wait until the backends of closed connections have ended."""
    with database.admin() as admin:
        for _ in range(600):
            row = admin.execute(_OURS).fetchone()
            if row == (0,):
                return []
            time.sleep(0.1)
    return [f"{row and row[0]} connections are left after close()"]
