"""Many requests of many tenants at once through AsyncWards, of which some are cancelled at any moment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random

from wardkey import AsyncWards

__all__ = ["Tokens", "storm"]

Tokens = Sequence[tuple[str, str, str]]  # a tenant's slug, a subject, its token

_WHO = "select session_user::text, ward.subject(), pg_sleep(%s)"


async def storm(
    wards: AsyncWards, tokens: Tokens, requests: int, chance: Random, at_once: int = 200
) -> Counter[str]:
    """Make so many requests; return how many were answered and cancelled, and how many answers were wrong.

    Four of ten are cancelled after up to 30 ms, wherever they are then: while they wait for a connection,
    connect, log in, run a statement, commit or give their connection back.
    """
    outcomes: Counter[str] = Counter()

    async def request(slug: str, subject: str, token: str) -> None:
        async with wards.transaction(token) as connection:
            for _ in range(chance.randint(1, 3)):
                cursor = await connection.execute(_WHO, [chance.choice([0, 0, 0.002, 0.01])])
                who = await cursor.fetchone()
                is_right = who is not None and who[:2] == (f"tenant_{slug}", subject)
                outcomes["right" if is_right else "wrong"] += 1

    async def one() -> None:
        task = asyncio.ensure_future(request(*chance.choice(tokens)))
        if chance.random() < 0.4:
            asyncio.get_running_loop().call_later(chance.uniform(0, 0.03), task.cancel)
        await asyncio.wait([task])
        outcomes["cancelled" if task.cancelled() else "failed" if task.exception() else "answered"] += 1
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def worker(share: int) -> None:
        for _ in range(share):
            await one()

    await asyncio.gather(*(worker(requests // at_once) for _ in range(at_once)))
    return outcomes
