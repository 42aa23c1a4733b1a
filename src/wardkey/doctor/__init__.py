"""Checks of a live server against every invariant of the design; each failure comes with what fixes it.

A check is a query in the ``.sql`` file of its theme, or a function in the module of its theme. ``diagnose``
runs them all and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..install import requirements
from . import audit, cache, extension, keeper, memory, settings, versions, wards
from ._check import Check, Finding, Outcome, Problem, Server, read_checks
from .memory import remember

__all__ = ["Check", "Finding", "Outcome", "Problem", "Server", "checks", "diagnose", "remember"]

_BEARABLE = frozenset({"keeper socket", "keeper within the server's reach", "an issuer of tokens"})
"""Requirements that may be missing without making the other checks impossible."""


def checks() -> dict[str, tuple[Check, ...]]:
    """Return the checks of each theme, in the order they run."""
    return {
        "versions": versions.CHECKS,
        "extension": extension.CHECKS,
        "wards": wards.CHECKS,
        "since the last run": memory.CHECKS,
        "models": read_checks("models"),
        "roles": read_checks("roles"),
        "privileges": read_checks("privileges"),
        "functions": read_checks("functions"),
        "tables": read_checks("tables"),
        "settings": settings.CHECKS,
        "keys": read_checks("keys"),
        "access": read_checks("access"),
        "keeper": keeper.CHECKS,
        "audit log": audit.CHECKS,
        "cache": cache.CHECKS,
    }


def diagnose(server: Server) -> Iterator[Finding]:
    """Run every check. Where wardkey could not work at all, only its requirements are reported."""
    missing = [finding for finding in requirements.check(server.connection) if not finding.ok]
    yield Finding(
        "requirements",
        "requirements",
        "the server has what wardkey needs",
        "fail" if missing else "ok",
        tuple(Problem(finding.requirement, finding.detail, finding.fix) for finding in missing),
    )
    if all(finding.requirement in _BEARABLE for finding in missing):
        for theme, members in checks().items():
            for check in members:
                yield check.run(theme, server)
