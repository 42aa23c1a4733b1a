"""Tests of several majors of PostgreSQL on one machine: ``make test-versions`` has them in a tree."""

from __future__ import annotations

from pathlib import Path

MAJORS = sorted(
    int(path.parent.parent.name) for path in Path("/usr/lib/postgresql").glob("*/lib/plpython3.so")
)
collect_ignore_glob = [] if len(MAJORS) > 1 else ["test_*"]
