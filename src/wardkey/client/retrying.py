"""``retry``: transactions again that PostgreSQL or wardkey refused only because of the moment.

Those are 40001 (serialization failure), 40P01 (deadlock), WK107 (the keys were rotated meanwhile), WK007 (the
context was looked up too late) and WK113 (the keeper is busy). What an adapter wrapped is looked at too: the
``orig`` of SQLAlchemy, the ``__cause__`` of Django.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from random import uniform
from typing import Any, ParamSpec, TypeVar, cast

from ..errors import ContextStale, KeeperBusy, KeysChanged

__all__ = ["Attempt", "retry"]

P = ParamSpec("P")
T = TypeVar("T")

_TRANSIENT = {"40001", "40P01", *(error.sqlstate for error in (KeysChanged, ContextStale, KeeperBusy))}


class retry:  # noqa: N801 - it is called as a function
    """Run a block or function again while it fails for the moment's sake, ``attempts`` times in all.

    ::

        for attempt in wardkey.retry():
            with attempt, wards.transaction(token) as connection:
                connection.execute(…)

    ``async for`` awaits between the attempts. As a decorator, ``@wardkey.retry()``, of a function or
    coroutine function. Between two attempts it waits up to ``delay`` seconds, twice that after each further
    one, at most ``max_delay``; how long is drawn at random, so that those who met do not meet again. The last
    attempt's error is raised, and any other error at once.
    """

    def __init__(self, attempts: int = 5, *, delay: float = 0.05, max_delay: float = 2.0) -> None:
        if attempts < 1:
            raise ValueError("attempts must be at least 1")
        self._attempts, self._delay, self._max_delay = attempts, delay, max_delay

    def __iter__(self) -> Iterator[Attempt]:
        for number in range(1, self._attempts + 1):
            yield (attempt := Attempt(is_last=number == self._attempts))
            if not attempt.has_failed:
                return
            time.sleep(self._wait(number))

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        for number in range(1, self._attempts + 1):
            yield (attempt := Attempt(is_last=number == self._attempts))
            if not attempt.has_failed:
                return
            await asyncio.sleep(self._wait(number))

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            for attempt in self:
                with attempt:
                    return function(*args, **kwargs)

        @wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            async for attempt in self:
                with attempt:
                    return await cast(Any, function(*args, **kwargs))

        return cast(Callable[P, T], call_async if iscoroutinefunction(function) else call)

    def _wait(self, number: int) -> float:
        return uniform(0, min(self._delay * 2 ** (number - 1), self._max_delay))  # noqa: S311


class Attempt:
    """One attempt: takes an error that is worth another one."""

    def __init__(self, *, is_last: bool) -> None:
        self._is_last = is_last
        self.has_failed = False

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self.has_failed = error is not None and not self._is_last and _is_transient(error)
        return self.has_failed


def _is_transient(error: BaseException) -> bool:
    seen = (error, getattr(error, "orig", None), error.__cause__)
    return any(getattr(each, "sqlstate", None) in _TRANSIENT for each in seen)
