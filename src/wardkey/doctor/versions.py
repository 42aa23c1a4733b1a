"""Versions with known holes."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from ._check import Check, Problem, Server

__all__ = ["CHECKS", "known_holes"]

_HOLES: tuple[tuple[str, str, dict[int, int]], ...] = (
    (
        "CVE-2026-116303 and 41 more",
        "fixed by the release of November 2026",
        {15: 20},
    ),
    (
        "CVE-2026-14680",
        'any user runs code as the server through arguments of type "internal"',
        {15: 19, 16: 15, 17: 11, 18: 6},
    ),
    (
        "CVE-2026-16239",
        "any user runs code as the server through a cursor made again with other types",
        {15: 19, 16: 15, 17: 11, 18: 6},
    ),
    (
        "CVE-2026-6473",
        "any user corrupts the server's memory through sizes that wrap",
        {15: 18, 16: 14, 17: 10, 18: 4},
    ),
    (
        "CVE-2026-2006",
        "any user runs code as the server through multibyte characters",
        {15: 16, 16: 12, 17: 8, 18: 2},
    ),
    (
        "CVE-2025-8713",
        "statistics tell about rows that row-level security hides",
        {15: 14, 16: 10, 17: 6},
    ),
    (
        "CVE-2024-10976",
        "row-level security below subqueries applies another role's policies",
        {15: 9, 16: 5, 17: 1},
    ),
    ("CVE-2023-2455", "row-level security applies another role's policies after inlining", {15: 3}),
)
"""CVE, what it means for a ward, and by major version the minor version that fixes it. The newest first."""

_PGBOUNCER = (1, 26, 1)
_PGBOUNCER_HOLE = "CVE-2026-107350: one who knows one password logs in as anybody who uses SCRAM"


def known_holes(version: int) -> list[str]:
    """Return the known holes of a server of ``version`` (server_version_num)."""
    major, minor = divmod(version, 10000)
    return [f"{cve}: {text}" for cve, text, fixed in _HOLES if minor < fixed.get(major, 0)]


def _server(server: Server) -> Iterator[Problem]:
    number = server.value("select current_setting('server_version_num')::int")
    version = server.value("select current_setting('server_version')")
    for hole in known_holes(number):
        yield Problem(
            f"PostgreSQL {version}", hole, f"apt-get install --only-upgrade postgresql-{number // 10000}"
        )


def _pgbouncer(server: Server) -> Iterator[Problem]:
    """Look at the PgBouncer of this host, if it has one; others cannot be seen from here."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        return
    output = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=False, timeout=10
    ).stdout
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    if match and tuple(map(int, match.groups())) < _PGBOUNCER:
        least = ".".join(map(str, _PGBOUNCER))
        yield Problem(
            f"PgBouncer {match[0]} on this host", _PGBOUNCER_HOLE, f"install PgBouncer {least} or later"
        )


CHECKS = (
    Check("server-version", "PostgreSQL has no known hole that a tenant could use", _server),
    Check("pgbouncer-version", "PgBouncer on this host has no known hole", _pgbouncer, "info"),
)
