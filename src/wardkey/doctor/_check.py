"""What a check is: an invariant, a way to look for what breaks it, and how bad that would be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from ..embedded import Home

__all__ = ["Check", "Finding", "Outcome", "Problem", "Server", "prelude", "read", "read_checks"]

Outcome = Literal["ok", "info", "warn", "fail"]
"""fail: an invariant is broken; warn: a defence is weaker than it should be; info: worth knowing."""

_HEADING = re.compile(r"^-- ([a-z-]+) \((fail|warn|info)\): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """The server that is checked, through a superuser's connection. ``home`` is None when it is not here.

    ``memory``: the file of what was found at the last run.
    """

    connection: psycopg.Connection[Any]
    home: Home | None = None
    memory: Path | None = None

    @cached_property
    def is_standby(self) -> bool:
        return bool(self.value("select pg_is_in_recovery()"))

    def rows(self, query: str | sql.Composed, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values or None).fetchall()

    def value(self, query: str, *values: Any) -> Any:
        rows = self.rows(query, *values)
        return rows[0][0] if rows else None


@dataclass(frozen=True, slots=True)
class Problem:
    """What breaks the invariant: the object, in which way, and the statement or command that fixes it."""

    object: str
    detail: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    theme: str
    check: str
    holds: str
    outcome: Outcome
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` is a function, or a query for object, detail and fix that stands below ``prelude.sql``.

    ``primary``: it looks at what only a primary has, or makes objects to compare with, which are rolled back.
    """

    name: str
    holds: str
    look: str | Callable[[Server], Iterable[Problem]]
    severity: Outcome = "fail"
    primary: bool = False

    def run(self, theme: str, server: Server) -> Finding:
        """Look, in a transaction that is rolled back, with only the catalog in the search_path."""
        if self.primary and server.is_standby:
            problem = Problem("this standby", "this is seen on the primary only", "run it there")
            return Finding(theme, self.name, self.holds, "info", (problem,))
        try:
            with server.connection.transaction(force_rollback=True):
                server.connection.execute("set local search_path = pg_catalog, pg_temp")
                if isinstance(self.look, str):
                    problems = tuple(Problem(*row) for row in server.rows(prelude() + self.look))
                else:
                    problems = tuple(self.look(server))
        except psycopg.DatabaseError as error:
            if server.connection.broken or isinstance(error, psycopg.errors.QueryCanceled):
                raise
            reason = error.diag.message_primary or type(error).__name__
            problems = (Problem("this check", f"could not be made: {reason}"),)
        return Finding(theme, self.name, self.holds, self.severity if problems else "ok", problems)


def read_checks(theme: str) -> tuple[Check, ...]:
    """Return the checks of ``theme.sql``: each a line ``-- name (severity): invariant`` and a query."""
    parts = _HEADING.split(read(theme))[1:]
    return tuple(
        Check(name, holds, query.strip().removesuffix(";"), cast(Outcome, severity))
        for name, severity, holds, query in zip(*(parts[place::4] for place in range(4)), strict=True)
    )


@cache
def prelude() -> str:
    """Return the common table expressions that queries may use."""
    return read("prelude")


def read(name: str) -> str:
    """Return the text of ``name.sql``."""
    return files(__package__).joinpath(f"{name}.sql").read_text("utf-8")
